"""From a store's regions and their table to the table of scores, as the command does it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from threadpoolctl import threadpool_limits

from tests.store.filled import Content
from vitfeat.analyses.regions.job import write_regions
from vitfeat.analyses.regions.settings import RegionSettings
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.cli import main
from vitfeat.data.annotations import RegionRow
from vitfeat.data.regions import encode
from vitfeat.errors import AnalysisError
from vitfeat.store.arrays import starts_of
from vitfeat.tables import write_table

N_IMAGES = 20
COUNTS = encode(np.ones((4, 4), dtype=bool))


def region(image: int, level: str, category: int, crowd: int = 0) -> RegionRow:
    name = f"{level} {category}"
    return RegionRow(
        f"class {image % 3}/ï{image:03d}.png", level, category, name, crowd, 4, 4, COUNTS
    )


def regions_of() -> list[RegionRow]:
    """Objects of 4 categories and parts of 3, mixed; crowds here and there."""
    generator = np.random.default_rng(1)
    found = []
    for image in range(N_IMAGES):
        for _ in range(int(generator.integers(0, 4))):
            found.append(region(image, "object", int(generator.choice([3, 10, 11, 90]))))
            found.append(region(image, "part", int(generator.choice([0, 1, 40]))))
        if image % 5 == 0:
            found.append(region(image, "object", 10, crowd=1))
    return found


@dataclass(frozen=True)
class Pooled(Content):
    """A store of the features of some of the rows of a table."""

    n_images: int = N_IMAGES
    taps: tuple[str, ...] = ("regions",)
    table: tuple[RegionRow, ...] = ()
    masks: str = "coverage"

    @staticmethod
    def of(table: list[RegionRow], numbers: list[int], **more: Any) -> Pooled:
        rows = [int(table[number].image_id[-7:-4]) for number in numbers]
        return Pooled(
            table=tuple(table),
            regions=np.array(numbers),
            starts={"regions": starts_of(rows, N_IMAGES)},
            **more,
        )

    @property
    def request(self) -> dict[str, Any]:
        digest = hashlib.sha256(json.dumps(list(self.table)).encode()).hexdigest()
        return super().request | {"regions": {"fingerprint": digest, "masks": self.masks}}


TABLE = regions_of()
CROWDS = [number for number, row in enumerate(TABLE) if row.crowd]
#: Two of the others have no token.
KEPT = [number for number in range(len(TABLE)) if number not in (*CROWDS, 4, 9)]
CONTENT = Pooled.of(TABLE, KEPT)


def scored(content: Pooled, folder: Path, **options: Any) -> list[ScoreRow]:
    store, table, out = folder / "coco" / "m.zarr", folder / "table.csv", folder / "out.csv"
    if not store.exists():
        content.write(store)
        write_table(table, RegionRow, content.table)
    ways = {key: options.pop(key) for key in ("threads", "max_bytes") if key in options}
    write_regions(store, table, out, RegionSettings(**options), **ways)
    return read_scores(out)


def values(rows: list[ScoreRow], level: str) -> dict[tuple[int, str, str], float]:
    chosen = [row for row in rows if row.variant == level]
    found = {(r.layer, r.score, r.group): r.value for r in chosen}
    assert len(found) == len(chosen)
    return found


def expected(
    content: Pooled, level: str, k: int, seeds: range, n_init: int
) -> dict[tuple[int, str, str], float]:
    """Scores by scikit-learn and a count, and their means."""
    numbers = content.regions
    assert numbers is not None
    used = [e for e, number in enumerate(numbers) if content.table[number].level == level]
    labels = np.array([content.table[numbers[e]].category for e in used])
    found = {}
    for position, layer in enumerate(content.geometry.layers):
        features = content.arrays()["regions"][used, position].astype(np.float32)
        by_score: dict[str, list[float]] = {"nmi": [], "ari": [], "purity": []}
        for seed in seeds:
            with threadpool_limits(1):
                clusters = KMeans(k, n_init=n_init, random_state=seed).fit(features).labels_
            most = [np.unique(labels[clusters == c], return_counts=True)[1].max() for c in range(k)]
            by_score["nmi"].append(normalized_mutual_info_score(labels, clusters))
            by_score["ari"].append(adjusted_rand_score(labels, clusters))
            by_score["purity"].append(sum(most) / len(labels))
        for score, some in by_score.items():
            found[layer, score, ""] = sum(some) / len(some)
            for seed, value in zip(seeds, some, strict=True):
                found[layer, score, f"seed={seed}"] = value
    return found


def count(level: str, content: Pooled = CONTENT) -> int:
    assert content.regions is not None
    return sum(content.table[number].level == level for number in content.regions)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_scores_are_those_of_scikit_learn(
    tmp_path: Path, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = replace(CONTENT, dtype=dtype)
    rows = scored(content, tmp_path, n_init=2, seeds=2, seed=5, threads=2)
    for level, k in (("object", 4), ("part", 3)):
        truth = expected(content, level, k, range(5, 7), 2)
        assert values(rows, level) == pytest.approx(truth, abs=1e-12)
        assert {r.n for r in rows if r.variant == level} == {count(level)}
    head = ("regions", "m", "coco", "regions")
    assert {(r.task, r.model, r.dataset, r.features) for r in rows} == {head}
    objects = sum(row.level == "object" for row in TABLE)
    assert len(CROWDS) == 4
    left = {level: [TABLE[n].level for n in (4, 9)].count(level) for level in ("object", "part")}
    assert caplog.messages == [
        f"m, object: {count('object')} of {objects} regions; left out are 4 as crowds and "
        f"{left['object']} without a token under them",
        f"m, part: {count('part')} of {objects - 4} regions; left out are 0 as crowds and "
        f"{left['part']} without a token under them",
        "m, object: 4 categories, 4 clusters",
        "m, part: 3 categories, 3 clusters",
    ]


def test_categories_without_a_kept_region_do_not_count(tmp_path: Path) -> None:
    kept = [number for number in KEPT if TABLE[number].category not in (90, 40)]
    content = Pooled.of(TABLE, kept)
    rows = scored(content, tmp_path, n_init=1, seeds=1)
    for level, k in (("object", 3), ("part", 2)):
        assert values(rows, level) == pytest.approx(expected(content, level, k, range(1), 1))


def test_crowds_are_objects_of_the_paper(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = sorted([*KEPT, *CROWDS[:3]])
    content = Pooled.of(TABLE, kept, masks="paper")
    rows = scored(content, tmp_path, n_init=1, seeds=1)
    assert values(rows, "object") == pytest.approx(expected(content, "object", 4, range(1), 1))
    assert {r.n for r in rows if r.variant == "object"} == {count("object") + 3}
    # The fourth crowd has no token.
    bare = [TABLE[n].level for n in (4, 9)].count("object") + 1
    assert f"0 as crowds and {bare} without a token" in caplog.messages[0]


def test_another_number_of_clusters(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = scored(CONTENT, tmp_path, clusters=6, n_init=1, seeds=1)
    assert values(rows, "part") == pytest.approx(expected(CONTENT, "part", 6, range(1), 1))
    assert caplog.messages[-1] == "m, part: 3 categories, 6 clusters"


def test_pieces_and_threads_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scored(CONTENT, tmp_path, n_init=1, seeds=2)
    monkeypatch.setattr("vitfeat.analyses.regions.job._PIECE_BYTES", 100)
    assert scored(CONTENT, tmp_path, n_init=1, seeds=2, threads=3, max_bytes=1) == whole


def test_a_level_of_one_category_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = [n for n in KEPT if TABLE[n].level == "part" or TABLE[n].category == 3]
    content = Pooled.of(TABLE, kept)
    rows = scored(content, tmp_path, n_init=1, seeds=1)
    assert {row.variant for row in rows} == {"part"}
    of = count("object", content)
    assert caplog.messages[2].startswith(
        f"m: {of} regions of the level object, of 'object 3': not clustered"
    )


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (
            Pooled.of(TABLE, [n for n in KEPT if TABLE[n].category in (3, 0)]),
            {},
            "level object, of 'object 3'; .* level part, of 'part 0'; .* needs two or more",
        ),
        (CONTENT, {"clusters": 500}, f"{count('object')} regions of the level object, fewer than"),
        (replace(CONTENT, taps=("cls",), regions=None, starts={}), {}, "no regions in this store"),
    ],
)
def test_what_cannot_be_clustered_is_one_line(
    tmp_path: Path, content: Pooled, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(AnalysisError, match=words) as caught:
        scored(content, tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_another_table_is_refused(tmp_path: Path) -> None:
    """Regions are joined by number: of another table each would get the label of another."""
    store, table = tmp_path / "coco" / "m.zarr", tmp_path / "table.csv"
    CONTENT.write(store)
    write_table(table, RegionRow, [TABLE[1], TABLE[0], *TABLE[2:]])
    with pytest.raises(AnalysisError, match=r"table.csv holds other regions than .*m.zarr was"):
        write_regions(store, table, tmp_path / "out.csv", RegionSettings())


def test_features_that_tell_categories_apart(tmp_path: Path) -> None:
    class Told(Pooled):
        def arrays(self) -> dict[str, np.ndarray]:
            found = super().arrays()
            assert self.regions is not None
            for entry, number in enumerate(self.regions):
                found["regions"][entry] = self.table[number].category
            return found

    content = Told(**vars(CONTENT))
    rows = scored(content, tmp_path, n_init=3, seeds=1)
    assert {row.value for row in rows} == {1.0}


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = scored(CONTENT, tmp_path, clusters=3, n_init=2, seeds=2, seed=1)
    out, log = tmp_path / "again.csv", tmp_path / "log"
    given = [tmp_path / "coco" / "m.zarr", "--regions", tmp_path / "table.csv"]
    numbers = ["--clusters", "3", "--n-init", "2", "--seeds", "2", "--seed", "1", "--threads", "2"]
    command = ["run", "regions", *given, *numbers, "--out", out, "--log", log]
    assert main([str(a) for a in command]) == 0
    assert read_scores(out) == rows
    assert log.read_text("utf-8").splitlines() == caplog.messages
    assert main([str(a) for a in [*command, "--clusters", "999"]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vitfeat: error: ")
