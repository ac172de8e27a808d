"""HEIC and other images that Pillow does not read by itself: named, counted, read if possible."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.pictures import MakeTree, noise
from vitfeat.data import images
from vitfeat.data.images import facts_of, image_extensions, reader_of
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import DataError

# How such files begin; nothing more is looked at.
HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(80)
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf" + bytes(80)


def index_of(root: Path, layout: str = "flat", **settings: Any) -> Index:
    return build_index(DatasetSpec(name="d", layout=layout, root=root, **settings))


needs_none = pytest.mark.skipif(
    ".heic" in image_extensions(), reason="pillow-heif is installed here, and reads HEIC"
)


@needs_none
@pytest.mark.parametrize("name", ["IMG_1.HEIC", "a.heif", "sub/b.hif"])
@pytest.mark.parametrize("layout", ["flat", "folder"])
def test_a_folder_of_heic_alone_names_the_package(tree: MakeTree, name: str, layout: str) -> None:
    root = tree(contents={f"x/{name}": HEIC, f"x/2{Path(name).suffix}": HEIC})
    said = rf"2 files ending in {Path(name).suffix.lower()} ignored, which are read by the package "
    with pytest.raises(
        DataError, match=rf"no images in .*{said}pillow-heif \(pip install"
    ) as error:
        index_of(root, layout)
    assert len(str(error.value)) < 400


@needs_none
def test_heic_beside_other_images_is_counted_by_itself(tree: MakeTree) -> None:
    contents = {"IMG_1.HEIC": HEIC, "IMG_1.MOV": b"x", "b.heic": HEIC, "c.jxl": b"x", "d.CR2": b"x"}
    assert index_of(tree("a.png", contents=contents)).notes == [
        "1 file ignored, not an image by the extension",
        "1 file ending in .cr2 ignored, which are read by raw converters: save them as JPEG or PNG",
        "2 files ending in .heic ignored, which are read by the package pillow-heif (pip install "
        "pillow-heif)",
        "1 file ending in .jxl ignored, which are read by other programs: save them as JPEG or PNG",
    ]


@needs_none
def test_heic_under_another_name_or_in_a_list_names_the_package(tree: MakeTree) -> None:
    root = tree("a.png", contents={"IMG_1.jpg": HEIC, "b.heic": HEIC})
    said = (
        r"in the format HEIC, which is read by the package pillow-heif \(pip install pillow-heif\)"
    )
    with pytest.raises(DataError, match=rf"IMG_1\.jpg: .*{said}"):
        index_of(root)
    (root.parent / "list.txt").write_text("b.heic\n")
    with pytest.raises(DataError, match=rf"b\.heic: .*{said}"):
        index_of(root, "list", list=root.parent / "list.txt")
    skipped = index_of(root, on_error="skip").skipped
    assert [name for name, _ in skipped] == ["IMG_1.jpg"]


def test_avif_that_this_pillow_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "image_extensions", lambda: frozenset({".png"}))
    monkeypatch.setattr(images, "_formats", lambda: ("PNG",))
    assert reader_of(".AVIF") == "Pillow 11.3 or later"
    assert (reader_of(".png"), reader_of(".mov"), reader_of("")) == (None, None, None)
    with pytest.raises(
        DataError, match=r"x: .* format AVIF, which is read by Pillow 11\.3 or later"
    ):
        facts_of(AVIF, "x")


def test_damaged_images_of_formats_that_are_read_stay_damaged() -> None:
    if ".avif" in image_extensions():
        with pytest.raises(DataError, match=r"x: (not an image|damaged)"):
            facts_of(AVIF, "x")


STAND_IN = """
from PIL import Image, PngImagePlugin

class Heif(PngImagePlugin.PngImageFile):
    format = "HEIF"

    def _open(self):
        self.fp.seek(12)
        self.fp = __import__("io").BytesIO(self.fp.read())
        super()._open()

def register_heif_opener():
    Image.register_open("HEIF", Heif, lambda start: start[4:12] == b"ftypheic")
    Image.register_extensions("HEIF", [".heic", ".heif"])
"""

READ = """
import sys
from pathlib import Path
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec

if __name__ == "__main__":
    assert "pillow_heif" not in sys.modules
    spec = DatasetSpec(name="d", layout="flat", root=Path(sys.argv[1]), on_error="skip")
    for workers in (1, 2):
        index = build_index(spec, workers=workers)
        print(index.image_id, index.width.tolist(), index.skipped)
"""


def test_heic_is_read_where_the_package_is_installed_also_in_workers(
    tree: MakeTree, tmp_path: Path
) -> None:
    """With a stand-in of the package, whose HEIC is a PNG behind the box that is looked at."""
    root = tree("a.png")
    data = (root / "a.png").read_bytes()
    (root / "IMG_1.HEIC").write_bytes(b"\0\0\0\x1cftypheic" + data)
    (tmp_path / "pillow_heif.py").write_text(STAND_IN)
    (tmp_path / "read.py").write_text(READ)
    found = subprocess.run(
        [sys.executable, tmp_path / "read.py", root],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
    )
    assert found.stdout.splitlines() == ["['IMG_1.HEIC', 'a.png'] [24, 24] []"] * 2


def test_heic_by_the_real_package_is_turned_by_its_decoder() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(noise(1, 32, 24)).save(buffer)
    facts = facts_of(buffer.getvalue(), "x", decode=True)
    assert (facts.width, facts.height, facts.orientation) == (32, 24, 1)
