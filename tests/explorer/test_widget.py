"""The explorer in a notebook: data over the widget's messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("anywidget")

import vitfeat
from vitfeat.errors import DataError
from vitfeat.explorer.server import Server
from vitfeat.store.layout import shard_key

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class Told:
    """Hears what a widget sends."""

    def __init__(self, widget: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.widget = widget
        self.messages: list[tuple[dict[str, Any], list[bytes]]] = []
        monkeypatch.setattr(widget, "send", self.hear)

    def hear(self, message: dict[str, Any], buffers: Any = ()) -> None:
        self.messages.append((message, [bytes(b) for b in buffers]))

    def ask(self, path: str, part: list[int | None] | None = None) -> tuple[dict[str, Any], bytes]:
        self.widget.answer({"id": 7, "path": path, "part": part})
        message, buffers = self.messages.pop()
        assert message["id"] == 7
        return message, buffers[0] if buffers else b""


@pytest.fixture
def told(made: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    stores = [vitfeat.open(made / f"results/features/d/{model}.zarr") for model in "ab"]
    return Told(vitfeat.widget(*stores, images=made / "images"), monkeypatch)


def test_a_widget_sends_files_of_its_stores_and_parts_of_them(told: Told, made: Path) -> None:
    catalog = json.loads(told.ask("catalog.json")[1])
    # Both stores say that they are of the model `m`.
    assert [one["id"] for one in catalog["models"]] == ["m", "m-2"]
    assert catalog["tabs"] == ["images", "patches", "attention", "points"]
    shard = made / "results/features/d/b.zarr/spatial" / shard_key(0, 5)
    content = shard.read_bytes()
    path = f"features/images/m-2.zarr/spatial/{shard.name}"
    assert told.ask(path)[1] == content
    assert told.ask(path, [-20, None])[1] == content[-20:]
    assert told.ask(path, [3, 9])[1] == content[3:9]


def test_a_widget_has_pictures_of_the_folder_that_it_is_told(told: Told) -> None:
    assert told.ask("thumbnails/images/0.webp")[1][:4] == b"RIFF"
    assert told.ask("views/features/images/m/3.webp")[1][8:12] == b"WEBP"


def test_what_a_widget_does_not_have_is_an_error_of_one_line(told: Told, made: Path) -> None:
    for path in ("../images/x", "features/images/m.zarr/../a.json", "features/images/c.zarr/x"):
        message, content = told.ask(path)
        assert "no such" in message["error"]
        assert content == b""
    alone = vitfeat.open(made / "results/features/d/a.zarr").explore()
    assert alone.height == 640


def test_a_widget_without_stores_or_with_images_that_are_not_there_is_refused(
    made: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no store is given"):
        vitfeat.widget()
    with pytest.raises(DataError, match="images"):
        vitfeat.widget(made / "results/features/d/a.zarr", images=tmp_path)


@pytest.mark.browser
def test_a_widget_shows_patches_and_leaves_the_notebooks_page_alone(
    browser: Browser, served: Server, told: Told, made: Path
) -> None:
    """As anywidget does it: the module's `render`, with a model that speaks to Python."""
    from playwright.sync_api import expect

    from tests.explorer.test_views import assert_drawn

    context = browser.new_context()
    page = context.new_page()

    def answer(message: dict[str, Any]) -> Any:
        reply, content = told.widget.answer(message), b""
        reply, buffers = told.messages.pop()
        content = buffers[0] if buffers else b""
        return [reply, list(content)]

    page.expose_function("ask", answer)
    page.goto(served.link + "catalog.json")
    address = page.url
    page.evaluate(
        """async () => {
        const heard = [];
        const model = {
            get: () => 500,
            on: (_, f) => heard.push(f),
            send: async (message) => {
                const [reply, bytes] = await ask(message);
                heard.forEach(f => f(reply, [new DataView(Uint8Array.from(bytes).buffer)]));
            },
        };
        const module = await import("./app.js");
        document.body.replaceChildren();
        module.default.render({ model, el: document.body });
    }"""
    )
    canvas = page.locator("article[data-model='m-2'] .map canvas").first
    canvas.wait_for()
    page.get_by_label("Images beside").fill("0")
    tokens = np.asarray(
        vitfeat.open(made / "results/features/d/b.zarr")["spatial"][0, 2], dtype=np.float64
    )
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    wanted = unit @ unit[1, 1]
    assert_drawn(canvas, wanted, wanted.min(), 1.0)
    page.get_by_role("button", name="Attention").click()
    page.get_by_role("button", name="CLS").click()
    expect(page.locator(".heads figure")).to_have_count(4)
    assert page.get_by_role("button", name="Scores").count() == 0
    assert page.url == address
    context.close()
