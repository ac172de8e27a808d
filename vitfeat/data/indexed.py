"""The images of an index, read one by one: each must still be the file that was indexed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitfeat.data.containers import bytes_of
from vitfeat.data.images import ImageError, rgb_from_bytes, turned
from vitfeat.data.index import Row, pixels_of
from vitfeat.data.views import View
from vitfeat.errors import DataError


def data_of(image: Row, root: Path) -> bytes:
    """Read an image's bytes, and check that they are those that were indexed; or ImageError."""
    data = bytes_of(root, image.image_id, image.place)
    if len(data) != image.n_bytes or hashlib.sha256(data).hexdigest() != image.sha256:
        raise ImageError(
            image.image_id,
            "the file has changed since it was indexed; run again, and the index is made anew",
        )
    return data


def rgb_of(image: Row, root: Path) -> Image.Image:
    """Read, check and decode all of an image, turned where the index says so.

    Raises ImageError where the file is gone, has changed since it was indexed, or does not decode.
    """
    data = data_of(image, root)
    # The index has vouched for the size, under the dataset's limits.
    megapixels = image.width * image.height / 1e6
    rgb = rgb_from_bytes(data, image.image_id, min_side=1, max_megapixels=megapixels)
    return turned(rgb, image.orientation)


def view_of(image: Row, root: Path, view: View) -> NDArray[np.uint8]:
    """Apply a view to the part of an image that is used; raises ImageError as :func:`rgb_of`.

    Returns uint8, shape (height, width, 3): what the model gets, before normalisation.
    """
    rgb = rgb_of(image, root)
    if image.crop is not None:
        rgb = rgb.crop(pixels_of(image.crop))
    try:
        return view(rgb)
    except DataError as error:
        raise ImageError(image.image_id, str(error)) from None
