from __future__ import annotations

import sys
from typing import Any

import pytest
import timm
import timm.models.vision_transformer as family

from vitfeat.models.fitting import noted_filters, resampling

SMALL = {"depth": 1, "embed_dim": 48, "num_heads": 3}


def _filter(name: str, **args: Any) -> Any:
    with noted_filters() as filters:
        timm.create_model(name, num_classes=0, **args)
    return filters[-1]


def test_each_architecture_has_its_own() -> None:
    assert _filter("vit_tiny_patch16_224", **SMALL) is family.checkpoint_filter_fn
    assert resampling(_filter("vit_tiny_patch16_224", **SMALL)) == {}
    flexi = _filter("flexivit_small", **SMALL)
    assert resampling(flexi) == {"interpolation": "bilinear", "antialias": False}
    hybrid = _filter("vit_base_mci_224", depth=1)
    assert hybrid.__module__ == "timm.models.vision_transformer_hybrid"


def test_parts_of_a_model_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is built while its model is."""
    plain, built = family.build_model_with_cfg, []

    def builds_a_part(*args: Any, **kwargs: Any) -> Any:
        built.append(args)
        if len(built) == 1:
            timm.create_model("resnet10t", num_classes=0)
        return plain(*args, **kwargs)

    for name, module in sys.modules.copy().items():
        if name.startswith("timm.models.") and hasattr(module, "build_model_with_cfg"):
            monkeypatch.setattr(module, "build_model_with_cfg", builds_a_part)
    assert _filter("vit_tiny_patch16_224", **SMALL) is family.checkpoint_filter_fn
    assert len(built) == 2


def test_the_builder_is_put_back() -> None:
    before = family.build_model_with_cfg
    with noted_filters():
        assert family.build_model_with_cfg is not before
    assert family.build_model_with_cfg is before
