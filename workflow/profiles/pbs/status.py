#!/usr/bin/env python3
"""Print what has become of a job of PBS: success, failed or running."""

import re
import subprocess
import sys

done = subprocess.run(
    ["qstat", "-x", "-f", sys.argv[-1]], capture_output=True, text=True, check=False
)
state = re.search(r"job_state = (\w)", done.stdout)
status = re.search(r"Exit_status = (-?\d+)", done.stdout)
if state is None or state[1] not in "FXC":
    # Not known yet, or a server that is busy: it is asked again.
    print("running")
else:
    print("success" if status is not None and status[1] == "0" else "failed")
