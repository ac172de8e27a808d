"""From stores to Gram files and tables, as the commands do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analyses.cka import reference_cka
from tests.store.filled import GEOMETRY, Content
from vitfeat.analyses.cka.gram_job import write_grams
from vitfeat.analyses.cka.tables import read_csv
from vitfeat.cli import main
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gramfile import NOTHING, GramFile
from vitfeat.store.reader import FeatureStore

WHOLE = Content(taps=("cls", "registers", "spatial"))
WITHOUT = Content(
    geometry=replace(GEOMETRY, has_cls=False, n_registers=0), taps=("spatial",), seed=1
)

Gram = Callable[..., GramFile]


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Path]:
    """Write a store's content to its place and return that."""

    def write(content: Content, name: str = "m") -> Path:
        path = tmp_path / "digits" / f"{name}.zarr"
        if not path.exists():
            content.write(path)
        return path

    return write


@pytest.fixture
def grams(tmp_path: Path, stored: Callable[..., Path]) -> Gram:
    """The Gram file of some tokens of a store."""

    def make(content: Content, tokens: str, **options: Any) -> GramFile:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        write_grams(stored(content, str(content.seed)), tokens, out, device="cpu", **options)
        return GramFile(out)

    return make


def features(content: Content, tokens: str) -> list[np.ndarray]:
    """Float64 features of each layer, (image, ...), from what was written and definitions."""
    arrays = {name: values.astype(np.float64) for name, values in content.arrays().items()}
    n, layers = content.n_images, range(len(content.geometry.layers))
    if tokens == "mean":
        # Image, layer, y, x, channel.
        summed = sum(arrays["spatial"][:, :, y, x] for y in range(2) for x in range(3))
        return [summed[:, layer] / 6 for layer in layers]
    names = ("cls", "registers", "spatial") if tokens == "all" else (tokens,)
    parts = [arrays[name] for name in names if name in arrays]
    return [np.concatenate([p[:, i].reshape(n, -1) for p in parts], axis=1) for i in layers]


def assert_grams(file: GramFile, truth: list[np.ndarray]) -> None:
    assert file.layers == GEOMETRY.layers
    for index, x in enumerate(truth):
        expected = reference_cka.raw_gram(x - x.mean(axis=0))
        np.testing.assert_allclose(
            file.gram(index).centred, expected, rtol=0, atol=2e-6 * np.diag(expected).mean()
        )


@pytest.mark.parametrize("max_bytes", [1, 1500, 6000, 2**31])
@pytest.mark.parametrize("tokens", ["cls", "mean", "spatial", "all"])
def test_every_token_kind_is_what_it_says(grams: Gram, tokens: str, max_bytes: int) -> None:
    file = grams(WHOLE, tokens, max_bytes=max_bytes)
    assert_grams(file, features(WHOLE, tokens))
    assert (file.meta.tokens, file.meta.made_from, file.meta.dataset) == (tokens, tokens, "digits")


@pytest.mark.parametrize("tokens", ["mean", "spatial", "all"])
@pytest.mark.parametrize("without_cls", ["leave_out", "mean"])
def test_without_a_cls_token_other_kinds_are_as_always(
    grams: Gram, tokens: str, without_cls: str
) -> None:
    notes: list[str] = []
    file = grams(WITHOUT, tokens, without_cls=without_cls, log=notes.append)
    assert_grams(file, features(WITHOUT, tokens))
    assert file.meta.made_from == tokens
    assert notes == []


@pytest.mark.parametrize("without_cls", ["leave_out", "mean"])
def test_a_cls_token_that_is_there_is_taken(grams: Gram, without_cls: str) -> None:
    notes: list[str] = []
    file = grams(WHOLE, "cls", without_cls=without_cls, log=notes.append)
    assert_grams(file, features(WHOLE, "cls"))
    assert (file.meta.made_from, notes) == ("cls", [])


def test_the_mean_stands_in_for_cls_and_says_so(grams: Gram) -> None:
    notes: list[str] = []
    file = grams(WITHOUT, "cls", without_cls="mean", log=notes.append)
    assert_grams(file, features(WITHOUT, "mean"))
    assert (file.meta.tokens, file.meta.made_from) == ("cls", "mean")
    assert notes == ["m has no CLS token: the mean of its spatial tokens stands in"]


def test_without_cls_a_model_is_left_out_and_the_file_says_so(grams: Gram) -> None:
    notes: list[str] = []
    file = grams(WITHOUT, "cls", log=notes.append)
    assert (file.layers, file.n_images, file.left_out) == ((), 22, True)
    assert (file.meta.tokens, file.meta.made_from) == ("cls", NOTHING)
    assert notes == ["m has no CLS token: left out"]


@pytest.mark.parametrize("without_cls", ["leave_out", "mean"])
def test_a_cls_token_that_was_not_stored_is_an_error(grams: Gram, without_cls: str) -> None:
    forgotten = replace(WHOLE, taps=("spatial",), seed=2)
    with pytest.raises(AnalysisError, match=r"2\.zarr: no cls in this store \(it holds spatial\)"):
        grams(forgotten, "cls", without_cls=without_cls)


def test_spatial_tokens_that_were_not_stored_give_no_mean(grams: Gram) -> None:
    with pytest.raises(AnalysisError, match=r"no spatial in this store .* 'mean' is made of"):
        grams(replace(WHOLE, taps=("cls",), seed=2), "mean")
    alone = replace(WITHOUT, taps=("attention",), seed=3)
    with pytest.raises(AnalysisError, match=r"no spatial .* 'mean' is made of; .* leave 'cls' out"):
        grams(alone, "cls", without_cls="mean")


@pytest.mark.parametrize("max_bytes", [320, 1000, 6000])
def test_the_bound_on_memory_is_kept(
    grams: Gram, monkeypatch: pytest.MonkeyPatch, max_bytes: int
) -> None:
    stored, reads = FeatureStore.__getitem__, []

    class Spy:
        """An array that remembers what was read of it."""

        def __init__(self, array: Any) -> None:
            self.array = array

        def __getattr__(self, name: str) -> Any:
            return getattr(self.array, name)

        def __getitem__(self, at: Any) -> Any:
            values = self.array[at]
            reads.append((at[0].start, len(values), values.nbytes))
            return values

    monkeypatch.setattr(FeatureStore, "__getitem__", lambda self, name: Spy(stored(self, name)))
    grams(WHOLE, "mean", max_bytes=max_bytes)
    # Half of the bound: the other half is for the means, of which all fit in once it is 6000.
    assert max(nbytes for _, _, nbytes in reads) <= max_bytes // 2
    if max_bytes == 6000:
        # One image to learn the size, then each chunk of 8 images once or with its neighbour.
        per_layer = [reads[i : i + 3] for i in range(0, len(reads), 3)]
        assert [[r[:2] for r in some] for some in per_layer] == [[(0, 1), (0, 16), (16, 6)]] * 3


def test_parts_are_added_and_not_computed_again(grams: Gram) -> None:
    spatial = grams(WHOLE, "spatial")
    whole = grams(WHOLE, "all", parts=[spatial.path])
    assert_grams(whole, features(WHOLE, "all"))


@pytest.mark.parametrize(
    ("content", "tokens", "part", "found"),
    [
        (WHOLE, "all", "mean", "'mean'.* of 'all'; to be added are cls, registers, spatial"),
        (WITHOUT, "all", "cls", "'mean'.* of 'all'; to be added are spatial"),
        (WHOLE, "mean", "spatial", "'spatial'.* of 'mean'; to be added are none"),
        (WITHOUT, "cls", "spatial", "'spatial'.* of 'cls'; to be added are none"),
        (WHOLE, "cls", "spatial", "'spatial'.* of 'cls'; to be added are cls"),
    ],
)
def test_parts_that_do_not_add_up_fail(
    grams: Gram, content: Content, tokens: str, part: str, found: str
) -> None:
    given = grams(content, part, without_cls="mean")
    with pytest.raises(AnalysisError, match=found) as caught:
        grams(content, tokens, without_cls="mean", parts=[given.path])
    assert str(given.path) in str(caught.value)


def test_a_part_is_added_once(grams: Gram) -> None:
    part = grams(WHOLE, "spatial").path
    with pytest.raises(AnalysisError, match=r"to be added are cls, registers$"):
        grams(WHOLE, "all", parts=[part, part])


@pytest.mark.parametrize("without_cls", ["leave_out", "mean"])
def test_the_commands_from_stores_to_a_table(
    stored: Callable[..., Path], tmp_path: Path, without_cls: str
) -> None:
    files = {}
    for name, content in (("whole", WHOLE), ("without", WITHOUT)):
        files[name] = tmp_path / f"{name}.safetensors"
        command = ["gram", stored(content, name), "--tokens", "cls", "--out", files[name]]
        command += ["--without-cls", without_cls, "--log", tmp_path / f"{name}.log"]
        assert main([str(word) for word in command]) == 0
    assert (tmp_path / "whole.log").read_text() == ""
    note = "the mean of its spatial tokens stands in" if without_cls == "mean" else "left out"
    assert (tmp_path / "without.log").read_text() == f"m has no CLS token: {note}\n"
    table = tmp_path / "table.csv"
    log = tmp_path / "cka.log"
    command = ["cka", files["whole"], files["without"], "--out", table, "--log", log]
    assert main([str(word) for word in command]) == 0
    rows = read_csv(table)
    if without_cls == "leave_out":
        assert rows == []
        assert "no such tokens in m" in log.read_text()
        return
    a, b = features(WHOLE, "cls"), features(WITHOUT, "mean")
    assert len(rows) == 9
    for row in rows:
        x, y = a[GEOMETRY.layers.index(row.layer_a)], b[GEOMETRY.layers.index(row.layer_b)]
        truth = reference_cka.cka(x, y, reference_cka.hsic1)
        assert row.cka == pytest.approx(truth, abs=2e-6)
        assert (row.tokens, row.made_from_a, row.made_from_b) == ("cls", "cls", "mean")
