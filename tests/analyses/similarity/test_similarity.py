"""Tables of similarity: layers, images, measures, intervals, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.analyses.similarity import reference_similarity as reference
from tests.conftest import MakeFile
from vitfeat.analyses.cka.compute import cka
from vitfeat.analyses.rows import SimilarityRow, read_similarity
from vitfeat.analyses.similarity import job
from vitfeat.analyses.similarity.job import write_similarity
from vitfeat.analyses.similarity.measures import NAMES
from vitfeat.analyses.similarity.settings import SimilaritySettings
from vitfeat.errors import AnalysisError
from vitfeat.numerics.gramfile import GramFile, GramMeta, write_left_out

Features = Callable[..., np.ndarray]


def similarity(a: GramFile, b: GramFile, **given: object) -> list[SimilarityRow]:
    return job.similarity(a, b, SimilaritySettings(**given))  # type: ignore[arg-type]


def by_cell(rows: list[SimilarityRow], measure: str) -> dict[tuple[int, int], SimilarityRow]:
    found = [row for row in rows if row.measure == measure]
    cells = {(row.layer_a, row.layer_b): row for row in found}
    assert len(cells) == len(found)
    return cells


def test_all_layers_are_compared_with_all(make_file: MakeFile, features: Features) -> None:
    left, right = [features(40, 6), features(40, 9)], [features(40, d) for d in (5, 8, 12)]
    a, b = make_file(left, "a", tokens="all"), make_file(right, "b", tokens="all")
    rows = similarity(a, b, layers="all", neighbours=5, variance=0.8, resamples=20, confidence=0.9)
    assert len(rows) == 5 * 6
    assert list(dict.fromkeys(row.measure for row in rows)) == list(NAMES)
    same = cka(a, b)
    for (i, j), row in by_cell(rows, "cka").items():
        assert row.value == pytest.approx(same[i, j], abs=1e-12)
        assert row[:4] == ("a", i, "b", j)
        assert (row.tokens, row.made_from_a, row.n_images) == ("all", "all", 40)
        assert (row.setting, row.confidence) == (None, 0.9)
        assert -1 <= row.low < row.value < row.high <= 1
    for (i, j), row in by_cell(rows, "mutual_knn").items():
        assert row.value == pytest.approx(reference.mutual_knn(left[i], right[j], 5))
        assert row.setting == 5
        assert row.low < row.value < row.high
    for (i, j), row in by_cell(rows, "svcca").items():
        assert row.value == pytest.approx(reference.svcca(left[i], right[j], 0.8), abs=1e-5)
        assert row.setting == 0.8
    for name in ("svcca", "procrustes"):
        assert all(np.isnan((row.low, row.high)).all() for row in by_cell(rows, name).values())


def test_the_last_layers_alone(make_file: MakeFile, features: Features) -> None:
    x, y = [features(30, 6) for _ in range(3)], [features(30, 6) for _ in range(2)]
    a, b = make_file(x, "a"), make_file(y, "b")
    (row,) = similarity(a, b, measures=["rsa"], resamples=0)
    assert (row.layer_a, row.layer_b) == (2, 1)
    assert row.value == pytest.approx(reference.rsa(x[2], y[1]), abs=1e-5)
    assert np.isnan((row.low, row.high)).all()


def test_some_images(make_file: MakeFile, features: Features) -> None:
    x, y = features(40, 6), features(40, 9)
    a, b = make_file([x], "a"), make_file([y], "b")
    images = [(2 * i + 1) * 40 // 20 for i in range(10)]
    rows = similarity(a, b, images=10, neighbours=3, resamples=0, measures=["cka", "mutual_knn"])
    assert [row.n_images for row in rows] == [10, 10]
    assert rows[0].value == pytest.approx(reference.cka(x[images], y[images]), abs=1e-5)
    assert rows[1].value == pytest.approx(reference.mutual_knn(x[images], y[images], 3))


def test_a_model_with_itself(make_file: MakeFile, features: Features) -> None:
    a = make_file([features(30, 6), features(30, 9)], "a")
    rows = similarity(a, GramFile(a.path), layers="all", neighbours=3, resamples=20, variance=0.5)
    for name in NAMES:
        cells = by_cell(rows, name)
        assert cells[0, 0].value == pytest.approx(1, abs=1e-9)
        assert cells[0, 1].value == pytest.approx(cells[1, 0].value, abs=1e-9)
        if name in ("cka", "rsa", "mutual_knn"):
            assert cells[1, 1].low == pytest.approx(1, abs=1e-9)
            assert cells[0, 1].low == pytest.approx(cells[1, 0].low, abs=1e-9)


def test_the_seed_gives_the_intervals(make_file: MakeFile, features: Features) -> None:
    a, b = make_file([features(30, 6)], "a"), make_file([features(30, 9)], "b")
    first, again, other = (
        similarity(a, b, measures=["cka"], resamples=30, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert first == again
    assert (first.value, first.confidence) == (other.value, other.confidence)
    assert first.low != other.low


def test_measures_come_in_the_order_they_are_asked_for(
    make_file: MakeFile, features: Features
) -> None:
    a, b = make_file([features(30, 6)], "a"), make_file([features(30, 9)], "b")
    names = ["svcca", "cka", "procrustes"]
    rows = similarity(a, b, measures=names, resamples=0, variance=0.5)
    assert [row.measure for row in rows] == names


def test_constant_layers_are_named(
    make_file: MakeFile, features: Features, caplog: pytest.LogCaptureFixture
) -> None:
    constant = np.full((30, 4), 2.5, dtype=np.float32)
    a = make_file([features(30, 6), constant], "a")
    b = make_file([constant, features(30, 9)], "b")
    rows = similarity(a, b, layers="all", neighbours=3, variance=0.5, resamples=20)
    for name in NAMES:
        cells = by_cell(rows, name)
        assert np.isfinite(cells[0, 1].value)
        for cell in ((0, 0), (1, 0), (1, 1)):
            assert np.isnan((cells[cell].value, cells[cell].low, cells[cell].high)).all()
    assert len(caplog.messages) == 8
    assert (
        sum("layer 1 of a (cls): its features do not tell the images" in x for x in caplog.messages)
        == 4
    )
    assert any(x.startswith("no procrustes and no svcca for layer 0 of b") for x in caplog.messages)


def test_too_many_directions_are_said_once(
    make_file: MakeFile, features: Features, caplog: pytest.LogCaptureFixture
) -> None:
    a = make_file([features(30, 4), features(30, 20)], "a")
    b = make_file([features(30, 20), features(30, 20)], "b")
    rows = similarity(a, b, measures=["svcca"], layers="all", variance=1, resamples=0)
    found = by_cell(rows, "svcca")
    assert np.isfinite([found[0, 0].value, found[0, 1].value]).all()
    assert np.isnan([found[1, 0].value, found[1, 1].value]).all()
    (line,) = caplog.messages
    assert line.startswith("no svcca for 2 of 4 pairs of layers of a and b (cls): ")
    assert "take more images or a smaller share" in line


def test_a_model_that_was_left_out(
    make_file: MakeFile, features: Features, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a = make_file([features(30, 6)], "a")
    path = tmp_path / "b.safetensors"
    write_left_out(path, 30, GramMeta("b", "d", "cls", "i", "f"))
    assert similarity(a, GramFile(path)) == []
    assert caplog.messages == ["no similarity of a and b (cls): no such tokens in b"]
    out = tmp_path / "pair.csv"
    write_similarity(a.path, path, out, SimilaritySettings())
    assert read_similarity(out) == []


def test_the_job_spreads_images_over_the_dataset(
    make_file: MakeFile, features: Features, tmp_path: Path
) -> None:
    x, y = features(41, 6), features(41, 9)
    a, b = make_file([x], "a"), make_file([y], "b")
    images = [(2 * i + 1) * 41 // 20 for i in range(10)]
    out = tmp_path / "pair.csv"
    asked = SimilaritySettings(measures=["cka"], images=10, resamples=20)
    write_similarity(a.path, b.path, out, asked)
    (row,) = read_similarity(out)
    assert row.n_images == 10
    assert row.value == pytest.approx(reference.cka(x[images], y[images]), abs=1e-5)
    asked = SimilaritySettings(measures=["cka"], images=41, resamples=0)
    write_similarity(a.path, b.path, out, asked)
    (row,) = read_similarity(out)
    assert row.n_images == 41
    assert row.value == pytest.approx(reference.cka(x, y), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resamples": 5, "measures": ["mutual_knn"]}, "5 resamples"),
        ({"neighbours": 10}, "10 neighbours of every image, and there are 6"),
        ({"measures": ["cka"]}, r"intervals of cka rest on halves of at least 4 .* has 7 in all"),
    ],
)
def test_what_cannot_be_done_is_said(
    settings: dict[str, object], message: str, make_file: MakeFile, features: Features
) -> None:
    a, b = make_file([features(7, 6)], "a"), make_file([features(7, 9)], "b")
    resamples = 20 if settings == {"measures": ["cka"]} else 0
    with pytest.raises(AnalysisError, match=message) as caught:
        similarity(a, b, **{"resamples": resamples, "neighbours": 3, **settings})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_too_few_images(make_file: MakeFile, features: Features) -> None:
    a = make_file([features(3, 6)], "a")
    with pytest.raises(AnalysisError, match=r"cka needs at least 4 images, .* has 3"):
        similarity(a, a, measures=["cka"], resamples=0)


def test_unlike_files_cannot_be_compared(make_file: MakeFile, features: Features) -> None:
    a = make_file([features(30, 6)], "a")
    for other, what in (
        (make_file([features(30, 6)], "b", image_fingerprint="j"), r"images \(i and j\)"),
        (make_file([features(30, 6)], "b", tokens="mean"), r"tokens \(cls and mean\)"),
        (make_file([features(29, 6)], "b"), r"numbers of images \(30 and 29\)"),
    ):
        with pytest.raises(AnalysisError, match=f"different {what}.*compute both anew"):
            similarity(a, other)


def test_gram_matrices_that_lost_a_number(make_file: MakeFile, features: Features) -> None:
    a = make_file([features(30, 6)], "a")
    data = bytearray(a.path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    a.path.write_bytes(data)
    with pytest.raises(AnalysisError, match=r"of a row is wrong\): delete it and run again"):
        similarity(GramFile(a.path), make_file([features(30, 6)], "b"), measures=["cka"])
