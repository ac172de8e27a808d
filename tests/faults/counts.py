"""How often a fault is tried: a few times in every run of the tests, more by `make test-faults`."""

from __future__ import annotations

import os


def times(few: int, full: int) -> int:
    """Return how often, by whether all of it is asked for."""
    return full if os.environ.get("VITFEAT_FAULTS") == "full" else few
