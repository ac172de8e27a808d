"""Extractions whose features are rounded to fewer bits of mantissa."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numcodecs.bitround import BitRound

from tests.extraction.pictures_folder import ALL, BLACK, spoil_black_images
from vitfeat.data.index import Index
from vitfeat.errors import ModelError, StoreError
from vitfeat.extraction.run import extract
from vitfeat.models.backbone import Backbone
from vitfeat.store.info import describe
from vitfeat.store.opening import open_store
from vitfeat.store.verify import verify

EXACT = ("attention_summary/", "residual_norms/", "attention_centre")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_and_attention_are_rounded_and_nothing_else_is(
    backbone: Backbone, index: Index, folder: Path, tmp_path: Path, dtype: str
) -> None:
    stores = []
    # Some images only, too: of these a block may have none.
    full = ALL.but(dtype=dtype, limits={"attention": 3, "block_input": 2})
    for name, settings in (("full", full), ("short", full.but(keep_bits=6))):
        extract(backbone, index, folder, tmp_path / f"{name}.zarr", settings)
        stores.append(open_store(tmp_path / f"{name}.zarr"))
    whole, short = stores
    assert short.array_names == whole.array_names
    for name in whole.array_names:
        expected = whole[name][:]
        if not name.startswith(EXACT):
            flat = BitRound(6).encode(np.ascontiguousarray(expected))
            expected = flat.view(dtype).reshape(expected.shape)
            assert (expected != whole[name][:]).any(), name
        np.testing.assert_array_equal(short[name][:], expected, err_msg=name)
    for name in short.coordinate_names:
        np.testing.assert_array_equal(short.array(name)[:], whole.array(name)[:], err_msg=name)
    assert verify(short.path)[1] == []
    assert short.attributes["request"] == {**whole.attributes["request"], "keep_bits": 6}
    line = f"features stored as {dtype} of 6 bits of mantissa"
    assert any(said.startswith("precision ") and said.endswith(line) for said in describe(short))
    sizes = [store.attributes["sealed"]["arrays"]["spatial"]["bytes"] for store in stores]
    assert sizes[1] < sizes[0]


def test_other_bits_are_another_store_unless_nothing_asked_is_rounded(
    backbone: Backbone, index: Index, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.zarr"
    settings = ALL.but(taps=("cls", "residual_norms"), keep_bits=7)
    extract(backbone, index, folder, out, settings)
    with pytest.raises(StoreError, match="keep_bits: 7 in the store, nothing asked"):
        extract(backbone, index, folder, out, settings.but(keep_bits=None))
    with pytest.raises(StoreError, match="keep_bits: 7 in the store, 5 asked"):
        extract(backbone, index, folder, out, settings.but(keep_bits=5))
    for bits in (None, 7, 5):
        norms = settings.but(taps=("residual_norms",), keep_bits=bits)
        extract(backbone, index, folder, out, norms)
        alone = tmp_path / f"{bits}.zarr"
        extract(backbone, index, folder, alone, norms)
        assert "keep_bits" not in open_store(alone).attributes["request"]
    with pytest.raises(ValueError, match="float16 has 10 bits of mantissa: allowed are 1 to 9"):
        settings.but(keep_bits=10)


# 65,280 has seven bits, 65,504 ten. Numbers become float16 first: from 65,392 on that is 65,408, as
# near to 65,280 as to the next power of two, which is the even one.
@pytest.mark.parametrize(
    ("value", "keep_bits", "stored"),
    [
        (65_391.0, 7, 65_280),
        (65_393.0, 7, None),
        (-65_393.0, 7, None),
        (65_410.0, None, 65_408),
        (65_519.0, None, 65_504),
        (65_521.0, None, None),
    ],
)
def test_what_rounding_takes_out_of_the_range_is_named(
    backbone: Backbone,
    index: Index,
    folder: Path,
    tmp_path: Path,
    value: float,
    keep_bits: int | None,
    stored: int | None,
) -> None:
    handles = spoil_black_images(backbone, value, slice(0, 1))
    out = tmp_path / "m.zarr"
    settings = ALL.but(taps=("cls",), layers=[1], keep_bits=keep_bits)
    try:
        if stored is None:
            bits, most = (" of 7 bits", 65280) if keep_bits else ("", 65504)
            message = (
                rf"class1/013.png, layer 1, tap cls: .* does not fit float16{bits} "
                rf"\(at most {most}\); set extraction.dtype: float32"
            )
            with pytest.raises(ModelError, match=message):
                extract(backbone, index, folder, out, settings)
        else:
            extract(backbone, index, folder, out, settings)
            assert (open_store(out)["cls"][BLACK, 0] == stored).all()
    finally:
        for handle in handles:
            handle.remove()
