"""The explorer in Chromium: its first picture and map, another patch, another layer, its size, its memory.

python -m benchmarks.explorer [--images 5000] [--steps 500] [--rounds 5] [--folder FOLDER]

Needs playwright and Debian's chromium. The store is a ViT-B/16's of noise, cls, spatial and attention_summary in
all layers; images beyond those that are stepped through hold zeros, so that it takes 4 GB and not 20.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, CDPSession, Page

import vitfeat
from benchmarks.timing import machine
from tests.explorer.browser import chromium
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.explorer.catalog import Results
from vitfeat.explorer.content import PAGE, PAGE_FILES, Content
from vitfeat.explorer.server import Server
from vitfeat.store.arrays import Geometry
from vitfeat.store.create import Rows
from vitfeat.store.layout import plan_layout
from vitfeat.store.writer import open_writer

GEOMETRY = Geometry(
    layers=tuple(range(12)), width=768, heads=12, grid=(14, 14), has_cls=True, n_registers=0
)
TAPS = ("cls", "spatial", "attention_summary")
MODEL = "noise"


def make(folder: Path, images: int, seen: int) -> None:
    """Write images, their index and a store."""
    generator = np.random.default_rng(0)
    pictures = []
    for number in range(50):
        coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        path = folder / f"picture-{number}.jpg"
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
        pictures.append(path)
    for number in range(images):
        path = folder / "images" / f"class {number * 50 // images:02d}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(pictures[number % len(pictures)])
    index = build_index(DatasetSpec(name="photos", layout="folder", root=folder / "images"))
    (folder / "results" / "datasets").mkdir(parents=True)
    index.write(folder / "results" / "datasets" / "photos.csv")
    _write_store(folder / "results" / "features" / "photos" / f"{MODEL}.zarr", index, seen)


def _write_store(path: Path, index: Index, seen: int) -> None:
    generator = np.random.default_rng(0)
    layout = plan_layout(GEOMETRY, TAPS, len(index), "float16")
    names = dict(zip(index.label, index.class_name, strict=True))
    rows = Rows(index.image_id, np.asarray(index.label), names, [])
    request = {
        "data": {"fingerprint": "noise", "n_images": len(index)},
        "view": {"kind": "square", "size": [224, 224], "crop_fraction": 0.9},
        "layers": list(GEOMETRY.layers),
    }
    with open_writer(path, layout, GEOMETRY, rows, request, MODEL) as writer:
        for block in range(layout.n_blocks):
            places = layout.rows(block)
            part = {
                a.name: generator.standard_normal((len(places), *a.shape), dtype=np.float32).astype(a.dtype)
                if places.start < seen
                else np.zeros((len(places), *a.shape), a.dtype)
                for a in layout.arrays
            }
            writer.write_block(block, part, forward_images=len(places))
        writer.seal()


@contextmanager
def page_of(browser: Browser, link: str, address: str) -> Iterator[Page]:
    """Open the page anew, with nothing cached."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto("about:blank")
    page.goto(f"{link}#{address}", wait_until="commit")
    yield page
    context.close()


DRAWN = "[...document.querySelectorAll('article .map canvas')].some((c) => c.style.opacity > 0)"

# Milliseconds from a change to the next frame in which a map has other colours.
CHANGED = """() => new Promise((resolve) => {
  const canvas = document.querySelector("article .map canvas");
  const pixels = () => String(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
  const before = pixels();
  const started = performance.now();
  CHANGE
  const look = () => {
    if (pixels() !== before) resolve(performance.now() - started);
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})"""

PATCH = """
  const map = document.querySelector("article [role=application]");
  const box = map.getBoundingClientRect();
  map.dispatchEvent(new PointerEvent("pointermove", {{bubbles: true, pointerType: "mouse",
    clientX: box.left + box.width * {x}, clientY: box.top + box.height * {y}}}));
"""
LAYER = """
  const slider = document.querySelector("article input[type=range]");
  slider.value = {layer};
  slider.dispatchEvent(new Event("input", {{bubbles: true}}));
"""


def first(browser: Browser, link: str, rounds: int) -> None:
    """From the opening of the link to the first thumbnail and to the first map."""
    pictures, maps = [], []
    for _ in range(rounds):
        with page_of(browser, link, "") as page:
            page.wait_for_function(DRAWN, polling="raf")
            drawn = page.evaluate("performance.now()")
            page.wait_for_function("document.querySelector('.grid img')?.complete", polling="raf")
            entries = page.evaluate(
                "performance.getEntriesByType('resource').map((e) => [e.name, e.startTime, e.responseEnd])"
            )
            thumbnails = [end for name, _, end in entries if "/thumbnails/" in name]
            pictures.append(min(thumbnails))
            maps.append(drawn)
    before = sorted((start, end, name.split("/", 4)[4]) for name, start, end in entries if end <= drawn)
    waits: list[tuple[float, float, str]] = []
    for request in before:
        if "thumbnails/" not in request[2] and (not waits or request[0] >= waits[-1][1] - 1):
            waits.append(request)
    print(f"| first thumbnail | {told(pictures)} |")
    print(f"| first map | {told(maps)} |")
    print(f"| requests before the first map, and those that waited for another | {len(before)}, {len(waits)} |")
    for start, end, name in waits:
        print(f"<!-- {start:5.0f} to {end:5.0f} ms {name} -->")


def told(milliseconds: list[float]) -> str:
    """Write times as their median and extremes."""
    middle = statistics.median(milliseconds)
    return f"{middle:.0f} ms ({min(milliseconds):.0f} to {max(milliseconds):.0f})"


def changes(browser: Browser, link: str) -> None:
    """Another patch and another layer, each until its map is drawn; beside reading it in Python."""
    with page_of(browser, link, "") as page:
        page.wait_for_function(DRAWN, polling="raf")
        page.wait_for_timeout(500)
        places = [((n % 13 + 0.5) / 14, (n % 11 + 0.5) / 14) for n in range(40)]
        patches = [page.evaluate(CHANGED.replace("CHANGE", PATCH.format(x=x, y=y))) for x, y in places]
        page.mouse.move(5, 5)
        layers = []
        for _ in range(4):
            layers += [page.evaluate(CHANGED.replace("CHANGE", LAYER.format(layer=layer))) for layer in range(11, -1, -1)][1:]
            page.keyboard.press("j")
            page.wait_for_timeout(500)
            page.evaluate("() => {" + LAYER.format(layer=11) + "}")
            page.wait_for_timeout(500)
    print(f"| another patch | {told(patches)} |")
    print(f"| another layer | {told(layers)} |")


def in_python(store: Path) -> None:
    """Read what the page reads for another layer: of five images, in Python."""
    opened = vitfeat.open(store)
    seconds = []
    for image, layer in itertools.product((0, 10, 20, 30), range(12)):
        started = time.perf_counter()
        _ = opened["spatial"][image : image + 5, layer]
        seconds.append(1000 * (time.perf_counter() - started))
    print(f"| the same layer of five images through `vitfeat.open` | {told(seconds)} |")


def size() -> None:
    """The page, compressed."""
    total = sum(len(gzip.compress(PAGE.joinpath(name).read_bytes())) for name in PAGE_FILES)
    print(f"| the page, compressed | {total / 1e6:.2f} MB |")


def renderer_bytes(browser: Browser) -> Callable[[Page], dict[str, float]]:
    """Return what tells the memory of a page's process, in MiB, after garbage was collected."""
    session = browser.new_browser_cdp_session()

    def measured(page: Page) -> dict[str, float]:
        own = session_of(page)
        own.send("HeapProfiler.enable")
        own.send("HeapProfiler.collectGarbage")
        heap = own.send("Runtime.getHeapUsage")
        own.detach()
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        statuses = [
            dict(
                line.split(":", 1)
                for line in Path(f"/proc/{one['id']}/status").read_text().splitlines()
            )
            for one in processes
            if one["type"] == "renderer"
        ]
        largest = max(int(status["VmRSS"].split()[0]) for status in statuses)
        anonymous = max(int(status["RssAnon"].split()[0]) for status in statuses)
        return {
            "resident": largest / 1024,
            "anonymous": anonymous / 1024,
            "heap": heap["usedSize"] / 2**20,
            "buffers": heap.get("backingStorageSize", 0) / 2**20,
        }

    return measured


def session_of(page: Page) -> CDPSession:
    """Return a session of the page's own tools."""
    return page.context.new_cdp_session(page)


def memory(browser: Browser, link: str, steps: int) -> None:
    """Step through images; print what the page's process holds after every 50."""
    measured = renderer_bytes(browser)
    with page_of(browser, link, "") as page:
        page.wait_for_function(DRAWN, polling="raf")
        rows: list[dict[str, Any]] = []
        for step in range(steps + 1):
            if step % 50 == 0:
                page.wait_for_timeout(300)
                rows.append({"images": step, **measured(page)})
                print("<!-- " + ", ".join(f"{k} {v:.0f}" for k, v in rows[-1].items()) + " -->", flush=True)
            page.keyboard.press("j")
            page.wait_for_function("!document.querySelector('article.stale, .panels.stale')", polling="raf")
    of = {row["images"]: row for row in rows}
    print(
        f"| memory of the page's process after {', '.join(map(str, of))} images | "
        f"{', '.join(format(row['resident'], '.0f') for row in rows)} MiB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=500, help="images that are stepped through")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the store here, or take it from here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / "results").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            make(folder, options.images, options.steps + 20)
        results = Results.of(folder / "results", None, {"photos": folder / "images"})
        server = Server(Content(results))
        print(f"{machine()}; {options.images} images\n\n| what | measured |\n|---|---|")
        with server.running() as link, chromium() as browser:
            server.content.warm()
            first(browser, link, options.rounds)
            changes(browser, link)
            in_python(folder / "results" / "features" / "photos" / f"{MODEL}.zarr")
            size()
            memory(browser, link, options.steps)


if __name__ == "__main__":
    main()
