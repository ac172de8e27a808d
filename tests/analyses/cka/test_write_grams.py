"""From stores to Gram files and tables, as the commands do it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analyses.cka import reference_cka
from tests.store.filled import GEOMETRY, Content
from vitfeat.analyses.cka import gram_job
from vitfeat.analyses.cka.gram_job import write_grams
from vitfeat.analyses.cka.settings import CkaSettings
from vitfeat.analyses.rows import read_cka
from vitfeat.cli import main
from vitfeat.errors import AnalysisError, ConfigError
from vitfeat.jobs.reading import reader
from vitfeat.numerics.gramfile import NOTHING, GramFile, write_gram_file
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore
from vitfeat.store.writer import manifest, write_manifest

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

    def make(
        content: Content, tokens: str, without_cls: str = "leave_out", **options: Any
    ) -> GramFile:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        settings = CkaSettings(tokens=[tokens], without_cls=without_cls)
        write_grams(stored(content, str(content.seed)), out, settings, device="cpu", **options)
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
    grams: Gram, tokens: str, without_cls: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = grams(WITHOUT, tokens, without_cls=without_cls)
    assert_grams(file, features(WITHOUT, tokens))
    assert file.meta.made_from == tokens
    assert caplog.messages == []


@pytest.mark.parametrize("without_cls", ["leave_out", "mean"])
def test_a_cls_token_that_is_there_is_taken(
    grams: Gram, without_cls: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = grams(WHOLE, "cls", without_cls=without_cls)
    assert_grams(file, features(WHOLE, "cls"))
    assert (file.meta.made_from, caplog.messages) == ("cls", [])


def test_the_mean_stands_in_for_cls_and_says_so(
    grams: Gram, caplog: pytest.LogCaptureFixture
) -> None:
    file = grams(WITHOUT, "cls", without_cls="mean")
    assert_grams(file, features(WITHOUT, "mean"))
    assert (file.meta.tokens, file.meta.made_from) == ("cls", "mean")
    assert caplog.messages == ["m has no CLS token: the mean of its spatial tokens stands in"]


def test_without_cls_a_model_is_left_out_and_the_file_says_so(
    grams: Gram, caplog: pytest.LogCaptureFixture
) -> None:
    file = grams(WITHOUT, "cls")
    assert (file.layers, file.n_images, file.left_out) == ((), 22, True)
    assert (file.meta.tokens, file.meta.made_from) == ("cls", NOTHING)
    assert caplog.messages == ["m has no CLS token: left out"]


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


def written(store: Path, folder: Path, *tokens: str, **options: Any) -> dict[str, GramFile]:
    """Write the files of several kinds of tokens in one go, and return them."""
    out, settings = folder / "{tokens}/m.safetensors", CkaSettings(tokens=tokens)
    write_grams(store, out, settings, device="cpu", **options)
    return {kind: GramFile(folder / kind / "m.safetensors") for kind in tokens}


def test_several_kinds_are_a_file_each(stored: Callable[..., Path], tmp_path: Path) -> None:
    files = written(stored(WHOLE), tmp_path, "all", "mean", "cls", "spatial")
    for kind, file in files.items():
        assert_grams(file, features(WHOLE, kind))
        assert file.meta.tokens == kind


def test_what_all_tokens_are_does_not_depend_on_the_kinds_beside_it(
    stored: Callable[..., Path], tmp_path: Path
) -> None:
    # Three float32 matrices are summed, and the order counts.
    written(stored(WHOLE), tmp_path / "alone", "all")
    written(stored(WHOLE), tmp_path / "beside", "spatial", "all")
    alone, beside = (tmp_path / w / "all/m.safetensors" for w in ("alone", "beside"))
    assert alone.read_bytes() == beside.read_bytes()


def test_spatial_tokens_are_read_once_for_two_kinds(
    stored: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def spy(store: FeatureStore, name: str, position: int) -> Any:
        names.append(name)
        return reader(store, name, position)

    monkeypatch.setattr(gram_job, "reader", spy)
    written(stored(WHOLE), tmp_path, "spatial", "all")
    assert Counter(names) == dict.fromkeys(("cls", "registers", "spatial"), 3)  # layers


@pytest.fixture
def sealed(stored: Callable[..., Path]) -> Path:
    """A store with its manifest, of a minute ago."""
    path = stored(WHOLE)
    write_manifest(path, manifest(path, open_store(path).attributes))
    age(path.with_suffix(".json"), 60)
    return path


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_further_kind_leaves_the_others_as_they_are(
    sealed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(sealed, tmp_path, "cls", "spatial")
    before = {kind: (tmp_path / kind / "m.safetensors").stat() for kind in ("cls", "spatial")}
    written(sealed, tmp_path, "cls", "spatial", "mean", "all")
    assert caplog.messages == ["m: Gram matrices of cls, spatial are there, of the same features"]
    for kind, stat in before.items():
        after = (tmp_path / kind / "m.safetensors").stat()
        assert (after.st_mtime_ns, after.st_ino) == (stat.st_mtime_ns, stat.st_ino)


def older(file: Path) -> None:
    age(file, 120)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def of_other_features(file: Path) -> None:
    found = GramFile(file)
    meta = replace(found.meta, features_fingerprint="other")
    write_gram_file(file, found.layers, [found.gram(i) for i in range(3)], meta)


@pytest.mark.parametrize("spoil", [older, cut, of_other_features])
def test_what_is_not_of_the_store_is_made_anew(
    sealed: Path, tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    written(sealed, tmp_path, "cls")
    file = tmp_path / "cls/m.safetensors"
    right = file.read_bytes()
    spoil(file)
    before = file.stat().st_ino
    written(sealed, tmp_path, "cls")
    assert caplog.messages == []
    assert file.stat().st_ino != before
    assert file.read_bytes() == right


def test_another_choice_for_models_without_cls_is_made_anew(
    stored: Callable[..., Path], tmp_path: Path
) -> None:
    path, out = stored(WITHOUT), tmp_path / "g.safetensors"
    for way, made_from in (("leave_out", NOTHING), ("mean", "mean"), ("leave_out", NOTHING)):
        write_grams(path, out, CkaSettings(tokens=["cls"], without_cls=way), device="cpu")
        assert GramFile(out).meta.made_from == made_from


def test_several_kinds_cannot_be_one_file(stored: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "g.safetensors"
    with pytest.raises(ConfigError, match=r"--out: found one file for 2 kinds of tokens .*cls, al"):
        write_grams(stored(WHOLE), out, CkaSettings(tokens=["cls", "all"]), device="cpu")
    assert not out.exists()


@pytest.mark.parametrize("without_cls", ["leave_out", "mean"])
def test_the_commands_from_stores_to_a_table(
    stored: Callable[..., Path], tmp_path: Path, without_cls: str
) -> None:
    log = tmp_path / "gram.log"
    for name, content in (("whole", WHOLE), ("without", WITHOUT)):
        stored(content, name)
    command = ["run", "gram", f"{tmp_path}/digits/{{model}}.zarr", "--tokens", "cls"]
    command += [f"--out={tmp_path}/{{tokens}}/{{model}}.safetensors", "--device", "cpu"]
    command += ["--models", "whole", "without", "--without-cls", without_cls, "--log", str(log)]
    assert main(command) == 0
    note = "the mean of its spatial tokens stands in" if without_cls == "mean" else "left out"
    assert log.read_text() == f"without: m has no CLS token: {note}\n"
    command = ["run", "cka", f"{tmp_path}/{{tokens}}/{{model}}.safetensors", "--tokens", "cls"]
    command += [f"--out={tmp_path}/cka/{{tokens}}/{{model}}--{{other}}.csv", "--log", str(log)]
    command += ["--models", "without", "whole"]
    assert main([*command, "--of", "without"]) == 0
    tables = {path.name for path in (tmp_path / "cka/cls").iterdir()}
    # In alphabetical order, whatever that of the command.
    assert tables == {"whole--without.csv", "without--without.csv"}
    rows = read_cka(tmp_path / "cka/cls/whole--without.csv")
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
    assert main(command) == 0
    assert len(list((tmp_path / "cka/cls").iterdir())) == 3


def test_several_pairs_cannot_be_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "cka", f"{tmp_path}/{{model}}.safetensors", "--models", "a", "b"]
    assert main([*command, f"--out={tmp_path}/cka.csv"]) == 1
    error = "--out: found one file for 3; its name needs {model} and {other}, and {tokens} for"
    assert error in capsys.readouterr().err
