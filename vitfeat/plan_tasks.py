"""What jobs of the tasks will need of a machine; as in plan.py, rather too much."""

from __future__ import annotations
