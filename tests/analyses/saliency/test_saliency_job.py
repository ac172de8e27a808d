"""From a store's attention and a table of masks to the table of IoU, and the figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import hypergeom

from tests.jobs.annotated import (
    HEADS,
    LAYERS,
    N_IMAGES,
    REGIONS,
    TOKENS,
    Dataset,
    attention_of,
    foreground_by_pixels,
    write_store,
)
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.analyses.saliency.figures import MaskRow
from vitfeat.analyses.saliency.job import write_saliency
from vitfeat.analyses.saliency.masks_job import write_saliency_masks
from vitfeat.analyses.saliency.settings import SaliencySettings
from vitfeat.cli import main
from vitfeat.data.annotations import RegionRow
from vitfeat.data.regions import encode
from vitfeat.data.views import SquareView
from vitfeat.errors import AnalysisError, DataError
from vitfeat.numerics.coverage import foreground
from vitfeat.tables import read_table, write_table


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(tmp_path_factory.mktemp("made")).write()


@pytest.fixture(scope="module")
def store(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "coco" / "m.zarr"
    return write_store(path, dataset, attention_of())


def scored(store: Path, dataset: Dataset, tmp_path: Path, **options: Any) -> list[ScoreRow]:
    out = tmp_path / "out.csv"
    settings = SaliencySettings(**options)
    write_saliency(store, dataset.index, dataset.table, out, settings)
    return read_scores(out)


def query_row(attention: np.ndarray, query: str) -> np.ndarray:
    """(image, layer, head, spatial key) of a query, from the definitions."""
    spatial = attention[..., TOKENS.n_prefix :].astype(np.float64)
    if query == "cls":
        return spatial[..., 0, :]
    if query == "mean":
        return spatial[..., TOKENS.n_prefix :, :].mean(-2)
    return spatial[..., TOKENS.n_prefix + 1 * 3 + 1, :]


def iou_by_loops(row: np.ndarray, true: set[int], mass: float) -> float:
    kept: set[int] = set()
    summed = 0.0
    for key in sorted(range(len(row)), key=lambda k: (-row[k], k)):
        if summed >= mass * row.sum():
            break
        summed += row[key]
        kept.add(key)
    return len(kept & true) / len(kept | true)


def true_tokens() -> dict[int, set[int]]:
    """Foreground of each image by counting pixels under what is no crowd."""
    found = {}
    for image in range(N_IMAGES):
        masks = [mask for i, _, _, crowd, mask in REGIONS if i == image and not crowd]
        if masks and (tokens := set(foreground_by_pixels(np.any(masks, axis=0), image))):
            found[image] = tokens
    return found


def expected(
    attention: np.ndarray, true: dict[int, set[int]], mass: float
) -> dict[tuple[int, str, str, str], float]:
    found = {}
    for query in ("cls", "mean", "centre"):
        rows = query_row(attention, query)
        for position, layer in enumerate(LAYERS):
            heads = np.array(
                [
                    [iou_by_loops(rows[i, position, h], tokens, mass) for h in range(HEADS)]
                    for i, tokens in true.items()
                ]
            )
            apart = rows / rows.sum(-1, keepdims=True)
            merged, paper = (
                np.mean([iou_by_loops(some[i, position].mean(0), t, mass) for i, t in true.items()])
                for some in (rows, apart)
            )
            key = (layer, f"attn_{query}")
            for head in range(HEADS):
                found[*key, "head", str(head)] = heads[:, head].mean()
            found[*key, "best_head", ""] = heads.mean(0).max()
            found[*key, "best_per_image", ""] = heads.max(1).mean()
            found[*key, "merged", ""] = merged
            found[*key, "merged_paper", ""] = paper
    return found


def values(rows: list[ScoreRow], score: str = "iou") -> dict[tuple[int, str, str, str], float]:
    chosen = [row for row in rows if row.score == score]
    found = {(r.layer, r.features, r.variant, r.group): r.value for r in chosen}
    assert len(found) == len(chosen)
    return found


def test_the_foreground_is_what_was_made() -> None:
    """The cases that the masks were drawn for."""
    assert true_tokens() == {0: {0, 1, 3}, 1: {0, 3, 1, 4}, 2: {2}, 6: {0, 1, 2, 3, 4, 5}}


@pytest.mark.parametrize("mass", [0.6, 0.25])
def test_scores_by_loops(
    store: Path, dataset: Dataset, tmp_path: Path, mass: float, caplog: pytest.LogCaptureFixture
) -> None:
    rows = scored(store, dataset, tmp_path, mass=mass)
    true = true_tokens()
    truth = expected(attention_of(), true, mass)
    assert values(rows) == pytest.approx(truth, abs=1e-12)
    assert {(r.task, r.model, r.dataset, r.n) for r in rows} == {("saliency", "m", "coco", 4)}
    shares = np.mean([len(tokens) / 6 for tokens in true.values()])
    assert list(set(values(rows, "iou_all").values())) == [pytest.approx(shares)]
    assert caplog.messages == [
        f"m, {query}: 3 of 7 images without a token of foreground: left out"
        for query in ("cls", "mean", "centre")
    ]


def test_chance_is_of_as_many_tokens_as_the_best_head_keeps(
    store: Path, dataset: Dataset, tmp_path: Path
) -> None:
    rows = scored(store, dataset, tmp_path, queries=["centre"])
    found, attention = values(rows), query_row(attention_of(), "centre")
    generator = np.random.default_rng(0)
    for position, layer in enumerate(LAYERS):
        by_head = [found[layer, "attn_centre", "head", str(h)] for h in range(HEADS)]
        best = int(np.argmax(by_head))
        draws = []
        for image, true in true_tokens().items():
            row = attention[image, position, best]
            shares = np.cumsum(np.sort(row)[::-1]) / row.sum()
            size = int(np.searchsorted(shares, 0.6)) + 1
            for _ in range(1500):
                kept = set(generator.choice(6, size, replace=False).tolist())
                draws.append(len(kept & true) / len(kept | true))
        chance = values(rows, "iou_chance")[layer, "attn_centre", "best_head", ""]
        assert chance == pytest.approx(np.mean(draws), abs=0.02)


def test_the_paper_s_foreground_has_crowds_and_whatever_is_touched(
    store: Path, dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = scored(store, dataset, tmp_path, masks="paper", queries=["cls"])
    true: dict[int, set[int]] = {}
    for image, _, _, _, mask in REGIONS:
        box = SquareView((8, 12)).box(mask.shape[1], 16)
        if tokens := set(np.flatnonzero(foreground(mask, box, (2, 3), "paper")).tolist()):
            true.setdefault(image, set()).update(tokens)
    assert true[2] == set(range(6))
    assert 0 in true[4]
    truth = expected(attention_of(), true, 0.6)
    cls = {key: value for key, value in truth.items() if key[1] == "attn_cls"}
    assert values(rows) == pytest.approx(cls, abs=1e-12)
    assert {row.n for row in rows} == {len(true)}
    assert caplog.messages == [
        f"m, cls: {7 - len(true)} of 7 images without a token of foreground: left out"
    ]


def test_rows_whose_heads_see_the_objects_alone(dataset: Dataset, tmp_path: Path) -> None:
    """Head 1 attends evenly to the foreground, the others to CLS alone: 1 and 0 are found."""
    attention = np.zeros((N_IMAGES, len(LAYERS), HEADS, 8, 8), dtype=np.float32)
    attention[..., 0] = 1
    for image, tokens in true_tokens().items():
        keys = TOKENS.n_prefix + np.array(sorted(tokens))
        attention[image, :, 1] = 0
        attention[image, :, 1, :, keys] = 1 / len(keys)
    store = write_store(tmp_path / "coco" / "m.zarr", dataset, attention)
    rows = scored(store, dataset, tmp_path, mass=0.999)
    for (_, _, variant, group), value in values(rows).items():
        assert value == (0 if variant == "head" and group != "1" else 1), variant


def test_pieces_do_not_matter(
    store: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scored(store, dataset, tmp_path)
    monkeypatch.setattr("vitfeat.analyses.saliency.job._PIECE_BYTES", 1)
    assert scored(store, dataset, tmp_path) == whole


def test_attention_of_some_images(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A tap may be kept for some images: those are scored, against their own foreground."""
    kept = (1, 3, 6)
    taps = ("attention_summary", "attention_centre")
    store = tmp_path / "coco" / "m.zarr"
    write_store(store, dataset, attention_of(), taps=taps, kept={"attention_centre": kept})
    rows = scored(store, dataset, tmp_path, queries=["mean", "centre"])
    of = true_tokens()
    some = expected(attention_of(), {image: of[image] for image in (1, 6)}, 0.6)
    every = expected(attention_of(), of, 0.6)
    centre, mean = (
        {key: value for key, value in found.items() if key[1] == features}
        for found, features in ((some, "attn_centre"), (every, "attn_mean"))
    )
    assert values(rows) == pytest.approx(centre | mean, abs=1e-12)
    assert caplog.messages[1] == "m, centre: 1 of 3 images without a token of foreground: left out"
    # The figure shows images that all queries are stored of.
    numbers, _ = drawn(store, dataset, tmp_path, queries=["mean", "centre"], images=9)
    assert list(dict.fromkeys(n.image_id for n in numbers)) == ["1.png", "6.png"]
    for features in ("attn_mean", "attn_centre"):
        query = features.partition("_")[2]
        shown = [n.iou for n in numbers if n.query == query and n.head is None]
        assert np.mean(shown) == pytest.approx(some[2, features, "merged", ""])


def test_a_model_without_cls_token(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = replace(TOKENS, has_cls=False, n_registers=0)
    store = write_store(tmp_path / "coco" / "m.zarr", dataset, attention_of(tokens), tokens)
    rows = scored(store, dataset, tmp_path)
    assert caplog.messages[0] == "m has no CLS token: the query cls is left out"
    assert {row.features for row in rows} == {"attn_mean", "attn_centre"}
    assert scored(store, dataset, tmp_path, queries=["cls"]) == []


# --- The figure ---


def drawn(
    store: Path, dataset: Dataset, tmp_path: Path, **options: Any
) -> tuple[list[MaskRow], list[ScoreRow]]:
    rows = scored(store, dataset, tmp_path, **options.get("score", {}))
    more = {key: value for key, value in options.items() if key != "score"}
    ways = {key: more.pop(key) for key in ("layer", "label") if key in more}
    out = tmp_path / "figure" / "masks.png"
    paths = (dataset.index, dataset.table, dataset.root, tmp_path / "out.csv", out)
    write_saliency_masks(store, *paths, SaliencySettings(**more), **ways)
    assert out.with_suffix(".pdf").stat().st_size > 1000
    with Image.open(out) as image:
        assert min(image.size) > 150
    return read_table(out.with_suffix(".csv"), MaskRow, "table", "it"), rows


@pytest.mark.parametrize("layer", ["first", 2])
def test_the_figure_s_numbers(
    store: Path, dataset: Dataset, tmp_path: Path, layer: str | int
) -> None:
    numbers, rows = drawn(store, dataset, tmp_path, images=9, layer=layer)
    number, position = (0, 0) if layer == "first" else (2, 1)
    true = true_tokens()
    assert [n.image_id for n in numbers[::6]] == [f"{image}.png" for image in true]
    assert {n.layer for n in numbers} == {number}
    found, attention = values(rows), attention_of()
    for query in ("cls", "mean", "centre"):
        own = [n for n in numbers if n.query == query]
        assert [n.n_foreground for n in own[::2]] == [len(tokens) for tokens in true.values()]
        by_head = [found[number, f"attn_{query}", "head", str(h)] for h in range(HEADS)]
        best = [n for n in own if n.head is not None]
        assert {n.head for n in best} == {int(np.argmax(by_head))}
        merged = [n for n in own if n.head is None]
        # All images with a foreground are drawn, so that the means are those of the table.
        for kind, some in (("best_head", best), ("merged", merged)):
            mean = np.mean([n.iou for n in some])
            assert mean == pytest.approx(found[number, f"attn_{query}", kind, ""])
        mean = np.mean([n.iou_chance for n in best])
        by_chance = values(rows, "iou_chance")[number, f"attn_{query}", "best_head", ""]
        assert mean == pytest.approx(by_chance)
        for one in own:
            k, f = one.n_kept, one.n_foreground
            chances = hypergeom(6, f, k).pmf(range(k + 1))
            expected = sum(chances[i] * i / (k + f - i) for i in range(min(k, f) + 1))
            assert one.iou_chance == pytest.approx(expected)
        row = query_row(attention, query)[0, position].mean(0)
        assert merged[0].iou == pytest.approx(iou_by_loops(row, true[0], 0.6))


def test_the_figure_of_named_images_in_their_order(
    store: Path, dataset: Dataset, tmp_path: Path
) -> None:
    numbers, _ = drawn(store, dataset, tmp_path, images=["6.png", "0.png"], queries=["mean"])
    assert [n.image_id for n in numbers[::2]] == ["6.png", "0.png"]


def test_images_are_spread_over_those_with_a_foreground(
    store: Path, dataset: Dataset, tmp_path: Path
) -> None:
    # The middle one of seven has none, nor have the two behind it.
    numbers, _ = drawn(store, dataset, tmp_path, images=1)
    assert {n.image_id for n in numbers} == {"6.png"}
    # Of 0, 2, 4 and 6 the third has none, and the next one that has is taken.
    numbers, _ = drawn(store, dataset, tmp_path, images=4)
    shown = list(dict.fromkeys(n.image_id for n in numbers))
    assert shown == ["0.png", "1.png", "2.png", "6.png"]


def test_the_figure_of_a_model_without_any_query(dataset: Dataset, tmp_path: Path) -> None:
    tokens = replace(TOKENS, has_cls=False, n_registers=0)
    store = write_store(tmp_path / "coco" / "m.zarr", dataset, attention_of(tokens), tokens)
    numbers, _ = drawn(store, dataset, tmp_path, queries=["cls"])
    assert numbers == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": ["5.jpg"]}, r"no attention of the image '5.jpg' \(did you mean '5.png'\?\)"),
        ({"images": ["4.png"]}, "image '4.png': no token of it is foreground"),
        ({"layer": "all"}, "one layer is needed"),
        ({"score": {"queries": ["mean"]}}, "has not the heads of m, layer 2, query cls; compute"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    store: Path, dataset: Dataset, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(AnalysisError, match=words):
        drawn(store, dataset, tmp_path, **options)


# --- Errors ---


def test_a_query_that_is_not_stored(dataset: Dataset, tmp_path: Path) -> None:
    store = write_store(
        tmp_path / "coco" / "m.zarr", dataset, attention_of(), taps=("attention_summary",)
    )
    with pytest.raises(AnalysisError, match=r"no attention_centre in this store.*'centre'"):
        scored(store, dataset, tmp_path)


def test_an_index_of_other_images(store: Path, dataset: Dataset, tmp_path: Path) -> None:
    other = tmp_path / "other" / "images"
    other.mkdir(parents=True)
    for name in dataset.image_ids:
        Image.new("RGB", (24, 16)).save(other / name)
    index = tmp_path / "other.csv"
    assert main(["index", "o", "--layout", "flat", "--root", str(other), "--out", str(index)]) == 0
    with pytest.raises(AnalysisError, match="lists other images"):
        write_saliency(store, index, dataset.table, tmp_path / "out.csv", SaliencySettings())


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([], AnalysisError, "none of 7 images has a token of foreground"),
        (
            [RegionRow("0.png", "object", 1, "a", 0, 16, 23, encode(np.ones((16, 23), bool)))],
            DataError,
            "a mask of 0.png has 23 x 16 pixels, the image 24 x 16",
        ),
        (
            [RegionRow("0.png", "object", 1, "a", 0, 16, 24, "04")],
            DataError,
            "a mask of 0.png cannot be read",
        ),
    ],
)
def test_tables_that_do_not_fit(
    store: Path,
    dataset: Dataset,
    tmp_path: Path,
    rows: list[RegionRow],
    error: type[Exception],
    words: str,
) -> None:
    table = tmp_path / "regions.csv"
    write_table(table, RegionRow, rows)
    with pytest.raises(error, match=words):
        write_saliency(store, dataset.index, table, tmp_path / "out.csv", SaliencySettings())


def test_the_commands(
    store: Path,
    dataset: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    table, figure, log = (tmp_path / n for n in ("t.csv", "m/masks.png", "log"))
    given = ["--index", dataset.index, "--regions", dataset.table]
    same = ["--queries", "centre", "--mass", "0.4", "--masks", "paper"]
    command = ["run", "saliency", store, *given, *same, "--out", table, "--log", log]
    assert main([str(a) for a in command]) == 0
    rows = scored(store, dataset, tmp_path, queries=["centre"], mass=0.4, masks="paper")
    assert read_scores(table) == rows
    assert log.read_text("utf-8").splitlines() == caplog.messages
    options = ["--root", dataset.root, "--table", table, "--images", "0.png"]
    command = [
        "run",
        "saliency_masks",
        store,
        *given,
        *same,
        *options,
        "--labels",
        "A",
        "--out",
        figure,
    ]
    assert main([str(a) for a in command]) == 0
    assert figure.exists()
    command[command.index("0.png")] = "9.png"
    assert main([str(a) for a in command]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vitfeat: error: ")
