"""The whole way from a store to the table and the maps, against loops over the attention itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from tests.analyses.attention.reference_attention import Reference, deviation, rollout
from tests.analyses.attention_maps.attended import PATCH, random_attention, write_attended
from tests.store.filled import flip, resealed, shard_of
from vitfeat.analyses.attention.job import UNITS, write_attention
from vitfeat.analyses.attention.settings import AttentionSettings
from vitfeat.analyses.attention.summary import Tokens
from vitfeat.analyses.rows import AttentionRow, read_attention
from vitfeat.cli import main
from vitfeat.errors import StoreError
from vitfeat.store.opening import open_store

# Summaries are float32, and so are the maps on disk.
CLOSE: dict[str, Any] = {"rtol": 3e-5, "atol": 2e-6}
MODELS = [
    Tokens((2, 3)),
    Tokens((3, 2), n_registers=2),
    Tokens((2, 2), has_cls=False),
    Tokens((1, 3), has_cls=False, n_registers=1),
    Tokens((1, 1)),
]
LABELS = [0, 2, 2, -1, 7, 7, 7, 0, 2]
Table = dict[tuple[int, int | None, str], AttentionRow]


def run(store: Path, **given: Any) -> tuple[Table, xarray.Dataset]:
    out, maps = store.parent / "m.csv", store.parent / "m.nc"
    settings = AttentionSettings(**{"by_class": False, "high_norm": None, **given})
    write_attention(store, out, maps, settings)
    rows = read_attention(out)
    with xarray.open_dataset(maps, engine="scipy") as dataset:
        loaded = dataset.load()
    table = {(row.layer, row.head, row.metric): row for row in rows}
    assert len(table) == len(rows)
    return table, loaded


def references(attention: np.ndarray, tokens: Tokens, layer: int) -> list[Reference]:
    return [
        Reference(image[layer], tokens.grid, tokens.has_cls, tokens.n_registers)
        for image in attention
    ]


# --- Against the definitions ---


@pytest.mark.parametrize("made_from", ["attention_summary", "attention"])
@pytest.mark.parametrize(
    ("null", "offset_null"), [("zero", "exclude"), ("exclude", "exclude"), ("zero", "zero")]
)
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("tokens", MODELS, ids=str)
def test_every_number_from_its_definition(
    tmp_path: Path, tokens: Tokens, heads: int, null: str, offset_null: str, made_from: str
) -> None:
    attention = random_attention(9, 2, heads, tokens, null=tokens.n_prefix > 0)
    taps = (made_from,) if made_from != "attention" else ("spatial", "attention")
    store = write_attended(
        tmp_path / "d" / "m.zarr", attention, tokens, taps=taps, labels=LABELS, layers=(3, 5)
    )
    table, maps = run(store, null_rows=null, offset_null_rows=offset_null, by_class=True)
    checked = set()
    for position, layer in enumerate((3, 5)):
        truth = references(attention, tokens, position)
        scalars = [t.metrics(null, PATCH, offset_null) for t in truth]
        for metric in scalars[0]:
            values = np.stack([s[metric] for s in scalars])
            way = offset_null if metric.startswith("offset") else null
            # Offsets without null rows are means over rows, all else over images.
            rows = np.ones(values.shape)
            if metric.startswith("offset") and offset_null == "exclude":
                rows = tokens.n_spatial - np.stack([s["n_null"] for s in scalars])
            for head in range(heads) if values.ndim == 2 else (None,):
                own = values if head is None else values[:, head]
                weights = rows if head is None else rows[:, head]
                weights, own = weights[~np.isnan(own)], own[~np.isnan(own)]
                row = table[layer, head, metric]
                checked.add((layer, head, metric))
                assert (row.model, row.dataset, row.null_rows) == ("m", "d", way)
                assert (row.unit, row.n_images) == (UNITS[metric], len(own))
                mean = np.average(own, weights=weights)
                np.testing.assert_allclose(row.mean, mean, err_msg=metric, **CLOSE)
                np.testing.assert_allclose(
                    row.deviation, deviation(own), rtol=1e-3, atol=3e-6, err_msg=metric
                )
                if head is not None:
                    nulls = np.mean([s["n_null"][head] for s in scalars])
                    assert row.n_null == pytest.approx(nulls, rel=1e-12)
        for head in range(heads):
            x, y = (table[layer, head, f"offset_{axis}"] for axis in "xy")
            length = table[layer, head, "offset_length"]
            checked.add((layer, head, "offset_length"))
            assert length.mean == pytest.approx(math.hypot(x.mean, y.mean), rel=1e-12)
            assert length.deviation == pytest.approx(
                math.hypot(x.deviation, y.deviation), rel=1e-12
            )
        check_maps(maps, truth, position, null)
    assert set(table) == checked


def check_maps(maps: xarray.Dataset, truth: list[Reference], position: int, null: str) -> None:
    """Compare the maps of one layer with means over images, and over those of each class."""
    single = [t.token_maps(null) | {"aligned": t.aligned(null)} for t in truth]
    single = [
        m | {"aligned_by_coverage": t.aligned_by_coverage()}
        for m, t in zip(single, truth, strict=True)
    ]
    labels = np.array(LABELS)
    for name in single[0]:
        values = np.stack([m[name] for m in single])
        found = maps[name].isel(layer=position).values
        np.testing.assert_allclose(found, np.nanmean(values, axis=0), err_msg=name, **CLOSE)
    for name in truth[0].token_maps(null):
        values = np.stack([m[name] for m in single])
        means = np.stack([np.nanmean(values[labels == label], axis=0) for label in (0, 2, 7)])
        found = maps[f"{name}_by_class"].isel(layer=position).values
        np.testing.assert_allclose(found, means, err_msg=name, **CLOSE)
        spread = np.apply_along_axis(deviation, 0, means)
        found = maps[f"{name}_class_deviation"].isel(layer=position).values
        np.testing.assert_allclose(found, spread, err_msg=name, **CLOSE)
    classes = {n for n in maps if "class" in str(n)}
    assert {n.split("_by_class")[0] for n in classes if n.endswith("_by_class")} == set(
        truth[0].token_maps(null)
    )


def test_high_norm_tokens(tmp_path: Path) -> None:
    """Against loops over the stored features."""
    import vitfeat

    tokens = Tokens((2, 3))
    store = write_attended(
        tmp_path / "d" / "m.zarr",
        random_attention(7, 2, 2, tokens),
        tokens,
        taps=("spatial", "attention_summary"),
    )
    features = np.asarray(vitfeat.open(store)["spatial"][:], dtype=np.float64)
    for rule in ("absolute", "median", "mad"):
        table, _ = run(store, high_norm=rule)
        for layer in range(2):
            norms = [
                [math.sqrt(sum(float(c) ** 2 for c in token)) for token in image.reshape(6, -1)]
                for image in features[:, layer]
            ]
            means = [sum(n) / 6 for n in norms]
            row = table[layer, None, "token_norm"]
            assert (row.unit, row.n_null, row.n_images) == ("L2 norm", None, 7)
            assert row.mean == pytest.approx(sum(means) / 7, rel=1e-12)
            assert row.deviation == pytest.approx(deviation(means), rel=1e-9)
            shares = []
            for n in norms:
                middle = float(np.median(n))
                spread = float(np.median([abs(v - middle) for v in n]))
                limit = {
                    "absolute": 150,
                    "median": 3 * middle,
                    "mad": middle + 10 * 1.482602218505602 * spread,
                }[rule]
                shares.append(sum(v > limit for v in n) / 6)
            row = table[layer, None, f"high_norm_{rule}"]
            assert row.mean == pytest.approx(sum(shares) / 7, abs=1e-15)


def test_rollout_of_the_images_whose_attention_is_stored(tmp_path: Path) -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = random_attention(6, 3, 2, tokens)
    taps = ("attention", "attention_summary")
    store = write_attended(
        tmp_path / "d" / "m.zarr", attention, tokens, taps=taps, kept={"attention": (1, 4)}
    )
    _, maps = run(store)
    truth = np.mean([rollout(attention[i])[0, 2:].reshape(2, 3) for i in (1, 4)], axis=0)
    np.testing.assert_allclose(maps["cls_rollout"].values, truth, rtol=1e-5)
    assert maps["cls_rollout"].dims == ("y", "x")
    assert (maps.attrs["n_images"], maps.attrs["n_images_rollout"]) == (6, 2)


@pytest.mark.parametrize("lacks", ["cls", "layers"])
def test_no_rollout(tmp_path: Path, lacks: str) -> None:
    """Without a CLS token, or with layers left out."""
    tokens = Tokens((2, 3), has_cls=lacks != "cls", n_registers=1)
    store = write_attended(
        tmp_path / "d" / "m.zarr",
        random_attention(3, 2, 2, tokens),
        tokens,
        taps=("attention",),
        layers=(0, 2) if lacks == "layers" else (0, 1),
    )
    _, maps = run(store)
    assert "cls_rollout" not in maps
    assert "n_images_rollout" not in maps.attrs


def test_attention_of_some_images_alone(tmp_path: Path) -> None:
    """Metrics are over the images that attention is kept for, with their labels."""
    tokens = Tokens((2, 3))
    attention = random_attention(9, 1, 2, tokens)
    kept = (1, 4, 7)
    some = write_attended(
        tmp_path / "some" / "m.zarr",
        attention,
        tokens,
        taps=("attention",),
        kept={"attention": kept},
        labels=LABELS,
    )
    alone = write_attended(
        tmp_path / "alone" / "m.zarr",
        attention[list(kept)],
        tokens,
        taps=("attention",),
        labels=[LABELS[i] for i in kept],
    )
    (table, maps), (expected, expected_maps) = (run(s, by_class=True) for s in (some, alone))
    assert maps.equals(expected_maps)
    assert maps.attrs["n_images"] == 3
    assert [r[4:] for r in table.values()] == [r[4:] for r in expected.values()]


def test_pieces_that_are_read_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens((2, 3))
    store = write_attended(
        tmp_path / "d" / "m.zarr",
        random_attention(9, 2, 2, tokens, null=True),
        tokens,
        taps=("spatial", "attention", "attention_summary"),
        labels=LABELS,
    )
    settings: dict[str, Any] = {"by_class": True, "high_norm": "median"}
    table, maps = run(store, **settings)
    for module in ("attention.job", "attention.source"):
        monkeypatch.setattr(f"vitfeat.analyses.{module}._PIECE_BYTES", 1)
    again, maps_again = run(store, **settings)
    assert list(again) == list(table)
    for place, row in table.items():
        assert again[place][:-2] == row[:-2]
        np.testing.assert_allclose(again[place][-2:], row[-2:], rtol=1e-9, atol=1e-12)
    xarray.testing.assert_allclose(maps_again, maps, rtol=1e-6)


# --- Closed forms ---


def one_row_each(tokens: Tokens, key_of: Any) -> np.ndarray:
    """Attention of 4 images, 1 layer and 2 heads whose queries look at one key each."""
    n = tokens.n_tokens
    attention = np.zeros((4, 1, 2, n, n), dtype=np.float32)
    for q in range(n):
        attention[..., q, key_of(q)] = 1
    return attention


@pytest.mark.parametrize("made_from", ["attention_summary", "attention"])
def test_closed_forms(tmp_path: Path, made_from: str) -> None:
    tokens = Tokens((3, 4))

    def means(name: str, attention: np.ndarray, **settings: Any) -> dict[str, float]:
        store = write_attended(tmp_path / name / "m.zarr", attention, tokens, taps=(made_from,))
        table, _ = run(store, **settings)
        there = [row for row in table.values() if row.n_images]
        assert all(row.deviation == pytest.approx(0, abs=1e-6) for row in there)
        return {metric: row.mean for (_, head, metric), row in table.items() if head in (1, None)}

    uniform = means("uniform", np.full((4, 1, 2, 13, 13), 1 / 13, dtype=np.float32))
    places = [(y / 2, x / 3) for y in range(3) for x in range(4)]
    expected = np.mean([math.dist(a, b) for a in places for b in places])
    assert uniform["distance"] == pytest.approx(expected, rel=1e-6)
    assert uniform["entropy"] == pytest.approx(math.log(13), rel=1e-6)
    assert uniform["spatial_to_cls"] == pytest.approx(1 / 13, rel=1e-6)
    for name in ("offset_length", "deviation_positions", "deviation_heads", "deviation_heads_all"):
        assert uniform[name] == pytest.approx(0, abs=1e-6)

    identity = means("identity", one_row_each(tokens, lambda q: q))
    for name in ("distance", "distance_pixels", "offset_length", "entropy", "spatial_to_cls"):
        assert identity[name] == 0, name
    assert identity["cls_to_cls"] == 1
    # Each key is 1 once and 0 eleven times: variance (1 - 1/12) / 11.
    assert identity["deviation_positions"] == pytest.approx(math.sqrt(1 / 12), rel=1e-6)

    on_cls = means("on_cls", one_row_each(tokens, lambda q: 0))
    assert on_cls["n_null"] == 12
    assert on_cls["spatial_to_cls"] == on_cls["cls_to_cls"] == 1
    assert on_cls["distance"] == 0
    assert math.isnan(on_cls["offset_length"])
    as_zero = means("as_zero", one_row_each(tokens, lambda q: 0), offset_null_rows="zero")
    assert as_zero["offset_length"] == 0

    def shifted(q: int) -> int:
        """Two columns to the left and one row down; CLS where that leaves the grid."""
        y, x = divmod(q - 1, 4)
        return 1 + (y + 1) * 4 + x - 2 if q and y + 1 < 3 and x - 2 >= 0 else 0

    constant = means("shifted", one_row_each(tokens, shifted), null_rows="exclude")
    assert constant["n_null"] == 12 - 4
    assert constant["offset_x"] == pytest.approx(-2, rel=1e-6)
    assert constant["offset_y"] == pytest.approx(1, rel=1e-6)
    assert constant["offset_length"] == pytest.approx(math.sqrt(5), rel=1e-6)
    assert constant["distance_patches"] == pytest.approx(math.sqrt(5), rel=1e-6)
    assert constant["distance_pixels"] == pytest.approx(PATCH * math.sqrt(5), rel=1e-6)
    assert constant["distance"] == pytest.approx(math.hypot(2 / 3, 1 / 2), rel=1e-6)


def test_nothing_but_null_rows(tmp_path: Path) -> None:
    """Left out, such a head has no value, and says of how many images."""
    tokens = Tokens((2, 2))
    store = write_attended(tmp_path / "d" / "m.zarr", one_row_each(tokens, lambda q: 0), tokens)
    table, maps = run(store, null_rows="exclude")
    row = table[0, 1, "distance"]
    assert (row.n_images, row.n_null) == (0, 4)
    assert math.isnan(row.mean)
    assert np.isnan(maps["spatial_queries_renormalised"].values).all()
    assert table[0, 1, "spatial_to_cls"].n_images == 4


# --- What a store may lack ---


@pytest.mark.parametrize("labels", [[-1] * 4, [3] * 4])
def test_too_few_classes(
    tmp_path: Path, labels: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Without a class there are no maps by class, with one no deviation over classes."""
    tokens = Tokens((2, 2))
    store = write_attended(
        tmp_path / "d" / "m.zarr", random_attention(4, 1, 2, tokens), tokens, labels=labels
    )
    _, maps = run(store, by_class=True)
    assert ("class" in maps.dims) == (labels[0] >= 0)
    assert not [n for n in maps if str(n).endswith("_class_deviation")]
    assert caplog.messages == (
        ["m: no image has a class: no maps by class"] if labels[0] < 0 else []
    )


@pytest.mark.parametrize(("view", "pixels"), [((8, 12), True), ((9, 12), False), ((8, 8), False)])
def test_only_square_patches_of_whole_pixels_have_distances_in_pixels(
    tmp_path: Path, view: tuple[int, int], pixels: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens((2, 3), n_registers=1)
    attention = random_attention(4, 1, 2, tokens)
    store = write_attended(
        tmp_path / "d" / "m.zarr", attention, tokens, taps=("attention",), view=view
    )
    table, maps = run(store)
    assert (maps.attrs["grid_rows"], maps.attrs["grid_columns"]) == (2, 3)
    assert ((0, 0, "distance_pixels") in table) == pixels
    assert bool(caplog.messages) != pixels


def test_a_store_whose_deviation_over_heads_is_of_all_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before format version 4 it was: such a store opens, and the job says what to do."""
    tokens = Tokens((2, 3))
    store = write_attended(tmp_path / "d" / "m.zarr", random_attention(2, 1, 2, tokens), tokens)
    resealed(store, lambda attributes: attributes.update(format_version=1))
    assert open_store(store).n_images == 2
    out, maps = tmp_path / "m.csv", tmp_path / "m.nc"
    assert main(["run", "attention", str(store), "--out", str(out), "--maps", str(maps)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    for word in (str(store), "of all tokens (format version 1)", "extract it again", "m.json"):
        assert word in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("taps", "more", "message"),
    [
        (("cls",), [], "add attention_summary to extraction.taps"),
        (("attention_summary",), ["--high-norm", "mad"], "add spatial to extraction.taps"),
    ],
)
def test_what_to_add_to_the_config(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    taps: tuple[str, ...],
    more: list[str],
    message: str,
) -> None:
    tokens = Tokens((2, 3))
    attention = random_attention(2, 1, 2, tokens)
    store = write_attended(tmp_path / "d" / "m.zarr", attention, tokens, taps=taps)
    out, maps = tmp_path / "m.csv", tmp_path / "m.nc"
    arguments = ["run", "attention", str(store), "--out", str(out), "--maps", str(maps), *more]
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert str(store) in line
    assert not out.exists()
    assert not maps.exists()


def test_a_damaged_chunk(tmp_path: Path) -> None:
    tokens = Tokens((2, 3))
    store = write_attended(tmp_path / "d" / "m.zarr", random_attention(9, 1, 2, tokens), tokens)
    shard = shard_of(store, "attention_summary/aligned", 1)
    flip(shard, shard.stat().st_size // 3)
    with pytest.raises(StoreError, match=r"aligned cannot be decoded .*extract it again"):
        run(store)
    assert not (tmp_path / "d" / "m.csv").exists()


def test_equal_stores_become_equal_bytes(tmp_path: Path) -> None:
    tokens = Tokens((2, 3))
    attention = random_attention(9, 2, 2, tokens)
    found = []
    for name in ("a", "b"):
        store = write_attended(
            tmp_path / name / "d" / "m.zarr",
            attention,
            tokens,
            taps=("attention", "attention_summary"),
            labels=LABELS,
        )
        run(store, by_class=True)
        found.append([(store.parent / f"m.{ending}").read_bytes() for ending in ("csv", "nc")])
    assert found[0] == found[1]


def test_the_command(tmp_path: Path) -> None:
    """Every option reaches the job."""
    tokens = Tokens((2, 3))
    store = write_attended(
        tmp_path / "d" / "m.zarr",
        random_attention(9, 1, 2, tokens, null=True),
        tokens,
        taps=("spatial", "attention_summary"),
        labels=LABELS,
    )
    arguments = ["run", "attention", store, "--null-rows", "exclude", "--no-by-class"]
    arguments += ["--offset-null-rows", "zero", "--high-norm", "mad"]
    arguments += ["--out", tmp_path / "o.csv", "--maps", tmp_path / "o.nc"]
    assert main([str(a) for a in arguments]) == 0
    run(
        store,
        null_rows="exclude",
        offset_null_rows="zero",
        high_norm="mad",
    )
    for ending in ("csv", "nc"):
        own = (tmp_path / f"o.{ending}").read_bytes()
        assert own == (store.parent / f"m.{ending}").read_bytes()
