#!/usr/bin/env python3
"""Print what has become of a job of Kubernetes: success, failed or running."""

import subprocess
import sys

conditions = '{.status.conditions[?(@.status=="True")].type}'
done = subprocess.run(
    ["kubectl", "get", sys.argv[-1], "-o", f"jsonpath={conditions}"],
    capture_output=True,
    text=True,
    check=False,
)
if "Complete" in done.stdout.split():
    print("success")
elif "Failed" in done.stdout.split() or "NotFound" in done.stderr:
    print("failed")
else:
    # Waiting, at work, or a server that is busy: it is asked again.
    print("running")
