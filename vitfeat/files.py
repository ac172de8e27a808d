"""Writing files so that a name never stands for half a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitfeat.analysis.atomic import replacing


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, sorted and indented, at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
