from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitfeat.data.images import ImageError
from vitfeat.data.indexed import view_of
from vitfeat.data.loader import load_batches
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import SquareView, view_from
from vitfeat.errors import DataError


@pytest.mark.parametrize(
    "view", [SquareView((32, 32)), SquareView((28, 42), 0.75, "bilinear"), SquareView((7, 9), 1)]
)
def test_a_view_comes_back_from_its_description(view: SquareView) -> None:
    assert view_from(view.describe()) == view


def test_a_view_of_another_kind() -> None:
    with pytest.raises(
        DataError, match="view 'video': unknown, this vitfeat knows square, padded, dense, whole"
    ):
        view_from({"kind": "video"})


def test_one_image_is_what_the_extraction_gets(photos: Path) -> None:
    index = build_index(DatasetSpec(name="photos", layout="folder", root=photos))
    view = SquareView((16, 24))
    ((batch,),) = load_batches(index, photos, view, [range(6)], workers=0)
    for row in range(6):
        one = view_of(index.row(row), photos, view)
        np.testing.assert_array_equal(one, batch[row].numpy())
        np.testing.assert_array_equal(one, view(Image.open(photos / index.image_id[row])))


def test_a_file_of_the_same_size_with_other_bytes_is_another(photos: Path) -> None:
    index = build_index(DatasetSpec(name="photos", layout="folder", root=photos))
    path = photos / index.image_id[2]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ImageError, match=r"cat/c.png: the file has changed since it was indexed"):
        view_of(index.row(2), photos, SquareView((16, 16)))
