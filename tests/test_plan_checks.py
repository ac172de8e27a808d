"""What stops jobs later is said while they are planned: folders, images, layers, devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vitfeat.cli import main
from vitfeat.config.config import Config
from vitfeat.config.parsing import parse_config
from vitfeat.errors import ConfigError
from vitfeat.gpus import Gpu
from vitfeat.plan import checks as plan_checks
from vitfeat.plan.checks import check_start, foresee


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """Make a config of one dataset."""

    def made(dataset: dict[str, Any] | None = None, **more: Any) -> Config:
        analyses = more.pop("analyses", {"cka": {}})
        raw = {
            "results": str(tmp_path / "results"),
            "models": ["demo-dino"],
            "datasets": {"photos": dataset or {"layout": "digits", "split": "test"}},
            "analyses": {n: {"datasets": ["photos"], **a} for n, a in analyses.items()},
            **more,
        }
        return parse_config(raw)

    return made


def images(layout: str, root: Path | str, **settings: Any) -> dict[str, Any]:
    return {"layout": layout, "root": str(root), **settings}


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (images("flat", "nowhere"), "nowhere does not exist yet"),
        (
            images("coco", "nowhere", split="val"),
            "docs/analyses/regions.md shows what belongs there",
        ),
        (images("flat", "D:\\photos"), "a path of Windows"),
        (images("flat", "data\\photos"), "a path of Windows"),
        (images("flat", __file__), "is no folder"),
        (images("flat", "{empty}"), "no images in"),
        (images("folder", "{empty}"), "no images in"),
        (images("folder", "{photos}", split="train"), "no split train in"),
        (images("folder", "{photos}", split="cat"), "holds images but no subfolders"),
        (images("imagenet50", "{photos}"), "50 of the 50 class folders are missing"),
        (images("list", "{photos}", list="{photos}/none.txt"), "none.txt cannot be read"),
        (images("coco", "{photos}", split="val"), "has no annotations/instances_val.json"),
        (images("davis", "{photos}", split="val"), "ImageSets/2017"),
        (images("spair", "{photos}", split="test"), "dataset photos"),
        (images("revisited", "{photos}"), "gnd_"),
    ],
)
def test_data_that_is_not_there(
    config: Any, photos: Path, tmp_path: Path, dataset: dict[str, Any], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"{empty}": str(tmp_path / "empty"), "{photos}": str(photos)}
    for key, value in dataset.items():
        for place, path in places.items():
            dataset[key] = value = value.replace(place, path)
    lines = foresee(config(dataset, analyses={"cka": {"tokens": ["cls"]}}))
    assert len(lines) == 1
    assert lines[0].startswith("dataset photos: ") or "list" in dataset
    assert words in lines[0]


def test_data_that_is_there_or_that_nobody_asks_for(config: Any, photos: Path) -> None:
    assert foresee(config()) == []
    assert foresee(config(images("folder", photos))) == []
    assert foresee(config(images("flat", "nowhere"), analyses={})) == []


@pytest.mark.parametrize("analysis", ["clustering", "knn"])
def test_a_list_without_labels_where_they_are_needed(
    config: Any, photos: Path, analysis: str
) -> None:
    names = photos.parent / "names.txt"
    names.write_text("cat/a.png\ndog/d.png\n")
    listed, folder = images("list", photos, list=str(names)), images("folder", photos)
    settings = {"train": {"photos": "listed"}} if analysis == "knn" else {}
    first = listed if analysis == "clustering" else folder
    more = {"datasets": {"photos": first, "listed": listed}}
    with pytest.raises(ConfigError, match=rf"analyses.{analysis}: needs a label.*names.txt"):
        foresee(config(analyses={analysis: settings}, **more))
    with pytest.raises(ConfigError, match="per_class: the images have no labels"):
        foresee(config({**listed, "per_class": 2}))


def test_images_to_be_shown_that_are_not_there(config: Any, photos: Path) -> None:
    def shown(*ids: str, **settings: Any) -> list[str]:
        maps = {"attention_maps": {"images": list(ids)}}
        return foresee(config(images("folder", photos, **settings), analyses=maps))

    assert shown("cat/a.png", "dog/e.png") == []
    with pytest.raises(ConfigError, match=r"'cat/a.jpg' \(did you mean 'cat/a.png'\?\)"):
        shown("cat/a.jpg")
    with pytest.raises(ConfigError, match=r"images: the dataset 'photos' has no image 'cow/a.png'"):
        shown("cow/a.png")
    out = photos.parent / "results/datasets/photos.csv"
    words = ["index", "photos", "--layout", "folder", "--root", str(photos), "--limit", "2"]
    assert main([*words, "--out", str(out)]) == 0
    assert "leaves 'dog/e.png' out" in shown("cat/a.png", "dog/e.png", limit=2)[0]


def test_layers_heads_and_positions_that_a_model_does_not_have(config: Any) -> None:
    maps = {"layer": 6, "head": 4, "positions": ["cls", "3,8", "7,7"]}
    lines = foresee(config(analyses={"attention_maps": maps}, extraction={"layers": [0, 12]}))
    assert lines == [
        "extraction.layers: model demo-dino: found 12; a model of 6 layers has 0 to 5",
        "analyses.attention_maps.layer: model demo-dino: found 6; a model of 6 layers has 0 to 5",
        "analyses.attention_maps.head: model demo-dino: found 4; a model of 4 heads has 0 to 3",
        "analyses.attention_maps.positions: model demo-dino: found 3,8; its grid is about 8 x 8, "
        "from 0,0",
    ]


@pytest.mark.parametrize(
    ("asked", "gpus", "lacks"),
    [
        ("cuda", 0, True),
        ("cuda:0", 1, False),
        ("cuda:7", 2, True),
        ("auto", 0, False),
        ("cpu", 0, False),
    ],
)
def test_a_gpu_that_this_machine_does_not_have(
    config: Any, monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int, lacks: bool
) -> None:
    found = [Gpu(str(number), str(number)) for number in range(gpus)]
    monkeypatch.setattr(plan_checks, "visible_gpus", lambda: found)
    monkeypatch.setattr(plan_checks, "_DRIVER", Path("/nowhere"))
    given = config(extraction={"device": asked})
    # Another machine may run the jobs: a plan is not refused.
    assert len(foresee(given)) == lacks
    check_start(given, fetches=False, on_device=False)
    if lacks:
        with pytest.raises(ConfigError, match=f"extraction.device: found '{asked}'.*use auto"):
            check_start(given, fetches=False, on_device=True)
    else:
        check_start(given, fetches=False, on_device=True)


def test_results_that_cannot_be_written(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**more: Any) -> None:
        check_start(config(**more), fetches=True, on_device=False)

    start()
    (tmp_path / "results").write_text("")
    with pytest.raises(ConfigError, match=r"^results: .*results' is a file"):
        config()
    with pytest.raises(ConfigError, match=r"^weights: .*results' is a file"):
        config(results=str(tmp_path / "other"), weights=str(tmp_path / "results/weights"))
    # Root may write everywhere.
    monkeypatch.setattr(plan_checks.os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=r"^results: nothing may be written in "):
        start(results=str(tmp_path / "deep/results"))
