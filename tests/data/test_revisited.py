"""The layout of revisited Oxford and Paris: its images, boxes and grades, and its mistakes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import MakeTree, encode, noise
from vitfeat.cli import main
from vitfeat.data.annotations import RelevanceRow
from vitfeat.data.folders import Tally
from vitfeat.data.index import Index
from vitfeat.data.listing import Candidate
from vitfeat.data.revisited import find, read_annotations, relevance
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError

DATABASE = ["z_1", "b_1", "a-1", "a_1", "c 1"]
QUERIES = ["q_2", "a_0"]


def gnd(**changes: Any) -> dict[str, Any]:
    """The annotations of two queries, of which the second has nothing but junk."""
    first = {
        "easy": np.array([2, 0]),
        "hard": np.array([1]),
        "junk": np.array([], dtype=np.int64),
        "bbx": [2.5, 1.0, 20.0, 18.4],
    }
    second = {
        "easy": [],
        "hard": np.array([]),
        "junk": np.array([[4, 3]]),
        "bbx": np.array([[0.0, 0.0, 30.0, 10.0]]),
    }
    return {"imlist": DATABASE, "qimlist": QUERIES, "gnd": [first | changes, second]}


@pytest.fixture
def dataset(tree: MakeTree) -> Any:
    """Write the dataset, or what it shall be instead."""

    def make(
        content: Any = None, *, protocol: int = 2, name: str = "gnd_roxford5k.pkl", **more: Any
    ) -> DatasetSpec:
        data = content if isinstance(content, bytes) else pickle.dumps(content or gnd(), protocol)
        images = [f"jpg/{n}.jpg" for n in (*DATABASE, *QUERIES)]
        contents = {n: encode(noise(i), "JPEG") for i, n in enumerate(images)}
        root = tree(contents={name: data, **contents})
        return DatasetSpec(name="paris", layout="revisited", root=root, **more)

    return make


def indexed(spec: DatasetSpec, **more: Any) -> Index:
    return build_index(spec, **more)


def test_images_are_sorted_by_name_and_queries_have_their_boxes(dataset: Any) -> None:
    spec = dataset()
    listing = find(spec, Tally())
    assert not listing.has_labels
    assert list(listing.candidates) == [
        Candidate("jpg/a-1.jpg", -1, ""),
        Candidate("jpg/a_0.jpg", -1, "", (0.0, 0.0, 30.0, 10.0)),
        Candidate("jpg/a_1.jpg", -1, ""),
        Candidate("jpg/b_1.jpg", -1, ""),
        Candidate("jpg/c 1.jpg", -1, ""),
        Candidate("jpg/q_2.jpg", -1, "", (2.5, 1.0, 20.0, 18.4)),
        Candidate("jpg/z_1.jpg", -1, ""),
    ]


def test_whole_queries_have_no_box(dataset: Any) -> None:
    listing = find(dataset(query_crop="whole"), Tally())
    assert {candidate.crop for candidate in listing.candidates} == {None}


def test_the_index_keeps_boxes_within_the_images(dataset: Any) -> None:
    index = indexed(dataset())
    boxes = dict(zip(index.image_id, index.crop, strict=True))
    # The images have 24 x 20 pixels.
    assert boxes.pop("jpg/a_0.jpg") == (0.0, 0.0, 24.0, 10.0)
    assert boxes.pop("jpg/q_2.jpg") == (2.5, 1.0, 20.0, 18.4)
    assert set(boxes.values()) == {None}


def test_boxes_that_are_cut_at_the_border_are_counted(dataset: Any) -> None:
    """Up to a pixel is rounding; that of a_0 reaches six pixels out."""
    (note,) = indexed(dataset()).notes
    assert note == (
        "1 image whose box reaches beyond the image, cut at its border; first jpg/a_0.jpg"
    )
    spec = dataset(gnd(bbx=[-0.9, 0, 24.9, 20.5]))
    assert indexed(spec).notes == [note]


def test_a_box_of_an_image_that_exif_turns_is_refused(dataset: Any) -> None:
    spec = dataset(orientation="exif")
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("q_2", "b_1"):
        (spec.root / f"jpg/{name}.jpg").write_bytes(encode(noise(7), "JPEG", exif=exif))
    said = (
        r"jpg/q_2\.jpg is turned by its EXIF orientation 3, and its box does not say .* set "
        r"datasets\.paris\.orientation: stored, or query_crop: whole$"
    )
    with pytest.raises(DataError, match=said):
        indexed(spec)
    whole = dataset(orientation="exif", query_crop="whole")
    assert indexed(whole).orientation.tolist() == [1] * 7
    for name in ("q_2", "b_1"):
        (spec.root / f"jpg/{name}.jpg").write_bytes(encode(noise(7), "JPEG", exif=exif))
    assert indexed(whole).orientation.tolist() == [1, 1, 1, 3, 1, 3, 1]
    settings = ["p", "--layout", "revisited", "--root", str(spec.root), "--orientation", "exif"]
    settings += ["--query-crop", "whole"]
    index, out = spec.root.parent / "p.csv", spec.root.parent / "relevance" / "p.csv"
    assert main(["index", *settings, "--out", str(index)]) == 0
    assert main(["annotations", *settings, "--index", str(index), "--out", str(out)]) == 0
    # Nothing in it has a place in an image that could be of the other orientation.
    assert out.with_name("p.notes.txt").read_text() == ""


@pytest.mark.parametrize("protocol", range(6))
def test_relevance_is_by_name(dataset: Any, protocol: int) -> None:
    spec = dataset(protocol=protocol)
    rows = relevance(spec, indexed(spec), [])
    assert rows == [
        RelevanceRow("jpg/q_2.jpg", "jpg/a-1.jpg", "easy"),
        RelevanceRow("jpg/q_2.jpg", "jpg/z_1.jpg", "easy"),
        RelevanceRow("jpg/q_2.jpg", "jpg/b_1.jpg", "hard"),
        RelevanceRow("jpg/a_0.jpg", "jpg/c 1.jpg", "junk"),
        RelevanceRow("jpg/a_0.jpg", "jpg/a_1.jpg", "junk"),
    ]


def test_names_may_be_an_array(dataset: Any) -> None:
    spec = dataset(gnd() | {"imlist": np.array(DATABASE), "qimlist": tuple(QUERIES)})
    assert read_annotations(spec).database == DATABASE


def test_what_the_index_lacks_is_left_out(dataset: Any) -> None:
    spec = dataset(limit=3)
    # The first three: a-1, a_0 (a query), a_1.
    assert relevance(spec, indexed(spec), []) == [
        RelevanceRow("jpg/a_0.jpg", "jpg/a_1.jpg", "junk")
    ]
    (spec.root / "jpg/c 1.jpg").write_bytes(b"")
    (spec.root / "jpg/a_1.jpg").write_bytes(b"")
    spec = DatasetSpec(name="paris", layout="revisited", root=spec.root, on_error="skip")
    rows = relevance(spec, indexed(spec), [])
    assert rows[-1] == RelevanceRow("jpg/a_0.jpg", "", "")
    assert len(rows) == 4


def test_an_index_needs_a_query_and_a_database_image(dataset: Any) -> None:
    spec = dataset(limit=1)
    with pytest.raises(DataError, match="its index has none of the queries, 1 image of 7; take m"):
        relevance(spec, indexed(spec), [])
    spec = dataset(limit=2)
    assert relevance(spec, indexed(spec), []) == [RelevanceRow("jpg/a_0.jpg", "", "")]


def test_an_index_of_queries_alone_is_no_use(dataset: Any) -> None:
    spec = dataset()
    for name in DATABASE:
        (spec.root / f"jpg/{name}.jpg").write_bytes(b"")
    spec = DatasetSpec(name="paris", layout="revisited", root=spec.root, on_error="skip")
    with pytest.raises(DataError, match="its index has queries alone, 2 images of 7"):
        relevance(spec, indexed(spec), [])


def test_other_files_are_told(dataset: Any) -> None:
    spec = dataset()
    (spec.root / "jpg/other.jpg").write_bytes(encode(noise(9)))
    (spec.root / "jpg/a_1.png").write_bytes(encode(noise(9)))
    (spec.root / "jpg/readme.txt").write_text("")
    tally = Tally()
    find(spec, tally)
    assert list(tally.notes()) == [
        "1 file ignored, not an image by the extension",
        "2 images ignored, in no list of the annotations",
    ]


def test_images_may_be_links(dataset: Any, tmp_path: Path) -> None:
    spec = dataset()
    image = spec.root / "jpg/b_1.jpg"
    image.rename(tmp_path / "elsewhere.jpg")
    image.symlink_to(tmp_path / "elsewhere.jpg")
    assert len(indexed(spec)) == 7


def test_missing_pieces(dataset: Any, tmp_path: Path) -> None:
    def message(spec: DatasetSpec) -> str:
        with pytest.raises(DataError) as caught:
            find(spec, Tally())
        assert "\n" not in str(caught.value)
        return str(caught.value)

    spec = dataset()
    root = spec.root
    absent = DatasetSpec(name="paris", layout="revisited", root=tmp_path / "absent")
    assert message(absent).endswith("does not exist; set datasets.paris.root")
    for name in ("z_1", "q_2"):
        (root / f"jpg/{name}.jpg").unlink()
    assert message(spec) == (
        f"dataset paris: 2 of 7 images that gnd_roxford5k.pkl names missing in {root}/jpg, first "
        "q_2.jpg; put all of them there"
    )
    (root / "jpg").rename(root / "images")
    assert f"no folder jpg in {root}; put the images there" in message(spec)
    (root / "gnd_rparis6k.pkl").write_bytes(b"")
    several = f"several files gnd_*.pkl in {root} (gnd_roxford5k.pkl, gnd_rparis6k.pkl); put"
    assert several in message(spec)
    for path in root.glob("*.pkl"):
        path.unlink()
    assert message(spec) == (
        f"dataset paris: no gnd_*.pkl in {root}; put gnd_roxford5k.pkl or gnd_rparis6k.pkl there, "
        "and no other, or set datasets.paris.root"
    )


def without(key: str) -> dict[str, Any]:
    content = gnd()
    del content["gnd"][0][key]
    return content


ORIGINAL = gnd() | {"gnd": [{"ok": [0], "junk": [], "bbx": [0, 0, 1, 1]}] * 2}

WRONG: list[tuple[Any, str]] = [
    (["a"], "holds no dict with imlist, qimlist and gnd"),
    ({"imlist": DATABASE}, "qimlist must be a list of names"),
    (gnd() | {"imlist": []}, "imlist must be a list of names"),
    (gnd() | {"imlist": "abc"}, "imlist must be a list of names"),
    (gnd() | {"imlist": {0: "a"}}, "imlist must be a list of names"),
    (gnd() | {"imlist": ["a", 1]}, "imlist holds int, which is no name of an image"),
    (gnd() | {"imlist": ["a", b"b"]}, "imlist holds bytes, which is no name"),
    (gnd() | {"imlist": ["../a"]}, r"imlist holds '\.\./a', which is no name of an image in jpg"),
    (gnd() | {"imlist": ["/etc/passwd"]}, "imlist holds '/etc/passwd', which is no name"),
    (gnd() | {"imlist": ["a/../b"]}, "which is no name of an image in jpg"),
    (gnd() | {"imlist": [".."]}, "which is no name of an image in jpg"),
    (gnd() | {"imlist": [""]}, "which is no name of an image in jpg"),
    (gnd() | {"imlist": ["a\0"]}, "which is no name of an image in jpg"),
    (gnd() | {"imlist": ["a\\b"]}, "which is no name of an image in jpg"),
    (gnd() | {"qimlist": ["\ud800", "b"]}, "which is no name of an image in jpg"),
    (gnd() | {"imlist": [*DATABASE, "b_1"]}, "b_1 stands in imlist twice"),
    (gnd() | {"qimlist": ["q_2", "q_2"]}, "q_2 stands in qimlist twice"),
    (gnd() | {"qimlist": ["q_2", "b_1"]}, "1 name in both imlist and qimlist, first b_1"),
    (gnd() | {"gnd": None}, "gnd must be a list of an entry for each query"),
    (gnd() | {"gnd": gnd()["gnd"][:1]}, "gnd must be a list of an entry for each query"),
    (gnd() | {"gnd": [1, 2]}, r"gnd of q_2: no dict with easy, hard, junk and bbx"),
    (ORIGINAL, "is graded ok, so these are the original annotations"),
    (without("junk"), "gnd of q_2: junk must be a list of places"),
    (without("bbx"), "gnd of q_2: bbx must be four numbers"),
    (gnd(easy=[5]), "gnd of q_2: easy holds a place outside imlist, which has 5 images, from 0"),
    (gnd(easy=[-1]), "easy holds a place outside imlist"),
    (gnd(easy=[10**5000]), "easy holds a place outside imlist"),
    (gnd(easy=[1.0]), "easy must be a list of places in imlist"),
    (gnd(easy=np.array([1.0])), "easy must be a list of places in imlist"),
    (gnd(easy=[True]), "easy must be a list of places in imlist"),
    (gnd(easy=np.array([True])), "easy must be a list of places in imlist"),
    (gnd(easy=["b_1"]), "easy must be a list of places in imlist"),
    (gnd(easy=3), "easy must be a list of places in imlist"),
    (gnd(hard=[2]), "the image at place 2 of imlist is easy and hard; it can be one, once"),
    (gnd(junk=[3, 3]), "the image at place 3 of imlist is junk and junk"),
    (gnd(bbx=[1, 2, 3]), "bbx must be four numbers"),
    (gnd(bbx=[5, 2, 5, 4]), "bbx must be four numbers"),
    (gnd(bbx=[5, 2, 3, 4]), "bbx must be four numbers"),
    (gnd(bbx=[0, 0, float("nan"), 4]), "bbx must be four numbers"),
    (gnd(bbx=[0, 0, float("inf"), 4]), "bbx must be four numbers"),
    (gnd(bbx=["0", "0", "4", "4"]), "bbx must be four numbers"),
    (gnd(bbx=None), "bbx must be four numbers"),
    (pickle.dumps(os.getcwd), r"names posix\.getcwd"),
    (b"", "no pickle or a damaged one"),
]


@pytest.mark.parametrize(("content", "problem"), WRONG)
def test_wrong_annotations_are_told_in_one_line(dataset: Any, content: Any, problem: str) -> None:
    spec = dataset(content, protocol=4)
    with pytest.raises(DataError, match=problem) as caught:
        find(spec, Tally())
    assert "\n" not in str(caught.value)
    assert str(spec.root) in str(caught.value)


def test_a_box_outside_the_image_is_told(dataset: Any) -> None:
    with pytest.raises(DataError, match=r"jpg/q_2\.jpg: the box .* holds no pixel of the image"):
        indexed(dataset(gnd(bbx=[40, 0, 50, 10])))
