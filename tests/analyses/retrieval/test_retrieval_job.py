"""From a store and a table of relevance to scores and to a figure, as the commands do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.store.filled import GEOMETRY, Content
from vitfeat.analyses.retrieval import job
from vitfeat.analyses.retrieval.job import write_retrieval
from vitfeat.analyses.retrieval.ranking_job import RankingRow, write_ranking
from vitfeat.analyses.retrieval.settings import RetrievalSettings
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.cli import main
from vitfeat.data.annotations import RelevanceRow
from vitfeat.data.index import Index
from vitfeat.data.revisited import relevance
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.demo import datasets
from vitfeat.errors import AnalysisError, StoreError
from vitfeat.final_norm import FinalNorm
from vitfeat.store.create import Rows
from vitfeat.store.reader import FeatureStore
from vitfeat.tables import read_table, write_table

LAYERS = GEOMETRY.layers
LETTERS = "abcdefghijklmnopqrstuv"
# Of the 22 images a and k are queries; b, the next query, has nothing relevant.
RELEVANCE = [
    *(RelevanceRow("a.jpg", f"{one}.jpg", "easy") for one in "cgu"),
    *(RelevanceRow("a.jpg", f"{one}.jpg", "hard") for one in "dv"),
    *(RelevanceRow("a.jpg", f"{one}.jpg", "junk") for one in "ef"),
    RelevanceRow("b.jpg", "", ""),
    RelevanceRow("k.jpg", "c.jpg", "easy"),
    RelevanceRow("k.jpg", "m.jpg", "junk"),
]


@dataclass(frozen=True)
class Places(Content):
    """A store of random features of 22 images a.jpg, b.jpg, ..."""

    taps: tuple[str, ...] = ("cls", "spatial")
    dtype: str = "float32"
    given: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def rows(self) -> Rows:
        ids = [f"{LETTERS[i]}.jpg" for i in range(self.n_images)]
        return replace(super().rows, image_id=ids)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return super().arrays() | self.given


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write a store and a table of relevance."""

    def write(
        content: Content | None = None, table: Sequence[RelevanceRow] = RELEVANCE
    ) -> tuple[Path, Path]:
        number = len(list(tmp_path.iterdir()))
        store = tmp_path / str(number) / "paris" / "m.zarr"
        (content or Places()).write(store)
        write_table(tmp_path / str(number) / "relevance.csv", RelevanceRow, table)
        return store, tmp_path / str(number) / "relevance.csv"

    return write


def score(inputs: tuple[Path, Path], **options: Any) -> list[ScoreRow]:
    out = inputs[1].with_name("out.csv")
    ways = {key: options.pop(key) for key in ("max_bytes",) if key in options}
    write_retrieval(*inputs, out, RetrievalSettings(**options), **ways)
    return read_scores(out)


def descriptors(content: Content, kind: str, position: int) -> list[Any]:
    if kind == "cls":
        return list(content.arrays()["cls"][:, position].astype(float))
    tokens = content.arrays()["spatial"].astype(float)
    if content.grid_shapes is None:
        return list(tokens[:, position].mean((1, 2)))
    cuts = np.cumsum(content.grid_shapes.prod(1))[:-1]
    return [part.mean(0) for part in np.split(tokens[:, position], cuts)]


def average_precisions(
    x: Sequence[Any], positives: Sequence[str], ignored: Sequence[str]
) -> dict[str, float]:
    """AP of each query by the definition: grades as `positives` and `ignored` say."""

    def cosine(a: str, b: str) -> float:
        u, v = x[LETTERS.index(a)], x[LETTERS.index(b)]
        norms = sum(p * p for p in u) ** 0.5 * sum(p * p for p in v) ** 0.5
        return float(sum(p * q for p, q in zip(u, v, strict=True)) / norms)

    found = {}
    for query in "abk":
        of = {r.image[:1]: r.grade for r in RELEVANCE if r.query[0] == query and r.image}
        left = [d for d in LETTERS if d not in "abk" and of.get(d) not in ignored]
        left.sort(key=lambda d, query=query: -cosine(query, d))
        places = [place for place, d in enumerate(left) if of.get(d) in positives]
        if places:
            parts = [((j / r if r else 1) + (j + 1) / (r + 1)) / 2 for j, r in enumerate(places)]
            found[f"{query}.jpg"] = sum(parts) / len(parts)
    return found


VARIANTS = {
    "easy": (["easy"], ["hard", "junk"]),
    "medium": (["easy", "hard"], ["junk"]),
    "hard": (["hard"], ["easy", "junk"]),
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_table_is_that_of_the_definition(
    written: Any, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = Places(dtype=dtype)
    rows = score(written(content), ranks=(1, 3))
    assert {(r.task, r.model, r.dataset) for r in rows} == {("retrieval", "m", "paris")}
    values = {(r.features, r.layer, r.variant, r.score, r.group): (r.n, r.value) for r in rows}
    assert len(values) == len(rows)
    for kind in ("cls", "mean"):
        for position, layer in enumerate(LAYERS):
            for variant, grades in VARIANTS.items():
                ap = average_precisions(descriptors(content, kind, position), *grades)
                where = kind, layer, variant
                n, mean = values.pop((*where, "map", ""))
                assert (n, mean) == (len(ap), pytest.approx(sum(ap.values()) / len(ap), abs=1e-6))
                for query, value in ap.items():
                    n, found = values.pop((*where, "ap", query))
                    assert found == pytest.approx(value, abs=1e-6)
                    listed = [r for r in RELEVANCE if r.query == query and r.grade in grades[0]]
                    assert n == len(listed)
                for rank in (1, 3):
                    n, found = values.pop((*where, f"mp@{rank}", ""))
                    assert n == len(ap)
                    assert 0 <= found <= 1
    assert not values
    assert caplog.messages == [
        "m: 3 queries, 19 database images",
        "m, easy: 2 queries count, 1 excluded without a positive image",
        "m, medium: 2 queries count, 1 excluded without a positive image",
        "m, hard: 1 query counts, 2 excluded without a positive image",
    ]


def test_mean_precision_is_over_the_queries_that_count(written: Any) -> None:
    """Image c is just like both queries: first of both, one of several positives."""
    content = Places()
    cls = content.arrays()["cls"]
    cls[[0, 1, 10]] = cls[2]
    rows = score(written(replace(content, given={"cls": cls})), features=["cls"], ranks=[1, 2])
    found = {(r.variant, r.score): r.value for r in rows if not r.group and r.layer == 3}
    assert found["easy", "mp@1"] == found["medium", "mp@1"] == 1
    # k has found its only positive; of a it depends on the second.
    assert found["easy", "mp@2"] in (0.75, 1)


def test_little_memory_gives_the_same_table(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = written()
    whole = score(inputs)
    monkeypatch.setattr(job, "_BLOCK_BYTES", 8 * 11 * 5)
    # One query at a time, blocks of five images.
    assert score(inputs, max_bytes=1) == whole


def test_blocks_are_as_small_as_asked(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = written()
    sizes: list[tuple[int, ...]] = []

    def watched(queries: Any, database: Any, n_images: int) -> Any:
        blocks = list(database)
        sizes.append((len(queries), *map(len, blocks)))
        return np.zeros((len(queries), n_images), dtype=np.float32)

    monkeypatch.setattr(job, "similarities", watched)
    monkeypatch.setattr(job, "_BLOCK_BYTES", 8 * 10 * 8)
    score(inputs, features=["cls"], max_bytes=2 * 4 * 19)
    # Two queries at once, then one. The 22 images come in runs of 8, 8 and 6, of which a, b and k
    # are queries.
    assert sizes == [(2, 6, 7, 6), (1, 6, 7, 6)] * len(LAYERS)


def maps(rows: Sequence[ScoreRow], features: str) -> list[float]:
    chosen = [r for r in rows if (r.features, r.variant, r.score) == (features, "medium", "map")]
    assert [r.layer for r in chosen] == list(LAYERS)
    return [r.value for r in chosen]


def mean_ap(x: Sequence[Any]) -> float:
    return float(np.mean(list(average_precisions(x, *VARIANTS["medium"]).values())))


@pytest.mark.parametrize("block_bytes", [2**28, 8 * 11 * 5])
def test_images_of_different_grids(
    written: Any, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """Features of images at their own aspect, as the layout's usual view gives them."""
    grids = np.array([[2 + i % 3, 3 + i % 4] for i in range(22)])
    content = Places(
        geometry=replace(GEOMETRY, ragged=True),
        starts={"spatial": (0, *np.cumsum(grids.prod(1)).tolist())},
        grid_shapes=grids,
    )
    monkeypatch.setattr(job, "_BLOCK_BYTES", block_bytes)
    rows = score(written(content))
    for kind in ("cls", "mean"):
        truth = [mean_ap(descriptors(content, kind, position)) for position in range(3)]
        assert maps(rows, kind) == pytest.approx(truth, abs=1e-6)


def test_the_final_norm(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = written()
    with pytest.raises(StoreError, match="holds no final norm"):
        score(inputs, final_norm=True)
    scale = np.linspace(0.1, 3, 8, dtype=np.float32)
    shift = np.linspace(-2, 1, 8, dtype=np.float32)
    norm = FinalNorm("layer", scale, shift, 1e-6)
    monkeypatch.setattr(FeatureStore, "final_norm", norm)
    rows = score(inputs, final_norm=True, features=["cls"])
    assert {r.features for r in rows} == {"cls_norm"}
    truth = []
    for position in range(3):
        x = np.array(descriptors(Places(), "cls", position))
        centred = x - x.mean(1, keepdims=True)
        deviation = (centred**2).mean(1, keepdims=True) ** 0.5
        truth.append(mean_ap(list(centred / deviation * scale + shift)))
    assert maps(rows, "cls_norm") == pytest.approx(truth, abs=1e-5)
    assert maps(rows, "cls_norm") != pytest.approx(maps(score(inputs), "cls"), abs=1e-3)


def test_a_model_without_cls_has_no_rows_of_it(
    written: Any, caplog: pytest.LogCaptureFixture
) -> None:
    content = Places(geometry=replace(GEOMETRY, has_cls=False, n_registers=0), taps=("spatial",))
    rows = score(written(content))
    assert {r.features for r in rows} == {"mean"}
    assert caplog.messages[-1] == "m has no CLS token: cls left out"


def test_a_variant_that_no_query_counts_in_has_no_rows(written: Any) -> None:
    table = [row for row in RELEVANCE if row.grade != "hard"]
    rows = score(written(table=table))
    assert {r.variant for r in rows} == {"easy", "medium"}
    easy, medium = (
        {(r.layer, r.features, r.score, r.group): r.value for r in rows if r.variant == v}
        for v in ("easy", "medium")
    )
    assert easy == medium


BAD = [
    ([*RELEVANCE, RelevanceRow("x.jpg", "c.jpg", "easy")], "does not hold, first x.jpg; make it"),
    ([RelevanceRow("a.jpg", "y.jpg", "easy")], "does not hold, first y.jpg; make it anew"),
    ([*RELEVANCE, RelevanceRow("a.jpg", "c.jpg", "hard")], "c.jpg is 'hard' to a.jpg; a database"),
    ([*RELEVANCE, RelevanceRow("a.jpg", "k.jpg", "hard")], "k.jpg is 'hard' to a.jpg; a database"),
    ([RelevanceRow("a.jpg", "c.jpg", "good")], "c.jpg is 'good' to a.jpg"),
    ([RelevanceRow("a.jpg", "", "easy")], "is 'easy' to a.jpg"),
    ([], "0 images of 22 are queries; retrieval needs some, and others as the database"),
    ([RelevanceRow(f"{q}.jpg", "", "") for q in LETTERS], "22 images of 22 are queries"),
    ([RelevanceRow("a.jpg", "c.jpg", "junk")], "no query of 1 has an easy or hard image; take"),
]


@pytest.mark.parametrize(("table", "problem"), BAD)
def test_tables_that_do_not_fit(written: Any, table: list[RelevanceRow], problem: str) -> None:
    with pytest.raises(AnalysisError, match=problem) as caught:
        score(written(table=table))
    assert "\n" not in str(caught.value)


def test_features_that_are_not_stored_or_not_of_all_images(written: Any) -> None:
    with pytest.raises(AnalysisError, match=r"spatial not stored \(it holds cls\), which 'mean'"):
        score(written(Places(taps=("cls",))))
    some = replace(Places(), kept={"spatial": (0, 2, 5)})
    with pytest.raises(AnalysisError, match="spatial of some images only"):
        score(written(some))


def test_values_that_are_not_finite(written: Any) -> None:
    content = Places()
    cls = content.arrays()["cls"]
    cls[5, 1, 0] = np.inf
    message = r"m\.zarr, cls, layer 3: descriptors of 1 image of"
    with pytest.raises(AnalysisError, match=message):
        score(written(replace(content, given={"cls": cls})))


def test_the_command(written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, table = written()
    out = tmp_path / "o.csv"
    command = ["run", "retrieval", str(store), "--features", "cls", "--ranks", "2"]
    assert main([*command, "--relevance", str(table), "--out", str(out)]) == 0
    assert {r.score for r in read_scores(out)} == {"map", "mp@2", "ap"}
    assert main([*command, "--relevance", "absent.csv", "--out", str(out)]) == 1
    assert "cannot read table of relevance absent.csv" in capsys.readouterr().err


@dataclass(frozen=True)
class Indexed(Content):
    """A store of random features of the images of an index."""

    index: Index | None = None

    @property
    def rows(self) -> Rows:
        assert self.index is not None
        return replace(super().rows, image_id=self.index.image_id)

    @property
    def request(self) -> dict[str, Any]:
        assert self.index is not None
        data = {"fingerprint": self.index.fingerprint, "n_images": len(self.index)}
        return super().request | {"data": data}


@dataclass
class Drawn:
    """What a figure is drawn from."""

    store: Path
    relevance: Path
    index: Path
    root: Path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("ranking")
    datasets.write("revisited", folder / "images")
    spec = DatasetSpec(name="d", layout="revisited", root=folder / "images")
    index = build_index(spec)
    index.write(folder / "index.csv")
    write_table(folder / "relevance.csv", RelevanceRow, relevance(spec, index, []))
    content = Indexed(taps=("cls", "spatial"), n_images=len(index), index=index)
    content.write(folder / "d" / "m.zarr")
    return Drawn(
        folder / "d/m.zarr", folder / "relevance.csv", folder / "index.csv", folder / "images"
    )


def rank(drawn: Drawn, out: Path, **options: Any) -> list[RankingRow]:
    settings = RetrievalSettings(features=options.pop("features", ("cls", "mean")))
    write_ranking(drawn.store, drawn.relevance, drawn.index, drawn.root, out, settings, **options)
    return read_table(out.with_suffix(".csv"), RankingRow, "ranking", "")


def test_the_figure_shows_the_first_results(drawn: Drawn, tmp_path: Path) -> None:
    rows = rank(drawn, tmp_path / "ranking.png", queries=3, results=4, layer=3)
    assert Image.open(tmp_path / "ranking.png").width > 500
    assert (tmp_path / "ranking.pdf").stat().st_size > 1000
    assert len(rows) == 12
    assert {(r.model, r.dataset, r.layer, r.features) for r in rows} == {("m", "d", 3, "cls")}
    index = Index.read(drawn.index)
    place = {image: row for row, image in enumerate(index.image_id)}
    known = {
        (r.query, r.image): r.grade
        for r in relevance(DatasetSpec(name="d", layout="revisited", root=drawn.root), index, [])
    }
    queries = {query for query, _ in known}
    cls = Indexed(taps=("cls", "spatial"), n_images=len(index), index=index).arrays()["cls"]
    unit = cls[:, 1].astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for query in dict.fromkeys(r.query for r in rows):
        cosines = {
            image: float(unit[place[query]] @ unit[row])
            for image, row in place.items()
            if image not in queries
        }
        best = sorted(cosines, key=lambda image: -cosines[image])[:4]
        shown = [r for r in rows if r.query == query]
        assert [r.rank for r in shown] == [1, 2, 3, 4]
        assert [r.image_id for r in shown] == best
        assert [r.grade for r in shown] == [known.get((query, b), "negative") for b in best]
        assert [r.similarity for r in shown] == pytest.approx([cosines[b] for b in best], abs=1e-6)


def test_the_figure_takes_no_more_than_there_is(drawn: Drawn, tmp_path: Path) -> None:
    rows = rank(drawn, tmp_path / "a.png", queries=99, results=2, features=["mean"])
    assert len(rows) == 20
    assert {(r.layer, r.features) for r in rows} == {(4, "mean")}


def test_files_that_changed_are_told(drawn: Drawn, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="one layer is needed"):
        rank(drawn, tmp_path / "a.png", layer="all")
    index = Index.read(drawn.index)
    replace(index, sha256=["0" * 64, *index.sha256[1:]]).write(tmp_path / "other.csv")
    with pytest.raises(AnalysisError, match="lists other images than"):
        rank(replace_index(drawn, tmp_path / "other.csv"), tmp_path / "a.png")


def replace_index(drawn: Drawn, index: Path) -> Drawn:
    return Drawn(drawn.store, drawn.relevance, index, drawn.root)


def test_the_command_of_the_figure(drawn: Drawn, tmp_path: Path) -> None:
    command = [
        *("run", "ranking", str(drawn.store), "--relevance", str(drawn.relevance)),
        *("--index", str(drawn.index), "--root", str(drawn.root), "--labels", "A model"),
    ]
    assert main([*command, "--out", str(tmp_path / "r.png")]) == 0
    assert (tmp_path / "r.png").exists()
    assert main([*command, "--features", "nothing", "--out", str(tmp_path / "r.png")]) == 1
