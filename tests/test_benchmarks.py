"""The measurement of a GPU runs where there is none, on next to nothing."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from benchmarks import gpu


def test_the_measurement_of_a_gpu_runs_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(gpu.MODELS, "L/14")
    monkeypatch.setattr(sys, "argv", ["gpu", "--smoke", "--device", "cpu", "--out", str(tmp_path)])
    gpu.main()
    with (tmp_path / "gpu.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    measured = {row["what"].partition(" 64")[0] for row in rows}
    assert {"bare forward", *gpu.TAPS, "JPEG end to end", "CPU against device"} <= measured
    assert not any(row["note"].startswith("left out") for row in rows)
    equal = [row["note"] for row in rows if row["what"] == "CPU against device"]
    assert equal == ["within 0.001", "within 0.1"]
    # A header, a rule and a line for each row, as wide as the table; nothing else is left there.
    lines = (tmp_path / "gpu.md").read_text("utf-8").splitlines()[2:]
    assert len(lines) == 2 + len(rows)
    assert {line.count("|") for line in lines} == {len(rows[0]) + 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gpu.csv", "gpu.md"]
