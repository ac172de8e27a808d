#!/usr/bin/env python3
"""Submit a job script of Snakemake's to PBS, and print the job's id."""

import json
import re
import subprocess
import sys
from pathlib import Path

# Any Python will do, also one without Snakemake, which describes the job in a line of its script.
script = sys.argv[-1]
described = re.search("^# properties = (.*)$", Path(script).read_text(), re.M)
if described is None:
    sys.exit(f"{script}: no job script of Snakemake's")
job = json.loads(described[1])
needs = job["resources"]
select = f"select=1:ncpus={job['threads']}:mem={needs['mem_mb']}mb"
if needs.get("gpu"):
    select += f":ngpus={needs['gpu']}"
hours, minutes = divmod(needs["runtime"], 60)
name = job.get("rule") or job.get("groupid")
command = ["qsub", "-V", "-j", "oe", "-N", f"vitfeat-{name}"[:15]]
command += ["-l", select, "-l", f"walltime={hours:02}:{minutes:02}:00", script]
sys.exit(subprocess.run(command, check=False).returncode)
