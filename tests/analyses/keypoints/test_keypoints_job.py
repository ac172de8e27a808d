"""From a store and a table of keypoints to scores and a figure, as the command does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.numerics.reference_upsampled import cosines, feature
from tests.store.filled import Content
from vitfeat.analyses.keypoints.compute import drawn_pairs
from vitfeat.analyses.keypoints.figures import MatchRow
from vitfeat.analyses.keypoints.job import write_keypoints, write_matches
from vitfeat.analyses.keypoints.pairs import find_points, open_points
from vitfeat.analyses.keypoints.settings import KeypointSettings
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.cli import main
from vitfeat.data.annotations import PointRow
from vitfeat.data.images import ImageError
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spair import points as read_pairs
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import DenseView, PaddedView, SquareView, View
from vitfeat.demo import datasets
from vitfeat.errors import AnalysisError
from vitfeat.store.arrays import Geometry
from vitfeat.store.create import Rows
from vitfeat.tables import read_table, write_table

LAYERS = (1, 4)
VIEWS: dict[str, View] = {
    "padded": PaddedView((32, 40)),
    "square": SquareView((32, 40), 0.8),
    "dense": DenseView("short", 32, (8, 8)),
}


@dataclass(frozen=True)
class Dataset:
    """The embedded dataset's smallest split."""

    root: Path
    index: Index
    index_path: Path
    rows: list[PointRow]


@dataclass(frozen=True)
class Features(Content):
    """A store of the dataset's images in some view, with random spatial tokens or given ones."""

    taps: tuple[str, ...] = ("cls", "spatial")
    index: Index = field(default_factory=lambda: Index([], *[np.empty(0)] * 0))  # type: ignore[call-arg]
    seen: View = VIEWS["padded"]
    given: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def view(self) -> dict[str, Any]:
        return self.seen.describe()

    @property
    def rows(self) -> Rows:
        return replace(super().rows, image_id=self.index.image_id, label=self.index.label)

    @property
    def request(self) -> dict[str, Any]:
        data = {"fingerprint": self.index.fingerprint, "n_images": len(self.index)}
        return super().request | {"data": data}

    def arrays(self) -> dict[str, NDArray[Any]]:
        return super().arrays() | self.given


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("spair")
    datasets.write("spair", root)
    spec = DatasetSpec(name="pairs", layout="spair", root=root, split="val")
    index = build_index(spec)
    path = root / "index.csv"
    index.write(path)
    return Dataset(root, index, path, read_pairs(spec, index, []))


def content_of(dataset: Dataset, kind: str = "padded", **more: Any) -> Features:
    view, n = VIEWS[kind], len(dataset.index)
    shape = {"layers": LAYERS, "width": 6, "heads": 2, "has_cls": True, "n_registers": 0}
    if kind != "dense":
        geometry = Geometry(grid=(4, 5), **shape)
    else:
        geometry = Geometry(grid=(4, 4), ragged=True, **shape)
        sizes = [view.size_of(*dataset.index.seen_size(row)) for row in range(n)]
        grids = np.array([(height // 8, width // 8) for height, width in sizes])
        more["grid_shapes"] = grids
        more["starts"] = {"spatial": (0, *np.cumsum(grids.prod(1)).tolist())}
    return Features(geometry=geometry, n_images=n, index=dataset.index, seen=view, **more)


def tokens_of(content: Features, row: int, layer: int) -> np.ndarray:
    spatial = content.arrays()["spatial"]
    if content.grid_shapes is None:
        return np.asarray(spatial[row, layer])
    start, stop = content.starts["spatial"][row : row + 2]
    return spatial[start:stop, layer].reshape(*content.grid_shapes[row], -1)


Run = Callable[..., list[ScoreRow]]


@pytest.fixture
def run(tmp_path: Path, dataset: Dataset) -> Run:
    """The rows of the table of a store's content."""

    def job(
        content: Features,
        rows: Sequence[PointRow] | None = None,
        *,
        threads: int = 1,
        max_bytes: int = 2**30,
        **options: Any,
    ) -> list[ScoreRow]:
        number = len(list(tmp_path.iterdir()))
        store, table = tmp_path / str(number) / "pairs" / "m.zarr", tmp_path / f"{number}.csv"
        content.write(store)
        write_table(table, PointRow, dataset.rows if rows is None else rows)
        out = tmp_path / f"{number}-scores.csv"
        write_keypoints(
            *(store, dataset.index_path, table, dataset.root, out, None),
            KeypointSettings(**options),
            threads=threads,
            max_bytes=max_bytes,
        )
        return read_scores(out)

    return job


def values(rows: list[ScoreRow], layer: int) -> dict[tuple[str, str, str], tuple[int, float]]:
    of_layer = [r for r in rows if r.layer == layer]
    assert {(r.task, r.model, r.dataset, r.features) for r in of_layer} == {
        ("keypoints", "m", "pairs", "spatial")
    }
    found = {(r.variant, r.score, r.group): (r.n, r.value) for r in of_layer}
    assert len(found) == len(of_layer)
    return found


def in_box(x: float, y: float, box: tuple[float, ...]) -> bool:
    return box[0] <= x + 0.5 <= box[2] and box[1] <= y + 0.5 <= box[3]


@pytest.mark.parametrize("kind", VIEWS)
def test_scores_are_those_of_plain_loops(dataset: Dataset, run: Run, kind: str) -> None:
    content = content_of(dataset, kind)
    few = [r for r in dataset.rows if r.point < 4]
    wanted = drawn_pairs(few, 1, 0)
    rows = run(content, few, pairs=1, alphas=(0.3, 0.1))
    place = {name: row for row, name in enumerate(dataset.index.image_id)}
    size = {name: dataset.index.seen_size(row) for name, row in place.items()}
    box = {name: content.seen.box(*size[name]) for name in place}
    shown = [
        r
        for r in wanted
        if in_box(round(r.source_x), round(r.source_y), box[r.source])
        and in_box(round(r.target_x), round(r.target_y), box[r.target])
    ]
    assert (len(shown) < len(wanted)) == (kind == "square")
    for position, layer in enumerate(LAYERS):
        hits: dict[float, dict[int, list[bool]]] = {0.3: {}, 0.1: {}}
        tied = []
        for r in shown:
            source, target = (tokens_of(content, place[n], position) for n in (r.source, r.target))
            query = feature(source, box[r.source], r.source_x, r.source_y)
            by_place = cosines(query, target, box[r.target], size[r.target])
            best = max(by_place.values())
            at = np.array([p for p, value in by_place.items() if value >= best - 1e-12])
            tied.append(len(at) > 1)
            y, x = at.mean(0)
            side = max(r.box_right - r.box_left, r.box_bottom - r.box_top)
            for alpha, of_pair in hits.items():
                hit = hypot(x - r.target_x, y - r.target_y) <= alpha * side
                of_pair.setdefault(r.pair, []).append(hit)
        found = values(rows, layer)
        for alpha, of_pair in hits.items():
            flat = [h for some in of_pair.values() for h in some]
            means = [sum(some) / len(some) for some in of_pair.values()]
            name = f"{alpha:g}"
            assert found[name, "pck_point", ""] == (len(flat), pytest.approx(np.mean(flat)))
            assert found[name, "pck_image", ""] == (4, pytest.approx(np.mean(means)))
            assert 0 < found[name, "chance_point", ""][1] < 1
            for r in shown:
                assert found[name, "pck_image", r.category] == (
                    1,
                    pytest.approx(np.mean(of_pair[r.pair])),
                )
        assert found["", "ties", ""] == (len(shown), pytest.approx(np.mean(tied)))
        outside = 1 - len(shown) / len(wanted)
        assert found["", "outside", ""] == (len(wanted), pytest.approx(outside))


def positions(content: Features, dataset: Dataset) -> dict[str, np.ndarray]:
    """Features that say where in the image a token is; the layers differ by a factor."""
    spatial = np.zeros_like(content.arrays()["spatial"], dtype=np.float32)
    flat: list[np.ndarray] = []
    for row in range(len(dataset.index)):
        left, top, right, bottom = content.seen.box(*dataset.index.seen_size(row))
        shapes = content.grid_shapes
        rows, columns = content.geometry.grid if shapes is None else shapes[row]
        y = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
        x = left + (np.arange(columns) + 0.5) * (right - left) / columns
        b, a = np.meshgrid(y / 90, x / 90, indexing="ij")
        one = np.stack((np.cos(a), np.sin(a), np.cos(b), np.sin(b), 0 * a, 0 * b), axis=-1)
        both = np.stack((one, 3 * one))
        if shapes is None:
            spatial[row] = both
        flat += list(both.reshape(2, -1, 6).transpose(1, 0, 2))
    return {"spatial": spatial if content.grid_shapes is None else np.array(flat, dtype=np.float32)}


@pytest.mark.parametrize("kind", VIEWS)
def test_features_that_are_positions_find_all_points_in_the_same_image(
    dataset: Dataset, run: Run, kind: str
) -> None:
    content = content_of(dataset, kind, dtype="float32")
    content = replace(content, given=positions(content, dataset))
    rows = []
    for number, (name, width, height) in enumerate(
        zip(dataset.index.image_id, dataset.index.width, dataset.index.height, strict=True)
    ):
        # Beyond the centre of the outermost token places cannot be told apart.
        for k, (x, y) in enumerate(((0.4, 0.35), (0.5, 0.6), (0.6, 0.45))):
            at = float(int(x * width)), float(int(y * height))
            rows.append(PointRow(number, "all", name, name, k, *at, *at, 0, 0, 1, 1))
    found = run(content, rows, alphas=(0.1, 0.01))
    for layer in LAYERS:
        scores = values(found, layer)
        assert scores["", "outside", ""] == (48, 0)
        assert scores["0.01", "pck_point", ""] == (48, 1)
        assert scores["0.1", "pck_image", "all"] == (16, 1)
        assert scores["", "ties", ""][1] == 0


def test_layers_side_by_side_and_little_memory_change_nothing(dataset: Dataset, run: Run) -> None:
    content = content_of(dataset)
    plain = run(content)
    assert plain == run(content, threads=2)
    assert plain == run(content, max_bytes=1)


def test_points_may_stand_in_any_order(tmp_path: Path, dataset: Dataset) -> None:
    content_of(dataset).write(tmp_path / "m.zarr")
    ids = dataset.index.image_id
    # Two sources of one target by turns, and images that are source and target.
    pairs = [(0, 3), (1, 3), (0, 3), (3, 0), (2, 3), (1, 2)]
    generator = np.random.default_rng(0)
    rows = [
        PointRow(
            number, "all", ids[a], ids[b], k, *generator.uniform(5, 40, 4).tolist(), 0, 0, 9, 9
        )
        for number, (a, b) in enumerate(pairs)
        for k in range(3)
    ]
    places = {}
    order = generator.permutation(len(rows))
    for name, some in (("one", rows), ("two", [rows[i] for i in order])):
        write_table(tmp_path / f"{name}.csv", PointRow, some)
        store, sought = open_points(
            tmp_path / "m.zarr", dataset.index_path, tmp_path / f"{name}.csv", KeypointSettings()
        )
        places[name] = find_points(store, sought, 1).places
        assert sought.rows == some
    np.testing.assert_array_equal(places["one"][order], places["two"])
    assert len(np.unique(places["one"], axis=0)) > 12


def test_what_the_log_says(dataset: Dataset, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run(content_of(dataset, "square"))
    n = len(dataset.rows)
    kept = int(caplog.messages[0].split()[1])
    assert caplog.messages[0].startswith("m: ")
    assert caplog.messages[0].endswith("of 12 pairs, 4 categories")
    assert caplog.messages[1] == (
        f"m: {n - kept} keypoints left out, beyond what the view shows of an image"
    )
    caplog.clear()
    run(content_of(dataset), pairs=2)
    assert len(caplog.messages) == 1
    assert "of 8 pairs" in caplog.messages[0]


def test_points_a_little_beyond_the_image_are_used(dataset: Dataset, run: Run) -> None:
    name = dataset.index.image_id[0]
    width, height = dataset.index.seen_size(0)
    beyond = PointRow(0, "cat", name, name, 0, width, height, width, height, 0, 0, 9, 9)
    rows = run(content_of(dataset), [beyond])
    assert values(rows, 1)["", "outside", ""] == (1, 0)


def test_errors(dataset: Dataset, run: Run) -> None:
    content = content_of(dataset)
    with pytest.raises(AnalysisError, match="spatial tokens not stored"):
        run(replace(content, taps=("cls",)))
    with pytest.raises(AnalysisError, match="spatial tokens of some images only"):
        run(replace(content, kept={"spatial": (0, 3)}))
    other = replace(dataset.index, sha256=["0" * 64] * len(dataset.index))
    with pytest.raises(AnalysisError, match="lists other images"):
        run(replace(content, index=other))
    strange = dataset.rows[0]._replace(target="JPEGImages/x/y.jpg")
    with pytest.raises(AnalysisError, match=r"names the image JPEGImages/x/y\.jpg"):
        run(content, [strange])
    with pytest.raises(AnalysisError, match="0 keypoints, none of which"):
        run(content, [])
    spatial = content.arrays()["spatial"]
    row = dataset.index.image_id.index(dataset.rows[-1].target)
    spatial[row, 1, 2, 3, 4] = np.inf
    with pytest.raises(AnalysisError, match=r"layer 4 of .*\.jpg holds features .* not finite"):
        run(replace(content, given={"spatial": spatial}))


@pytest.fixture
def inputs(tmp_path: Path, dataset: Dataset) -> list[str]:
    content_of(dataset).write(tmp_path / "pairs" / "m.zarr")
    write_table(tmp_path / "points.csv", PointRow, dataset.rows)
    return [
        *("run", "keypoints", str(tmp_path / "pairs" / "m.zarr")),
        *("--points", str(tmp_path / "points.csv"), "--index", str(dataset.index_path)),
        *("--root", str(dataset.root), "--out", str(tmp_path / "out.csv")),
        *("--figure", str(tmp_path / "m" / "matches.png")),
    ]


def test_the_command_writes_the_table_and_a_figure(
    tmp_path: Path, dataset: Dataset, inputs: list[str]
) -> None:
    figure = tmp_path / "m" / "matches.png"
    options = ["--labels", "A model", "--alphas", "0.3", "0.1", "--pairs", "2", "--seed", "5"]
    assert main([*inputs, *options]) == 0
    rows = read_scores(tmp_path / "out.csv")
    assert {r.layer for r in rows} == set(LAYERS)
    assert {r.variant for r in rows} == {"0.3", "0.1", ""}
    with Image.open(figure) as image:
        assert image.width > 500
    assert figure.with_suffix(".pdf").stat().st_size > 1000
    shown = read_table(figure.with_suffix(".csv"), MatchRow, "table", "")
    categories = sorted({r.category for r in rows for r in dataset.rows})
    assert sorted({r.category for r in shown}) == categories
    # Hits are those of 0.1, and places those of the layer.
    store, sought = open_points(
        Path(inputs[2]), dataset.index_path, Path(inputs[4]), KeypointSettings(pairs=2, seed=5)
    )
    assert sought.rows == drawn_pairs(dataset.rows, 2, 5)
    for position, layer in enumerate(LAYERS):
        found = find_points(store, sought, position)
        for row in (r for r in shown if r.layer == layer):
            (number,) = (
                i
                for i, r in enumerate(sought.rows)
                if (r.source, r.target, r.point) == (row.source, row.target, row.point)
            )
            x, y = found.places[number]
            assert (row.found_x, row.found_y) == (x, y)
            assert (row.target_x, row.target_y) == tuple(sought.points.target[number])
            distance = hypot(x - row.target_x, y - row.target_y)
            assert row.hit == (distance <= 0.1 * sought.points.side[number])


def test_pairs_of_a_figure_are_of_different_categories(
    tmp_path: Path, dataset: Dataset, inputs: list[str]
) -> None:
    names = [f"category {i}" for i in range(9)]
    rows = [dataset.rows[0]._replace(pair=i, category=n) for i, n in enumerate(reversed(names))]
    write_table(tmp_path / "points.csv", PointRow, rows)
    store, sought = open_points(
        Path(inputs[2]), dataset.index_path, tmp_path / "points.csv", KeypointSettings()
    )
    layers = [find_points(store, sought, position) for position in range(2)]
    out = tmp_path / "matches.png"
    write_matches(store, sought, layers, dataset.index_path, dataset.root, out, alphas=(0.2, 0.05))
    shown = read_table(out.with_suffix(".csv"), MatchRow, "table", "")
    assert [r.category for r in shown][:4] == [names[i] for i in (1, 3, 5, 7)]
    assert len(shown) == 8


def test_an_image_that_changed_is_not_drawn(
    tmp_path: Path, dataset: Dataset, inputs: list[str]
) -> None:
    store, sought = open_points(
        Path(inputs[2]), dataset.index_path, Path(inputs[4]), KeypointSettings()
    )
    layers = [find_points(store, sought, position) for position in range(2)]
    with pytest.raises(ImageError, match="does not exist"):
        write_matches(
            store, sought, layers, dataset.index_path, tmp_path, tmp_path / "a.png", alphas=(0.1,)
        )
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("alpha", ["0", "-1", "nan", "inf", "x"])
def test_bad_arguments(inputs: list[str], capsys: pytest.CaptureFixture[str], alpha: str) -> None:
    assert main([*inputs, f"--alphas={alpha}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vitfeat: error: --alphas")
