"""The embedded landmarks: the layout reads them, and they are what they are said to be."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitfeat.analyses.retrieval.compute import evaluate, similarities
from vitfeat.data import revisited as layout
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.demo import datasets
from vitfeat.demo.datasets.revisited import N_LANDMARKS
from vitfeat.errors import DataError


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    root = tmp_path_factory.mktemp("landmarks")
    datasets.write("revisited", root)
    return DatasetSpec(name="demo", layout="revisited", root=root)


@pytest.fixture(scope="module")
def annotations(spec: DatasetSpec) -> layout.Annotations:
    return layout.read_annotations(spec)


@pytest.fixture(scope="module")
def index(spec: DatasetSpec) -> Index:
    return build_index(spec)


def picture(spec: DatasetSpec, name: str) -> Image.Image:
    return Image.open(spec.root / layout.image_id(name))


def test_the_layout_reads_it(
    spec: DatasetSpec, annotations: layout.Annotations, index: Index
) -> None:
    assert len(annotations.queries) == N_LANDMARKS == 10
    assert 80 <= len(annotations.database) <= 100
    assert len(index) == len(annotations.database) + N_LANDMARKS
    assert sum(crop is not None for crop in index.crop) == N_LANDMARKS
    assert len(set(index.sha256)) == len(index)
    assert len(layout.relevance(spec, index, [])) == 68


def test_it_is_what_pythons_own_pickle_reads(
    spec: DatasetSpec, annotations: layout.Annotations
) -> None:
    content = pickle.loads((spec.root / "gnd_roxford5k.pkl").read_bytes())
    assert content["imlist"] == annotations.database
    assert content["qimlist"] == [query.name for query in annotations.queries]
    for entry, query in zip(content["gnd"], annotations.queries, strict=True):
        assert sorted(entry) == ["bbx", "easy", "hard", "junk"]
        assert tuple(entry["bbx"]) == query.box
        assert {grade: entry[grade].tolist() for grade in layout.GRADES} == query.graded


def test_one_query_has_no_hard_images(annotations: layout.Annotations) -> None:
    hard = [len(query.graded["hard"]) for query in annotations.queries]
    assert sorted(hard) == [0] + [3] * 9
    assert all(len(query.graded["easy"]) >= 3 for query in annotations.queries)
    assert all(len(query.graded["junk"]) == 1 for query in annotations.queries)
    graded = [place for query in annotations.queries for g in query.graded.values() for place in g]
    assert len(graded) == len(set(graded)) == len(annotations.database) - 20


def test_images_have_several_aspects_and_boxes_lie_within(
    spec: DatasetSpec, annotations: layout.Annotations
) -> None:
    sizes = {picture(spec, name).size for name in annotations.database}
    assert len(sizes) == 5
    assert {width > height for width, height in sizes} == {True, False}
    for query in annotations.queries:
        image = picture(spec, query.name)
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        left, top, right, bottom = query.box
        assert 0 <= left < right <= image.width
        assert 0 <= top < bottom <= image.height
        # The landmark is a part of the picture, and not a small one.
        assert 0.1 < (right - left) * (bottom - top) / (image.width * image.height) < 0.6


def pixels(image: Image.Image) -> np.ndarray:
    values = np.asarray(image.convert("L").resize((8, 8)), dtype=float).ravel()
    return values - values.mean()


def test_the_box_matters_and_hard_is_harder(
    spec: DatasetSpec, annotations: layout.Annotations
) -> None:
    """Even small pictures compared pixel by pixel find more than chance, in this order."""
    database = np.stack([pixels(picture(spec, name)) for name in annotations.database])
    graded = [
        {grade: np.array(places, dtype=np.int64) for grade, places in query.graded.items()}
        for query in annotations.queries
    ]
    found = {}
    for kind in ("box", "whole"):
        queries = np.stack(
            [
                pixels(image.crop(query.box) if kind == "box" else image)
                for query in annotations.queries
                for image in [picture(spec, query.name)]
            ]
        )
        scores = evaluate(similarities(queries, [database], len(database)), graded, [])
        found[kind] = {name: one.average_precision.mean() for name, one in scores.items()}
    assert found["box"]["easy"] > 0.3
    assert found["box"]["easy"] > found["box"]["hard"] + 0.15
    assert found["box"]["easy"] > found["whole"]["easy"] + 0.1


def test_the_landmark_fades_from_grade_to_grade(
    spec: DatasetSpec, annotations: layout.Annotations
) -> None:
    likeness: dict[str, list[float]] = {grade: [] for grade in layout.GRADES}
    for query in annotations.queries:
        wanted = pixels(picture(spec, query.name).crop(query.box))
        for grade, places in query.graded.items():
            for place in places:
                other = pixels(picture(spec, annotations.database[place]))
                cosine = wanted @ other / np.linalg.norm(wanted) / np.linalg.norm(other)
                likeness[grade].append(float(cosine))
    easy, hard, junk = (float(np.mean(likeness[grade])) for grade in layout.GRADES)
    assert easy > hard + 0.15
    assert hard > junk


def test_writing_is_deterministic(spec: DatasetSpec, tmp_path: Path) -> None:
    datasets.write("revisited", tmp_path)

    def tree(root: Path) -> dict[str, str]:
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*.*"))
        }

    assert tree(tmp_path) == tree(spec.root)


def test_unwritable_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the demo's revisited"):
        datasets.write("revisited", tmp_path / "file")
