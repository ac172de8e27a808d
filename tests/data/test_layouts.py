from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.data.pictures import MakeTree, encode, noise
from vitfeat.data.folders import Tally
from vitfeat.data.index import Index
from vitfeat.data.layouts import IMAGENET50, find
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import ConfigError, DataError


def index_of(root: Path, layout: str, **settings: Any) -> Index:
    return build_index(DatasetSpec(name="d", layout=layout, root=root, **settings))


def rows(index: Index) -> list[tuple[str, int, str]]:
    return list(zip(index.image_id, index.label.tolist(), index.class_name, strict=True))


def test_folder(tree: MakeTree, caplog: pytest.LogCaptureFixture) -> None:
    root = tree("dog/2.png", "dog/10.png", "cat/sub/x.PNG", "cat/a.png", "cat/.hidden.png")
    (root / "cat" / "notes.txt").write_text("-")
    (root / ".git" / "x").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "beside.png").write_bytes(b"")
    assert rows(index_of(root, "folder")) == [
        ("cat/a.png", 0, "cat"),
        ("cat/sub/x.PNG", 0, "cat"),
        ("dog/10.png", 1, "dog"),
        ("dog/2.png", 1, "dog"),
    ]
    text = "\n".join(caplog.messages)
    assert "4 images, 2 classes" in text
    assert "1 file ignored" in text
    assert "1 image beside the class folders ignored" in text
    assert "class folder empty holds no images" in text


@pytest.mark.parametrize("layout", ["folder", "digits"])
def test_split(tree: MakeTree, layout: str) -> None:
    root = tree("train/b/1.png", "train/a/1.png", "test/a/2.png")
    assert rows(index_of(root, layout, split="train")) == [
        ("train/a/1.png", 0, "a"),
        ("train/b/1.png", 1, "b"),
    ]
    with pytest.raises(DataError, match=r"no split val in .*, which holds test, train"):
        index_of(root, layout, split="val")


def test_flat_is_sorted_by_the_parts_of_paths(tree: MakeTree) -> None:
    # As text "a-b.png" < "a/x.png" < "a.png"; by parts "a" < "a-b.png" < "a.png".
    root = tree("b.png", "a/x.png", "a-b.png", "a.png")
    index = index_of(root, "flat")
    assert index.image_id == ["a/x.png", "a-b.png", "a.png", "b.png"]
    assert (index.has_labels, index.n_classes, set(index.class_name)) == (False, 0, {""})


@pytest.mark.parametrize("layout", ["folder", "flat"])
def test_order_does_not_come_from_the_file_system(
    tree: MakeTree, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    root = tree("b/2.png", "b/1.png", "a/x/1.png", "a/0.png", "c/9.png")
    want = index_of(root, layout).image_id
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: Path) -> None:
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    assert index_of(root, layout).image_id == want == sorted(want, key=lambda i: i.split("/"))


def test_list_with_names_integers_and_none(tree: MakeTree, tmp_path: Path) -> None:
    root = tree("b.png", "a/x.png", "#c.png", contents={"odd": encode(noise(9))})
    list_file = tmp_path / "list.txt"

    def read(text: str) -> list[tuple[str, int, str]]:
        list_file.write_bytes(text.encode())
        return rows(index_of(root, "list", list=list_file))

    named = read("# comment\n\nb.png\tzebra\r\na/../a/x.png\tant\n./#c.png\tzebra")
    assert named == [("#c.png", 1, "zebra"), ("a/x.png", 0, "ant"), ("b.png", 1, "zebra")]
    assert read("b.png\t7\na/x.png\t03\n") == [("a/x.png", 3, "3"), ("b.png", 7, "7")]
    assert read("\ufeffodd\nb.png") == [("b.png", -1, ""), ("odd", -1, "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\n/etc/passwd\n", "line 2: /etc/passwd is not a path within"),
        ("../secret.png", "line 1: ../secret.png is not a path within"),
        ("x/../../secret.png", "line 1: .* is not a path within"),
        ("out/secret.png", "line 1: out/secret.png is not a path within"),
        ("..", "line 1: .. is not a path"),
        ("a\0.png", r"line 1: a\\x00.png is not a path"),
        ("a.png\n#\n./a.png", "line 3: ./a.png stands on line 1 already"),
        ("a.png\t1\nb.png\tcat", "line 2: a class name, but line 1 has an integer label"),
        ("a.png\t1\nb.png", "line 2: no label, but line 1 has an integer label"),
        ("a.png\t-1", "line 1: label -1 is below 0"),
        ("a.png\t", "line 1: expected one label"),
        ("a.png\t1\t2", "line 1: expected one label"),
        ("a.png\nb\udcff.png", "line 2: not valid UTF-8"),
        ("# nothing\n\n", "names no images"),
        ("gone.png", "gone.png: does not exist"),
    ],
)
def test_list_errors(tree: MakeTree, tmp_path: Path, text: str, message: str) -> None:
    root = tree("a.png", "b.png")
    (tmp_path / "secret.png").write_bytes(encode(noise(1)))
    (root / "out").symlink_to(tmp_path)
    list_file = tmp_path / "list.txt"
    list_file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        index_of(root, "list", list=list_file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        *(
            (f"a.png{separator}3", rf"a\.png does; a tab stands before the label, found {shown}$")
            for separator, shown in [
                *((" ", "1 space"), ("   ", "3 spaces"), (",", "','"), (" , ", "','")),
                *((";", "';'"), ("|", r"'\|'"), (":", "':'")),
            ]
        ),
        ("a.png golden retriever", r"a\.png does; a tab stands before the label, found 1 space"),
        ("my cat.png tabby cat", r"my cat\.png does; a tab stands before the label, found 1 space"),
        ('"a.png",3', r"a\.png does; a tab stands before the label, found ','"),
        (r"a.png\t3", r"a\.png does; a tab stands before the label, found '.*t'"),
        ("3 a.png", r"a\.png does; a line is the path, a tab and the label"),
        ("a.png \t3", r"'a\.png' does; write the path like that"),
        ('"a.png"\t3', r"'a\.png' does; write the path like that"),
        ("sub\\c.png\t3", r"'sub/c\.png' does; write the path like that"),
        ("a.png ", r"'a\.png' does; write the path like that"),
        ("3\ta.png", r"a\.png does; a line is the path, a tab and the label"),
        ("A.PNG\t3", r"'a\.png' does; letter case counts"),
        ("sub/C.png", r"'sub/c\.png' does; letter case counts"),
        ("data/a.png", r"'a\.png' does; paths are relative to the root"),
        ("caf\u00e9.png", "a file does whose name has its accents encoded otherwise"),
    ],
)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_label_behind_another_separator_than_a_tab(
    tree: MakeTree, tmp_path: Path, line: str, message: str, on_error: Any
) -> None:
    root = tree("a.png", "my cat.png", "sub/c.png", "cafe\u0301.png")
    list_file = tmp_path / "list.txt"
    list_file.write_text(f"# mine\n{line}\n", "utf-8")
    with pytest.raises(DataError, match=rf"line 2: .* does not exist, but {message}"):
        index_of(root, "list", list=list_file, on_error=on_error)


def test_names_with_separators_in_them_are_names(tree: MakeTree, tmp_path: Path) -> None:
    names = ["a b.png", "a,b.png", "a.png 3", "a;b|c:d.png"]
    root = tree("a.png", *names)
    list_file = tmp_path / "list.txt"
    list_file.write_text("".join(f"{name}\t1\n" for name in names))
    assert index_of(root, "list", list=list_file).image_id == sorted(names)
    # A missing file of such a name is missing, no more.
    list_file.write_text("b, c.png\na.png\n")
    index = index_of(root, "list", list=list_file, on_error="skip")
    assert index.skipped == [("b, c.png", "does not exist")]


def test_a_list_with_carriage_returns_alone(tree: MakeTree, tmp_path: Path) -> None:
    list_file = tmp_path / "list.txt"
    list_file.write_bytes(b"a.png\t1\rb.png\t2\r")
    with pytest.raises(DataError, match="in carriage returns alone, as on old Macs; save it"):
        index_of(tree("a.png", "b.png"), "list", list=list_file)


def test_list_that_cannot_be_read(tree: MakeTree, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt cannot be read: No such file"):
        index_of(tree("a.png"), "list", list=tmp_path / "none.txt")


def test_imagenet50(tree: MakeTree) -> None:
    assert len(set(IMAGENET50)) == 50
    assert list(IMAGENET50) == sorted(IMAGENET50)
    names = [f"{synset}/{k}.png" for synset in IMAGENET50 for k in range(3)]
    root = tree(*names, "n99999999/other.png")
    first = IMAGENET50[0]
    (root / first / "0.png").write_bytes(b"broken")
    index = index_of(root, "imagenet50", per_class=2, on_error="skip")
    assert len(index) == 100
    assert index.image_id[:2] == [f"{first}/1.png", f"{first}/2.png"]
    assert index.image_id[2:4] == [f"{IMAGENET50[1]}/0.png", f"{IMAGENET50[1]}/1.png"]
    assert index.label.tolist() == [label for label in range(50) for _ in range(2)]
    assert index.skipped == [(f"{first}/0.png", "not an image that Pillow can read")]

    last = root / IMAGENET50[-1]
    for path in list(last.iterdir()):
        path.unlink()
    with pytest.raises(DataError, match=f"class folder {last.name} .*holds no images"):
        index_of(root, "imagenet50", per_class=2, on_error="skip")
    last.rmdir()
    with pytest.raises(DataError, match=f"1 of the 50 class folders are missing.*{last.name}"):
        index_of(root, "imagenet50")


# --- folders that cannot be used ------------------------------------------------------------


@pytest.mark.parametrize("layout", ["folder", "flat", "imagenet50"])
def test_missing_folder_names_the_key(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataError, match=r"gone does not exist; set datasets\.d\.root"):
        index_of(tmp_path / "gone", layout)


def test_folders_without_images(tree: MakeTree, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in .* \(\.jpg, \.png, .*; expected images"):
        index_of(tmp_path, "flat")
    with pytest.raises(DataError, match=r"expected one subfolder a class"):
        index_of(tmp_path, "folder")
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"its 1 subfolders are the classes; set"):
        index_of(tmp_path, "folder")
    with pytest.raises(
        DataError, match=r"holds images but no subfolders.*datasets\.d\.layout: flat"
    ):
        index_of(tree("a.png"), "folder")


@pytest.mark.parametrize("other", ["cat.jpg", "cat.PNG"])
def test_image_and_mask_of_one_name(tree: MakeTree, other: str) -> None:
    root = tree("x/cat.png", f"x/{other}", "y/cat.gif")
    with pytest.raises(DataError, match=r"x/cat\.\w+ and x/cat\.\w+ have one name.*layout: list"):
        index_of(root, "flat")


@pytest.mark.parametrize("layout", ["flat", "folder"])
def test_of_images_of_one_name_the_photograph_is_used_with_skip(
    tree: MakeTree, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["x/IMG_1.webp", "x/IMG_1.jpg", "x/IMG_2.BMP", "x/IMG_2.JPG", "x/IMG_3.png", "x/a.gif"]
    root = tree(*names, "x/a.PNG", "x/a.png", "y/IMG_1.png")
    index = index_of(root, layout, on_error="skip")
    assert index.image_id == ["x/IMG_1.jpg", "x/IMG_2.JPG", "x/IMG_3.png", "x/a.PNG", "y/IMG_1.png"]
    assert index.skipped == [
        ("x/IMG_1.webp", "IMG_1.jpg is used, of the same name (its mask, or a copy?)"),
        ("x/IMG_2.BMP", "IMG_2.JPG is used, of the same name (its mask, or a copy?)"),
        ("x/a.gif", "a.PNG is used, of the same name (its mask, or a copy?)"),
        ("x/a.png", "a.PNG is used, of the same name (its mask, or a copy?)"),
    ]
    assert (
        "dataset d: 4 images skipped, named as another but for the ending, first x/IMG_1.webp: "
        "IMG_1.jpg is used, of the same name (its mask, or a copy?)"
    ) in caplog.messages
    # A list says itself what is meant.
    list_file = root.parent / "list.txt"
    list_file.write_text("x/IMG_1.webp\nx/IMG_1.jpg\n")
    assert len(index_of(root, "list", list=list_file)) == 2


def test_names_that_are_not_utf8(tree: MakeTree) -> None:
    root = tree("a/b.png")
    (root / "a" / "b.png").rename(root / "a" / os.fsdecode(b"b\xff.png"))
    with pytest.raises(DataError, match=r"b\\udcff\.png: the name is not valid UTF-8"):
        index_of(root, "flat")


def test_links(tree: MakeTree, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree("a/1.png", "b/2.png")
    outside = tmp_path / "outside.png"
    outside.write_bytes(encode(noise(7)))
    (root / "a" / "0.png").symlink_to(outside)
    (root / "a" / "gone.png").symlink_to(tmp_path / "gone")
    (root / "a" / "self.png").symlink_to("self.png")
    (root / "a" / "up").symlink_to("..")
    (root / "b" / "sub").mkdir()
    (root / "b" / "sub" / "round").symlink_to("..")
    for layout in ("folder", "flat"):
        index = index_of(root, layout, on_error="skip")
        assert index.image_id == ["a/0.png", "a/1.png", "b/2.png"]
        reasons = dict(index.skipped)
        assert reasons["a/gone.png"] == "a link to a file that does not exist"
        assert "cannot be read" in reasons["a/self.png"]
    assert "2 links to folders already visited not followed, first a/up" in "\n".join(
        caplog.messages
    )


def test_a_pipe_does_not_hang(tree: MakeTree) -> None:
    root = tree("a.png")
    os.mkfifo(root / "b.png")
    assert index_of(root, "flat", on_error="skip").skipped == [("b.png", "not a regular file")]


# --- settings -------------------------------------------------------------------------------


def test_from_config(tmp_path: Path) -> None:
    spec = DatasetSpec.from_config(
        "d", {"layout": "list", "root": str(tmp_path), "list": "~/l.txt", "split": None, "limit": 5}
    )
    assert spec == DatasetSpec(
        name="d", layout="list", root=tmp_path, list=Path("~/l.txt").expanduser(), limit=5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"layout": "foldr"},
            r"datasets\.d\.layout: found 'foldr' \(did you mean 'folder'\?\); allowed: folder, ",
        ),
        ({"layout": None}, r"datasets\.d\.layout: found None; allowed: folder"),
        ({"root": None}, r"datasets\.d\.root: found None \(null\); allowed: a path"),
        ({"root": 3}, r"datasets\.d\.root: found 3 .*; allowed: a path"),
        ({"limmit": 3}, r"datasets\.d: unknown key 'limmit' .*did you mean 'limit'"),
        ({"name": "x"}, r"datasets\.d: unknown key 'name'"),
        ({"limit": 0}, r"datasets\.d\.limit: found 0; allowed: a whole number, ≥ 1"),
        ({"limit": True}, r"datasets\.d\.limit: found True .*; allowed: a whole number"),
        ({"per_class": 1.5}, r"datasets\.d\.per_class: found 1\.5 .*; allowed: a whole number"),
        ({"on_error": "ignore"}, r"datasets\.d\.on_error: found 'ignore'; allowed: stop, skip"),
        ({"max_megapixels": 0}, r"datasets\.d\.max_megapixels: found 0; allowed: a number, > 0"),
        (
            {"max_megapixels": float("nan")},
            r"datasets\.d\.max_megapixels: found nan; .* finite",
        ),
        ({"split": "a/b"}, r"datasets\.d\.split: 'a/b'"),
        ({"split": ".."}, r"datasets\.d\.split"),
        ({"layout": "flat", "split": "a"}, r"datasets\.d\.split: the layout flat has no splits"),
        ({"layout": "digits"}, r"datasets\.d\.split: missing"),
        ({"list": "x"}, r"datasets\.d\.list: the layout folder reads no list"),
        ({"layout": "list"}, r"datasets\.d\.list: missing"),
    ],
)
def test_settings_that_are_refused(change: dict[str, Any], message: str) -> None:
    mapping = {"layout": "folder", "root": "somewhere"} | change
    with pytest.raises(ConfigError, match=message):
        DatasetSpec.from_config("d", mapping)


def test_a_setting_that_is_no_mapping() -> None:
    with pytest.raises(ConfigError, match=r"datasets\.d: found .folder. .*; allowed: a mapping"):
        DatasetSpec.from_config("d", "folder")  # type: ignore[arg-type]


def test_every_layout_says_whether_it_has_labels(tree: MakeTree, tmp_path: Path) -> None:
    names = [f"train/{synset}/1.png" for synset in IMAGENET50]
    root = tree(*names)
    list_file = tmp_path / "list.txt"
    for layout, want in [("folder", 1), ("digits", 1), ("imagenet50", 1), ("flat", 0), ("list", 0)]:
        split = None if layout in ("flat", "list") else "train"
        list_file.write_text(names[0])
        spec = DatasetSpec(
            name="d",
            layout=layout,
            root=root,
            split=split,
            list=list_file if layout == "list" else None,
        )
        assert find(spec, Tally()).has_labels is bool(want)
    list_file.write_text(f"{names[0]}\tcat")
    spec = DatasetSpec(name="d", layout="list", root=root, list=list_file)
    assert find(spec, Tally()).has_labels
