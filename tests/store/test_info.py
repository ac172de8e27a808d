"""`vitfeat info`: everything that decides or changes numbers, in words, a line each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.store.filled import GEOMETRY, Content, resealed
from vitfeat.cli import main
from vitfeat.data.views import in_words
from vitfeat.store.info import describe
from vitfeat.store.opening import open_store


def _lines(path: Path) -> dict[str, list[str]]:
    """Return the lines by their first word; a line of spaces belongs to the one before."""
    found: dict[str, list[str]] = {}
    key = ""
    for line in describe(open_store(path)):
        assert "\n" not in line
        key = line[:13].strip() or key
        found.setdefault(key, []).append(line[13:].strip())
    return found


def test_what_decides_the_numbers_is_said(written: Path) -> None:
    lines = _lines(written)
    assert lines["store"] == [str(written)]
    assert lines["model"] == ["m (timm vit, with depth 5)"]
    assert lines["weights"][0] == f"tensors, sha256 {'ab' * 32}"
    assert lines["images"] == ["22, 14 labelled, 2 classes", f"sha256 {'cd' * 32}"]
    assert lines["skipped"] == ["1, first: broken.png"]
    assert lines["view"] == [
        "square: short side to 37, its centre 32 x 32 kept: 86.49 % of the short side"
    ]
    (normalised,) = lines["normalised"]
    assert normalised.startswith("mean 0.5, 0.5, 0.5; std 0.5, 0.5, 0.5")
    assert lines["grid"] == ["2 x 3 tokens, behind CLS and 2 registers"]
    assert lines["layers"] == ["1, 3, 4"]
    assert lines["taps"] == ["cls, registers, spatial, attention, attention_summary"]
    assert lines["precision"] == ["computed in float32, features stored as float16"]
    assert lines["passes"] == ["22 images pushed through the model"]
    assert lines["format"] == ["4"]
    assert "image 22, layer 3, channel 8" in " ".join(lines["cls"])


def test_what_is_not_as_usual_is_said(tmp_path: Path) -> None:
    geometry = replace(GEOMETRY, has_cls=False, n_registers=0, has_branches=False)
    kept = {"attention": (1, 3)}
    Content(geometry=geometry, taps=("spatial", "attention"), kept=kept).write(tmp_path / "m.zarr")

    def change(attributes: dict[str, Any]) -> None:
        attributes["notes"] = ["3 images are turned", "the crop is the dataset's"]
        attributes["request"]["precision"] = "bf16"
        attributes["request"]["limits"] = {"attention": 2}
        attributes["final_norm"] = {"kind": "rms", "eps": 1e-6, "pooled": True}

    resealed(tmp_path / "m.zarr", change)
    lines = _lines(tmp_path / "m.zarr")
    assert lines["note"] == ["3 images are turned", "the crop is the dataset's"]
    assert lines["precision"] == ["computed in bfloat16, features stored as float16"]
    assert lines["limited"] == ["attention: 2 images, spread over the dataset"]
    assert lines["grid"] == ["2 x 3 tokens, no CLS"]
    assert lines["final norm"] == [
        "rms, eps 1e-06, applied to pooled tokens; features are before it"
    ]
    assert lines["branches"][0].startswith("none: its blocks do not add")


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (
            {"kind": "square", "size": [224, 224], "resize_to": 256, "crop_fraction": 0.875},
            "square: short side to 256, its centre 224 x 224 kept: 87.5 % of the short side",
        ),
        (
            {"kind": "square", "size": [224, 224], "resize_to": 224, "crop_fraction": 1.0},
            "square: short side to 224, its centre 224 x 224 kept: all of the short side",
        ),
        (
            {"kind": "square", "size": [224, 160], "resize_to": 183, "crop_fraction": 0.875},
            "square: to the least size that covers 256 x 183, its centre 224 x 160 kept: 87.43 % "
            "of what is covered",
        ),
        (
            {"kind": "padded", "size": [224, 224], "interpolation": "lanczos"},
            "padded: the whole image within 224 x 224, black around it; lanczos",
        ),
        (
            {
                "kind": "dense",
                "side": "short",
                "pixels": 448,
                "patch": [16, 16],
                "window": [224, 224],
            },
            "dense: the whole image, short side to 448, both down to whole patches of 16 x 16, in "
            "windows of 224 x 224",
        ),
        (
            {"kind": "dense", "side": "long", "pixels": 640, "patch": [14, 14], "window": None},
            "dense: the whole image, long side to 640, both down to whole patches of 14 x 14, in "
            "one pass",
        ),
        ({"kind": "later", "fold": 3}, "later: fold 3"),
    ],
)
def test_a_view_in_words(view: dict[str, Any], words: str) -> None:
    assert in_words(view) == words


def test_the_command_prints_the_lines(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(written)]) == 0
    assert capsys.readouterr().out.splitlines() == list(describe(open_store(written)))
