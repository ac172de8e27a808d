from __future__ import annotations

import json
import re
from typing import Any

import pytest

from vitfeat.demo.network import NAMES
from vitfeat.errors import ConfigError
from vitfeat.models.entry import ModelEntry, builtin_catalog, find_entry, read_catalog
from vitfeat.models.shapes import size_name

# The configurations of Walmer et al. (2023), by supervision.
PAPER = {
    "dino": ["dino-s16", "dino-s8", "dino-b16", "dino-b8"],
    "clip": ["clip-b32", "clip-b16", "clip-l14", "clip-l14-336"],
    "mae": ["mae-b16", "mae-l16", "mae-h14"],
    "moco": ["moco-s16", "moco-b16"],
    "beit": ["beit-b16", "beit-l16"],
    "supervised": [
        *(f"supervised-{size}" for size in ("s32", "s16", "b32", "b16", "b8", "l16")),
        *(f"supervised-{size}-384" for size in ("b16", "b32", "l16", "l32")),
    ],
    "random": ["random-b16"],
}


def _entry(**fields: Any) -> ModelEntry:
    return ModelEntry.from_mapping("mine", {"source": "timm", "name": "vit", **fields})


def test_the_catalogue_has_the_papers_models_and_the_demos() -> None:
    catalogue = builtin_catalog()
    paper = {model: family for family, models in PAPER.items() for model in models}
    assert len(paper) == 26
    assert set(catalogue) > set(paper) | {f"demo-{name}" for name in NAMES}
    for model, family in paper.items():
        assert catalogue[model].family == family


@pytest.mark.parametrize("model_id", sorted(builtin_catalog()))
def test_entries_name_real_architectures(model_id: str) -> None:
    import open_clip
    import timm

    entry = builtin_catalog()[model_id]
    assert entry.id == model_id
    assert entry.label
    if entry.source == "timm":
        assert timm.is_model(entry.name.split(".")[0])
    elif entry.source == "open_clip":
        assert entry.name in open_clip.list_models()
    elif entry.source == "demo":
        assert entry.name in NAMES
        assert model_id == f"demo-{entry.name}"


@pytest.mark.parametrize("model_id", [model for models in PAPER.values() for model in models])
def test_the_papers_entries_are_of_the_size_in_their_id(model_id: str) -> None:
    found = re.fullmatch(r"\w+-([a-z])(\d+)(?:-(\d+))?", model_id)
    assert found
    letter, patch, size = found.groups()
    assert size_name(builtin_catalog()[model_id]) == f"{letter.upper()}/{patch}@{size or 224}"


def test_the_catalogue_keeps_the_centre_of_published_models_images_and_all_of_the_demos() -> None:
    """256 and 224 pixels, as published evaluations have it; configs/paper.yaml sets 1.0."""
    for model_id, entry in builtin_catalog().items():
        assert entry.crop_fraction == (1.0 if entry.source == "demo" else 224 / 256), model_id


def test_entries_become_json_and_come_back() -> None:
    for entry in builtin_catalog().values():
        mapping = json.loads(json.dumps(entry.to_mapping()))
        model_id = mapping.pop("id")
        assert ModelEntry.from_mapping(model_id, mapping) == entry


def test_defaults() -> None:
    entry = _entry()
    assert entry.label == "mine"
    assert entry.normalisation_values() is None
    assert (entry.pretrained, entry.checkpoint, entry.seed) == (False, None, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normalization": "clip"}, r"mine: unknown key 'normalization' .*'normalisation'"),
        ({"source": "tim"}, r"mine\.source: found 'tim' \(did you mean 'timm'\?\)"),
        ({"source": None}, r"mine\.source: found None"),
        ({"pretrained": True, "checkpoint": "a.pth"}, "both 'pretrained' and 'checkpoint'"),
        ({"normalisation": "imagnet"}, r"'imagnet' \(did you mean 'imagenet'\?\)"),
        ({"normalisation": {"mean": [0.5, 0.5, 0.5]}}, "std must be three numbers"),
        ({"normalisation": {"mean": [0, 0], "std": [1, 1, 1]}}, "three numbers each"),
        ({"normalisation": {"mean": [0, 0, 0], "std": [1, 0, 1]}}, "std above 0"),
        ({"normalisation": {"mean": ["a", 0, 0], "std": [1, 1, 1]}}, "three numbers"),
        ({"normalisation": [0.5, 0.5, 0.5]}, "allowed: imagenet, clip, half, or {mean"),
        ({"normalisation": 3}, "allowed: imagenet, clip, half, or {mean"),
        ({"normalisation": {"mean": [0.5] * 3, "sd": [0.5] * 3}}, "unknown key 'sd' .*'std'"),
        ({"normalisation": {"mean": [True, 0, 0], "std": [1, 1, 1]}}, "three numbers"),
        ({"normalisation": {"mean": [float("nan"), 0, 0], "std": [1, 1, 1]}}, "a finite number"),
        (
            {"normalisation": {"mean": [123.675, 116.28, 103.53], "std": [58.4, 57.1, 57.4]}},
            "of pixels between 0 and 1; divide those of pixels up to 255 by 255",
        ),
        ({"normalisation": {"mean": [0.5] * 3, "std": [58.4, 57.1, 57.4]}}, "between 0 and 1"),
        ({"normalisation": {"mean": [-0.1, 0, 0], "std": [1, 1, 1]}}, "between 0 and 1"),
        (
            {"normalisation": {"mean": [0.406, 0.456, 0.485], "std": [0.225, 0.224, 0.229]}},
            "that of imagenet in the order blue, green, red",
        ),
        ({"checkpoint": ""}, "mine.checkpoint: found ''; allowed: a text"),
        ({"weights": ""}, "mine.weights: found ''; allowed: a text"),
        ({"name": ""}, "mine.name: found ''; allowed: a text"),
        ({"pretrained": "runs/mine.pth"}, "named by 'checkpoint': runs/mine.pth"),
        ({"source": "open_clip", "pretrained": "./w"}, "named by 'checkpoint': ./w"),
        ({"weights": "runs/mine.pth"}, "is a file on this machine; name it by 'checkpoint'"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as info:
        _entry(**fields)
    assert str(info.value).startswith("catalog.mine")
    assert "\n" not in str(info.value)


def test_a_name_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"key 'name' is missing"):
        ModelEntry.from_mapping("mine", {"source": "timm"})


@pytest.mark.parametrize(
    ("source", "key", "value"),
    [
        ("demo", "checkpoint", "a.pth"),
        ("demo", "pretrained", True),
        ("demo", "image_size", 64),
        ("demo", "seed", 1),
        ("demo", "args", {"depth": 2}),
        ("demo", "weights", "owner/name"),
        ("demo", "positions", "dino"),
        ("noise", "weights", "owner/name"),
        ("noise", "checkpoint", "a.pth"),
        ("noise", "positions", "dino"),
        ("checkpoint", "pretrained", True),
        ("checkpoint", "weights", "owner/name"),
    ],
)
def test_settings_that_a_source_would_ignore_are_refused(
    source: str, key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=rf"catalog\.mine\.{key}: .*{source}"):
        _entry(source=source, **{key: value})


def test_normalisations() -> None:
    assert _entry(normalisation="half").normalisation_values() == ((0.5,) * 3, (0.5,) * 3)
    given = {"mean": [0, 0.2, 0.3], "std": [1, 0.2, 0.3]}
    assert _entry(normalisation=given).normalisation_values() == ((0, 0.2, 0.3), (1, 0.2, 0.3))
    # The published constants of ImageNet and of CLIP, as torchvision and open_clip have them.
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    imagenet = _entry(normalisation="imagenet").normalisation_values()
    assert imagenet == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    assert _entry(normalisation="clip").normalisation_values() == (
        OPENAI_DATASET_MEAN,
        OPENAI_DATASET_STD,
    )


@pytest.mark.parametrize(
    "model_id", ["a--b", "a/b", "../a", "", "-a", ".a", "a b", "a\n", "é", "a*"]
)
def test_ids_that_cannot_be_file_names_or_halves_of_a_pair(model_id: str) -> None:
    with pytest.raises(ConfigError, match="allowed: letters, digits"):
        read_catalog({model_id: {"source": "timm", "name": "vit"}})


@pytest.mark.parametrize("model_id", ["a", "A-1_b.c", "1", 1])
def test_good_ids(model_id: Any) -> None:
    assert list(read_catalog({model_id: {"source": "timm", "name": "vit"}})) == [str(model_id)]


def test_users_entries_come_first() -> None:
    mine = read_catalog({"dino-b16": {"source": "timm", "name": "vit", "label": "My own"}})
    assert find_entry("dino-b16", mine).label == "My own"
    assert find_entry("dino-b8", mine) == builtin_catalog()["dino-b8"]


def test_an_unknown_model_gives_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'dino-b61' \(did you mean 'dino-b16'\?\)"):
        find_entry("dino-b61")


# --- Weights, sizes, positions ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"pretrained": True}, {"checkpoint": "a.pth"}),
        ({"pretrained": True}, {"weights": "owner/name"}),
        ({"weights": "owner/name"}, {"checkpoint": "a.pth"}),
    ],
)
def test_weights_have_one_origin(one: dict[str, Any], other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"both '{next(iter(one))}' and '{next(iter(other))}'"):
        _entry(**one, **other)


def test_a_checkpoint_in_the_home_of_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `root` and `list` of datasets: the shell does not see what stands in a config."""
    monkeypatch.setenv("HOME", "/home/me")
    assert _entry(checkpoint="~/runs/w.pth").checkpoint == "/home/me/runs/w.pth"


def test_open_clips_width_of_its_projection_needs_no_heads() -> None:
    sizes = {"embed_dim": 32, "vision_cfg": {"layers": 2, "width": 64, "patch_size": 16}}
    assert _entry(source="open_clip", checkpoint="w.pt", args=sizes).args == sizes


def test_a_checkpoint_needs_its_file() -> None:
    with pytest.raises(ConfigError, match="needs the key 'checkpoint'"):
        _entry(source="checkpoint")
    assert not _entry(source="checkpoint", checkpoint="a.pth").is_fetched


def test_weights_are_checked_with_the_entry() -> None:
    with pytest.raises(ConfigError, match=r"catalog\.mine\.weights: .*'reposittory'"):
        _entry(weights={"reposittory": "owner/name"})
    assert _entry(weights="owner/name").is_fetched
    assert _entry(pretrained=True).is_fetched
    assert not _entry().is_fetched


@pytest.mark.parametrize("size", [0, -1, 2.5, "224", True, [224], [224, 224, 3], [224, 0], []])
def test_sizes_that_are_none(size: Any) -> None:
    needed = r"(: .*\[height, width\]|\.1: found 0;)"
    with pytest.raises(ConfigError, match=rf"catalog\.mine\.image_size{needed}"):
        _entry(image_size=size)
    with pytest.raises(ConfigError, match=rf"catalog\.mine\.checkpoint_size{needed}"):
        _entry(checkpoint_size=size)


def test_sizes() -> None:
    assert _entry().input_size is None
    assert _entry(image_size=64).input_size == (64, 64)
    assert _entry(image_size=[32, 64]).input_size == (32, 64)


def test_positions_are_the_entrys_or_the_familys() -> None:
    assert _entry().resize_positions is None
    assert _entry(family="mae").resize_positions == "mae"
    assert _entry(family="dinov2").resize_positions == "dino"
    assert _entry(family="mae", positions="timm").resize_positions == "timm"
    assert _entry(name="vit_small_patch14_dinov2").resize_positions == "dino"
    assert _entry(name="vit_small_patch14_dinov2", family="mae").resize_positions == "mae"
    assert _entry(source="open_clip", name="ViT-B-16-SigLIP").resize_positions == "google"
    with pytest.raises(ConfigError, match=r"catalog\.mine\.positions: .*'dion'.*mean 'dino'"):
        _entry(positions="dion")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 5),
        ("name", None),
        ("family", 5),
        ("label", 5),
        ("args", [1]),
        ("args", None),
        ("checkpoint", 5),
        ("checkpoint_prefix", 3),
        ("positions", 5),
        ("seed", 1.5),
        ("seed", True),
        ("seed", -1),
        ("pretrained", 1),
        ("crop_fraction", 0),
        ("crop_fraction", 1.5),
        ("crop_fraction", "1"),
        ("crop_fraction", True),
    ],
)
def test_fields_of_another_type(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"catalog\.mine\.{key}: found .*; allowed: ") as info:
        _entry(**{"source": "timm", "name": "vit", key: value})
    assert "\n" not in str(info.value)


def test_what_pretrained_means_is_the_librarys() -> None:
    with pytest.raises(ConfigError, match=r"the tag is part of the name: vit\.augreg_in21k"):
        _entry(pretrained="augreg_in21k")
    with pytest.raises(ConfigError, match="tag of the weights"):
        _entry(source="open_clip", pretrained=True)


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "img_size"])
def test_arguments_that_would_pass_the_entry_by(argument: str) -> None:
    with pytest.raises(ConfigError, match=rf"catalog\.mine\.args: '{argument}' may not stand here"):
        _entry(args={argument: "x"})


# --- The catalogue ---


def test_the_catalogue_goes_on_after_the_paper() -> None:
    families = {entry.family for entry in builtin_catalog().values()}
    assert {"noise", "dinov2", "dinov2-reg", "dinov3", "siglip2", "eva02", "deit3", "ijepa"} < (
        families
    )


def test_every_family_of_the_catalogue_has_a_colour() -> None:
    from vitfeat.figures.style import FAMILY_COLOURS

    assert {entry.family for entry in builtin_catalog().values()} <= set(FAMILY_COLOURS)


def test_labels_are_unique() -> None:
    labels = [entry.label for entry in builtin_catalog().values()]
    assert len(set(labels)) == len(labels)
