#!/usr/bin/env python3
"""Give a job script of Snakemake's to Kubernetes as a job of one pod, and print the job's name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

# Any Python will do, also one without Snakemake, which describes the job in a line of its script.
image, claim, mounted, script = sys.argv[1:]
described = re.search("^# properties = (.*)$", Path(script).read_text(), re.M)
if described is None:
    sys.exit(f"{script}: no job script of Snakemake's")
job = json.loads(described[1])
needs = job["resources"]
memory = {"memory": f"{needs['mem_mb']}M"}
# A GPU is asked for by its limit, and nodes with GPUs are often kept for those that do.
gpu = {"nvidia.com/gpu": str(needs["gpu"])} if needs.get("gpu") else {}
tolerations = [{"key": name, "operator": "Exists", "effect": "NoSchedule"} for name in gpu]
name = (job.get("rule") or job.get("groupid")).lower()
container = {
    "name": "job",
    "image": image,
    "command": ["sh", str(Path(script).resolve())],
    "workingDir": str(Path.cwd()),
    # What Snakemake's process has to tell its jobs, and where fetched weights are.
    "env": [
        {"name": variable, "value": os.environ[variable]}
        for variable in ("VITFEAT_LIMITS", "HF_HOME")
        if variable in os.environ
    ],
    "resources": {"requests": {"cpu": str(job["threads"]), **memory}, "limits": {**memory, **gpu}},
    "volumeMounts": [
        {"name": "shared", "mountPath": mounted},
        # Decoding processes hand on images in shared memory; pods have 64 MB of it by themselves.
        {"name": "memory", "mountPath": "/dev/shm"},
    ],
}
manifest = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"generateName": f"vitfeat-{re.sub('[^a-z0-9]+', '-', name)[:40]}-"},
    "spec": {
        # Snakemake tries again, with more memory and time.
        "backoffLimit": 0,
        "activeDeadlineSeconds": 60 * needs["runtime"],
        "ttlSecondsAfterFinished": 24 * 3600,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [container],
                "tolerations": tolerations,
                "volumes": [
                    {"name": "shared", "persistentVolumeClaim": {"claimName": claim}},
                    {"name": "memory", "emptyDir": {"medium": "Memory"}},
                ],
            }
        },
    },
}
command = ["kubectl", "create", "-f", "-", "-o", "name"]
sys.exit(subprocess.run(command, input=json.dumps(manifest), text=True, check=False).returncode)
