"""From the taps inside blocks to tables, held against the features that were written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analyses.cka import reference_cka
from tests.store.filled import GEOMETRY, Content, flip, shard_of
from vitfeat.analyses.residual import job as residual
from vitfeat.analyses.residual.job import write_residual
from vitfeat.analyses.residual.settings import ResidualSettings
from vitfeat.analyses.rows import (
    ResidualCkaRow,
    ResidualNormRow,
    read_residual_cka,
    read_residual_norms,
)
from vitfeat.cli import main
from vitfeat.errors import AnalysisError, StoreError
from vitfeat.store.reader import FeatureStore

TAPS = ("block_input", "attn_branch", "mlp_branch", "residual_norms")
LAYERS = GEOMETRY.layers


@dataclass(frozen=True)
class Blocks(Content):
    """A store of what happens inside three blocks of a 2 x 3 grid, CLS and two registers.

    ``silent`` names by tap the images, layers and tokens whose branch is zero.
    """

    taps: tuple[str, ...] = TAPS
    silent: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def tokens(self) -> dict[str, np.ndarray]:
        """By tap every token of every image as it is stored, (image, layer, token, channel)."""
        g, draw = self.geometry, np.random.default_rng(self.seed)
        shape = (self.n_images, len(g.layers), g.n_tokens, g.width)
        latent = draw.standard_normal((self.n_images, 3))
        found = {}
        for tap, scale in (("block_input", 20), ("attn_branch", 0.5), ("mlp_branch", 3)):
            mixed = np.einsum("if,fltc->iltc", latent, draw.standard_normal((3, *shape[1:])))
            values = scale * (mixed + draw.standard_normal(shape) + draw.standard_normal(g.width))
            found[tap] = values.astype(self.dtype)
        for tap, where in self.silent:
            found[tap][where] = 0
        return found

    def of_kind(self, tap: str, kind: str) -> np.ndarray:
        """The tokens of a kind, (image, layer, token, channel)."""
        cls, prefix = int(self.geometry.has_cls), self.geometry.n_prefix
        own = {"cls": slice(cls), "registers": slice(cls, prefix), "spatial": slice(prefix, None)}
        return self.tokens[tap][:, :, own.get(kind, slice(None))]

    def arrays(self) -> dict[str, np.ndarray]:
        t = {tap: values.astype(np.float64) for tap, values in self.tokens.items()}
        between = t["block_input"] + t["attn_branch"]
        norms = {
            "attn_skip": t["block_input"],
            "attn_branch": t["attn_branch"],
            "mlp_skip": between,
            "mlp_branch": t["mlp_branch"],
        }
        found = {}
        for spec in self.layout.arrays:
            tap, kind = spec.name.split("/")
            if tap == "residual_norms":
                values = np.sqrt(np.square(norms[kind]).sum(axis=-1))
            else:
                values = self.of_kind(tap, kind)
            rows = slice(None) if spec.rows is None else list(spec.rows)
            found[spec.name] = values[rows].reshape(-1, *spec.shape).astype(spec.dtype)
        return found

    def expected(self, branch: str, kind: str, images: list[int]) -> np.ndarray:
        """CKA by brute force, (layer of the skip, layer of the branch)."""
        block_input, added = (
            self.of_kind(tap, kind)[images].astype(np.float64)
            for tap in ("block_input", f"{branch}_branch")
        )
        skip = block_input
        if branch == "mlp":
            skip = skip + self.of_kind("attn_branch", kind)[images].astype(np.float64)
        layers = range(len(self.geometry.layers))
        return np.array(
            [
                [reference_cka.cka(skip[:, i], added[:, j], reference_cka.hsic1) for j in layers]
                for i in layers
            ]
        )


EVERY = Blocks()
SOME = Blocks(
    kept={
        "block_input": tuple(range(1, 22)),
        "attn_branch": (0, 1, 2, 5, 6, 7, 8, 11, 13, 14, 15, 19, 20, 21),
        "mlp_branch": (0, 2, 3, 5, 7, 8, 9, 11, 12, 13, 15, 16, 19, 21),
    }
)
SHARED = [2, 5, 7, 8, 11, 13, 15, 19, 21]


@dataclass(frozen=True)
class Tables:
    """What the job wrote and said."""

    norms: list[ResidualNormRow]
    cka: list[ResidualCkaRow]
    folder: Path

    def matrix(self, branch: str, tokens: str) -> np.ndarray:
        rows = [r for r in self.cka if (r.branch, r.tokens) == (branch, tokens)]
        assert [(r.layer_skip, r.layer_branch) for r in rows] == [
            (i, j) for i in LAYERS for j in LAYERS
        ]
        return np.array([r.cka for r in rows]).reshape(3, 3)

    def norm(self, branch: str, ratio: str, layer: int) -> ResidualNormRow:
        (row,) = (r for r in self.norms if (r.branch, r.ratio, r.layer) == (branch, ratio, layer))
        return row


Run = Callable[..., Tables]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Write a store and its tables."""

    def made(content: Blocks, tokens: tuple[str, ...] = ("cls", "spatial", "all"), **options: Any):
        store = tmp_path / "digits" / "m.zarr"
        if not store.exists():
            content.write(store)
        folder = tmp_path / "tables"
        norms, cka = folder / "m.norms.csv", folder / "m.cka.csv" if tokens else None
        settings = ResidualSettings(tokens=tokens)
        write_residual(store, norms, cka, settings, **{"device": "cpu"} | options)
        rows = read_residual_cka(cka) if cka else []
        return Tables(read_residual_norms(norms), rows, folder)

    return made


# In tiles of one image, of a few, of all.
@pytest.mark.parametrize(("max_bytes", "n_images"), [(1, 6), (3000, 22), (2**31, 22)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_cka_is_that_of_the_features(
    run: Run, dtype: str, max_bytes: int, n_images: int, caplog: pytest.LogCaptureFixture
) -> None:
    content = replace(EVERY, dtype=dtype, n_images=n_images)
    found = run(content, max_bytes=max_bytes)
    for branch in ("attn", "mlp"):
        for kind in ("cls", "spatial", "all"):
            expected = content.expected(branch, kind, list(range(n_images)))
            np.testing.assert_allclose(found.matrix(branch, kind), expected, rtol=0, atol=3e-6)
    assert {(r.model, r.dataset, r.n_images) for r in found.cka} == {("m", "digits", n_images)}
    assert caplog.messages == []
    # The scratch folder is gone.
    assert sorted(p.name for p in found.folder.iterdir()) == ["m.cka.csv", "m.norms.csv"]


@pytest.mark.parametrize("max_bytes", [1000, 2**31])
def test_taps_of_some_images_are_of_these(run: Run, max_bytes: int) -> None:
    found = run(SOME, max_bytes=max_bytes)
    for branch in ("attn", "mlp"):
        for kind in ("cls", "spatial", "all"):
            expected = SOME.expected(branch, kind, SHARED)
            np.testing.assert_allclose(found.matrix(branch, kind), expected, rtol=0, atol=3e-6)
    assert {r.n_images for r in found.cka} == {len(SHARED)}
    # Norms are of all images.
    assert {r.n_images for r in found.norms} == {22}


def test_a_branch_that_is_its_skip_is_alike(run: Run) -> None:
    content = replace(EVERY, seed=4)
    tokens = content.tokens
    tokens["attn_branch"][:] = tokens["block_input"] / 4
    tokens["mlp_branch"][:] = -5 * tokens["attn_branch"]
    found = run(content)
    for branch in ("attn", "mlp"):
        for kind in ("cls", "spatial", "all"):
            np.testing.assert_allclose(np.diag(found.matrix(branch, kind)), 1, rtol=0, atol=1e-5)
    for layer in LAYERS:
        assert found.norm("attn", "spatial", layer).mean == pytest.approx(4, rel=1e-6)
        # Five quarters of the input over five quarters of it.
        assert found.norm("mlp", "spatial_tokens", layer).mean == pytest.approx(1, rel=1e-3)


def ratios(content: Blocks, branch: str, ratio: str, layer: int) -> list[float]:
    """The ratio of every image by loops over tokens and channels."""
    kind = ratio if ratio in ("cls", "all") else "spatial"
    found = []
    for image in range(content.n_images):
        pairs = []
        for token in range(content.of_kind("block_input", kind).shape[2]):
            at = (image, LAYERS.index(layer), token)
            skip = content.of_kind("block_input", kind)[at].tolist()
            if branch == "mlp":
                attn = content.of_kind("attn_branch", kind)[at].tolist()
                skip = [a + b for a, b in zip(skip, attn, strict=True)]
            added = content.of_kind(f"{branch}_branch", kind)[at].tolist()
            pairs.append((sum(v * v for v in skip), sum(v * v for v in added)))
        if ratio == "spatial_tokens":
            parts = [math.sqrt(s / b) for s, b in pairs if b]
            value = sum(parts) / len(parts) if parts else math.nan
        else:
            above, below = (sum(column) for column in zip(*pairs, strict=True))
            value = math.sqrt(above / below) if below else math.nan
        found.append(value)
    return found


def assert_norms(found: Tables, content: Blocks) -> None:
    kinds = ["cls"] if content.geometry.has_cls else []
    expected = [
        (branch, ratio, layer)
        for branch in ("attn", "mlp")
        for ratio in (*kinds, "spatial", "spatial_tokens", "all")
        for layer in LAYERS
    ]
    assert [(r.branch, r.ratio, r.layer) for r in found.norms] == expected
    for row in found.norms:
        values = [v for v in ratios(content, row.branch, row.ratio, row.layer) if v == v]
        assert row.n_images == len(values)
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        assert (row.mean, row.deviation) == pytest.approx((mean, deviation), rel=3e-6)


# Blocks of 8 and 22 images: a mean of the means of batches would weigh the last six more.
@pytest.mark.parametrize("max_bytes", [1, 30_000, 2**31])
def test_norms_average_over_images(run: Run, max_bytes: int) -> None:
    assert_norms(run(EVERY, tokens=(), max_bytes=max_bytes), EVERY)


def test_branches_of_zero_are_left_out_and_counted(run: Run) -> None:
    # Image 3 has no attention branch in the first layer at all, image 4 only for its CLS token,
    # and of all images one spatial token of the last layer has no MLP branch.
    content = replace(
        EVERY,
        silent=(
            ("attn_branch", np.s_[3, 0]),
            ("attn_branch", np.s_[4, 0, 0]),
            ("mlp_branch", np.s_[:, 2, 5]),
        ),
    )
    found = run(content)
    assert_norms(found, content)
    assert found.norm("attn", "cls", LAYERS[0]).n_images == 20
    assert found.norm("attn", "spatial", LAYERS[0]).n_images == 21
    assert found.norm("mlp", "spatial_tokens", LAYERS[2]).n_images == 22


def test_a_layer_without_branch_has_neither_ratio_nor_cka(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    # As weights that start from zero have it.
    content = replace(EVERY, silent=(("attn_branch", np.s_[:, 1]),))
    found = run(content, tokens=("spatial",))
    for ratio in ("cls", "spatial", "spatial_tokens", "all"):
        row = found.norm("attn", ratio, LAYERS[1])
        assert (row.n_images, math.isnan(row.mean), math.isnan(row.deviation)) == (0, True, True)
        assert found.norm("mlp", ratio, LAYERS[1]).n_images == 22
    values = found.matrix("attn", "spatial")
    assert np.isnan(values).tolist() == [[False, True, False]] * 3
    expected = content.expected("mlp", "spatial", list(range(22)))
    np.testing.assert_allclose(found.matrix("mlp", "spatial"), expected, rtol=0, atol=3e-6)
    assert caplog.messages == [
        f"no CKA for layer {LAYERS[1]} of m, attn branch (spatial): its features do not tell the "
        "images apart"
    ]


def test_the_first_block_gets_the_same_cls_token_for_all_images(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    content = replace(EVERY, seed=5)
    content.tokens["block_input"][:, 0, 0] = content.tokens["block_input"][0, 0, 0]
    found = run(content, tokens=("cls", "all"))
    values = found.matrix("attn", "cls")
    assert np.isnan(values[0]).all()
    assert np.isfinite(values[1:]).all()
    # Attention has told the images apart before the MLP comes, and other tokens always do.
    assert np.isfinite(found.matrix("mlp", "cls")).all()
    assert np.isfinite(found.matrix("attn", "all")).all()
    assert len(caplog.messages) == 1
    assert "m, attn skip (cls)" in caplog.messages[0]


@pytest.mark.parametrize("n_registers", [0, 2])
def test_without_a_cls_token_it_is_left_out(
    run: Run, n_registers: int, caplog: pytest.LogCaptureFixture
) -> None:
    content = replace(
        EVERY, geometry=replace(GEOMETRY, has_cls=False, n_registers=n_registers), seed=1
    )
    found = run(content)
    assert caplog.messages == ["m has no CLS token: no CKA of skips with branches for 'cls'"]
    assert {r.tokens for r in found.cka} == {"spatial", "all"}
    for kind in ("spatial", "all"):
        expected = content.expected("mlp", kind, list(range(22)))
        np.testing.assert_allclose(found.matrix("mlp", kind), expected, rtol=0, atol=3e-6)
    assert_norms(found, content)


@pytest.mark.parametrize(
    ("dtype", "scale", "noted"),
    [("float16", 1e-5, True), ("float32", 1e-5, False), ("float16", 1, False)],
)
def test_branches_that_float16_cannot_hold_are_named(
    run: Run, dtype: str, scale: float, noted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    content = Blocks(dtype=dtype)
    # As LayerScale starts, in all layers but the first.
    content.tokens["attn_branch"][:, 1:] *= np.asarray(scale, dtype)
    run(content, tokens=("cls", "spatial"))
    assert [note.split(" are about ")[0] for note in caplog.messages] == (
        ["m: attn branches of cls", "m: attn branches of spatial"] if noted else []
    )
    assert all("in 2 layers, where float16 has few digits" in note for note in caplog.messages)


def test_with_cls_alone_and_no_cls_token_the_table_is_empty(run: Run) -> None:
    content = replace(EVERY, geometry=replace(GEOMETRY, has_cls=False), seed=1)
    assert run(content, tokens=("cls",)).cka == []


def test_without_token_kinds_norms_are_all_that_is_needed(run: Run) -> None:
    found = run(replace(EVERY, taps=("residual_norms",)), tokens=())
    assert_norms(found, EVERY)
    assert [p.name for p in found.folder.iterdir()] == ["m.norms.csv"]


@pytest.mark.parametrize("tap", TAPS)
def test_a_missing_tap_is_named_before_anything_is_written(
    run: Run, tmp_path: Path, tap: str
) -> None:
    taps = tuple(t for t in TAPS if t != tap)
    with pytest.raises(AnalysisError, match=f"m.zarr: no {tap} in this store .it holds") as caught:
        run(replace(EVERY, taps=taps))
    assert f"it holds {', '.join(taps)})" in str(caught.value)
    key = "datasets" if tap == "residual_norms" else "tokens"
    assert f"analyses.residual.{key}, or add {tap} to extraction.taps" in str(caught.value)
    assert not (tmp_path / "tables").exists()


def test_too_few_images_are_said(run: Run) -> None:
    taps = ("block_input", "attn_branch", "mlp_branch")
    three = replace(EVERY, kept=dict.fromkeys(taps, (3, 9, 20)))
    with pytest.raises(
        AnalysisError, match=r"3 images with block_input.* at least 4: raise analyses.residual.ima"
    ):
        run(three)


def test_four_images_are_enough(run: Run) -> None:
    taps = ("block_input", "attn_branch", "mlp_branch")
    content = replace(EVERY, kept=dict.fromkeys(taps, (3, 9, 14, 20)))
    found = run(content, tokens=("all",))
    expected = content.expected("attn", "all", [3, 9, 14, 20])
    # Of four images HSIC is a small difference of large sums, and Gram matrices are float32.
    np.testing.assert_allclose(found.matrix("attn", "all"), expected, rtol=0, atol=2e-4)


def test_one_image_has_norms_without_deviation(run: Run) -> None:
    found = run(Blocks(n_images=1), tokens=())
    assert all(row.n_images == 1 and math.isnan(row.deviation) for row in found.norms)


def test_a_damaged_chunk_is_named(run: Run, tmp_path: Path) -> None:
    EVERY.write(store := tmp_path / "digits" / "m.zarr")
    shard = shard_of(store, "attn_branch/spatial", 1)
    flip(shard, shard.stat().st_size // 3)
    with pytest.raises(StoreError, match="of attn_branch/spatial cannot be decoded"):
        run(EVERY)
    # The scratch folder goes after an error too.
    assert [p.name for p in (tmp_path / "tables").iterdir()] == ["m.norms.csv"]


@pytest.mark.parametrize("max_bytes", [3000, 8000])
def test_the_bound_on_memory_is_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, max_bytes: int
) -> None:
    stored, made = FeatureStore.__getitem__, residual.gram
    # What is left for Gram matrices, and the most that was read at once meanwhile.
    most: list[list[int]] = []

    class Spy:
        """An array that remembers how much was read of it at once."""

        def __init__(self, array: Any) -> None:
            self.array = array

        def __getattr__(self, name: str) -> Any:
            return getattr(self.array, name)

        def __getitem__(self, at: Any) -> Any:
            values = self.array[at]
            if most:
                most[-1][1] = max(most[-1][1], values.nbytes)
            else:
                # Of the norms, two in float32 and float64, and the ratio with what it takes.
                assert 12 * values.nbytes <= max_bytes
            return values

    def gram(*arguments: Any, **options: Any) -> Any:
        most.append([options["max_bytes"], 0])
        return made(*arguments, **options)

    monkeypatch.setattr(FeatureStore, "__getitem__", lambda self, name: Spy(stored(self, name)))
    monkeypatch.setattr(residual, "gram", gram)
    run(EVERY, tokens=("spatial",), max_bytes=max_bytes)
    # Four sides of three layers. An image of spatial tokens takes 96 bytes, all images 2,112.
    assert len(most) == 12
    sums = most[6:9]
    assert all(left + read <= max_bytes for left, read in sums)
    assert all(left == max_bytes and read for left, read in most if [left, read] not in sums)


def test_the_command_writes_both_tables(tmp_path: Path) -> None:
    EVERY.write(store := tmp_path / "digits" / "m.zarr")
    norms, cka, log = (tmp_path / name for name in ("n.csv", "c.csv", "log"))
    command = ["run", "residual", store, "--tokens", "all", "cls", "--cka", cka, "--norms", norms]
    assert main([str(word) for word in (*command, "--max-mb", 1, "--log", log)]) == 0
    assert {row.tokens for row in read_residual_cka(cka)} == {"all", "cls"}
    assert len(read_residual_norms(norms)) == 24
    cka.unlink()
    command = ["run", "residual", store, "--norms", norms]
    assert main([str(word) for word in command]) == 0
    assert not cka.exists()


def test_a_table_of_cka_needs_token_kinds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    EVERY.write(store := tmp_path / "digits" / "m.zarr")
    norms, cka = tmp_path / "n.csv", tmp_path / "c.csv"
    command = ["run", "residual", store, "--norms", norms, "--cka", cka, "--tokens"]
    assert main([str(word) for word in command]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "c.csv: the CKA of skips with branches needs token kinds" in line
    assert not norms.exists()
