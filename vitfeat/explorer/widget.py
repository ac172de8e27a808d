"""The explorer in a notebook: a widget whose data come over its own messages."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from vitfeat.errors import DataError, VitfeatError
from vitfeat.explorer.catalog import Results
from vitfeat.explorer.content import PAGE, Content
from vitfeat.store.opening import open_store
from vitfeat.store.reader import FeatureStore

TABS = ("images", "patches", "attention", "points")


def widget(
    *stores: FeatureStore | str | PathLike[str],
    images: str | PathLike[str] | None = None,
    height: int = 640,
) -> Any:
    """Show stores in a notebook: images, similarity of patches, attention, points.

    Parameters
    ----------
    stores
        Stores of the same images, or their paths: several models stand side by side.
    images
        The folder of the images. Without it there are maps, and no pictures.
    height
        Of the widget, in pixels.

    Returns
    -------
    anywidget.AnyWidget
        Shown where a cell ends with it, or by ``display``.

    Raises
    ------
    DataError
        No store is given, one is behind a URL, an image is not there, or anywidget is not
        installed.

    Examples
    --------
    >>> vitfeat.widget("dino.zarr", "mae.zarr", images="photos/")  # doctest: +SKIP
    """
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise DataError(
            "widgets need anywidget: pip install 'vitfeat[notebook]', or use `vitfeat explore`"
        ) from error
    if not stores:
        raise DataError("no store is given: widget(store), or paths of stores")
    opened = [s if isinstance(s, FeatureStore) else open_store(s) for s in stores]
    content = Content(Results.of_stores(opened, None if images is None else Path(images)))
    content.told = {"tabs": TABS}

    class Explorer(anywidget.AnyWidget):
        _esm = PAGE.joinpath("app.js").read_text("utf-8")
        height = traitlets.Int().tag(sync=True)

        def __init__(self, **traits: Any) -> None:
            super().__init__(**traits)
            self.on_msg(self.heard)

        def heard(self, _: Any, message: dict[str, Any], __: Any) -> None:
            self.answer(message)

        def answer(self, message: dict[str, Any]) -> None:
            """Send what a path holds, or some of it."""
            reply = {"id": message.get("id")}
            try:
                held = content.read(str(message["path"]))
                part = slice(*message.get("part") or (None, None)).indices(held.size)
                self.send(reply, buffers=[held.part(*part[:2])])
            except (VitfeatError, OSError) as error:
                self.send({**reply, "error": str(error)})

    return Explorer(height=height)
