from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm

from vitfeat.errors import ModelError
from vitfeat.models.entry import ModelEntry, builtin_catalog
from vitfeat.models.hub import fetch, source_of
from vitfeat.weights.records import WeightsSource

FROM_TIMM = [
    entry
    for entry in builtin_catalog().values()
    # MoCo-v3 and BEiT's self-supervised weights are none of timm's.
    if entry.source == "timm" and entry.is_fetched and entry.family not in ("moco", "beit")
]


@pytest.mark.parametrize("entry", FROM_TIMM, ids=lambda e: e.id)
def test_the_catalogue_and_timm_agree_where_weights_are(entry: ModelEntry) -> None:
    assert source_of(entry) == source_of(entry.but(weights=None, pretrained=True))


@pytest.mark.parametrize("entry", FROM_TIMM, ids=lambda e: e.id)
def test_the_catalogue_and_timm_agree_how_images_are_normalised(entry: ModelEntry) -> None:
    published = timm.get_pretrained_cfg(entry.name)
    assert entry.normalisation_values() == (published.mean, published.std)


@pytest.mark.parametrize("model_id", ["clip-b32", "clip-b16", "clip-l14", "clip-l14-336"])
def test_the_catalogue_and_open_clip_agree(model_id: str) -> None:
    entry = builtin_catalog()[model_id]
    assert source_of(entry) == source_of(entry.but(weights=None, pretrained="openai"))
    assert source_of(entry).files == ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@pytest.mark.parametrize("model_id", ["dino-b16", "clip-b16", "moco-s16"])
def test_a_record_of_the_catalogues_weights_is_known_again(model_id: str) -> None:
    """A source that did not come back from its record as it was would be fetched every time."""
    source = source_of(builtin_catalog()[model_id])
    assert WeightsSource.from_config(json.loads(json.dumps(source.to_mapping())), "w") == source


def test_repositories_and_files_that_open_clip_names() -> None:
    entry = ModelEntry(id="m", source="open_clip", name="ViT-H-14-quickgelu", pretrained="dfn5b")
    assert source_of(entry).repository == "apple/DFN5B-CLIP-ViT-H-14"
    entry = ModelEntry(id="m", source="open_clip", name="ViTamin-S", pretrained="datacomp1b")
    assert source_of(entry).repository == "jienengchen/ViTamin-S"
    assert source_of(entry).files == ("pytorch_model.bin",)


def test_an_entrys_own_word_needs_no_library() -> None:
    entry = ModelEntry(id="m", source="timm", name="no_such_architecture", weights="owner/name@v1")
    assert (source_of(entry).repository, source_of(entry).revision) == ("owner/name", "v1")


def test_weights_that_timm_does_not_name() -> None:
    entry = ModelEntry(id="m", source="timm", name="vit_base_patch16_224.dinno", pretrained=True)
    with pytest.raises(ModelError, match=r"no published weights for 'vit_base_patch16_224\.dinno'"):
        source_of(entry)


def test_weights_that_open_clip_does_not_name() -> None:
    entry = ModelEntry(id="m", source="open_clip", name="ViT-B-32", pretrained="opennai")
    with pytest.raises(ModelError, match=r"no weights 'opennai' .*did you mean 'openai'"):
        source_of(entry)


@pytest.mark.parametrize(
    ("model_id", "folder", "command"),
    [
        ("dino-b16", "weights", "vitfeat fetch dino-b16"),
        ("dino-b16", "my w", "vitfeat fetch dino-b16 --weights-folder 'my w'"),
        ("mine", "weights", "vitfeat fetch mine --configfile CONFIG"),
    ],
)
def test_the_message_gives_the_command_that_helps(
    model_id: str, folder: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    entry = builtin_catalog()["dino-b16"].but(id=model_id)
    with pytest.raises(ModelError) as info:
        fetch(entry, Path(folder))
    assert f"run `{command}` where there is a network" in str(info.value)
