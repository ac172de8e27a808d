"""The explorer in Chromium, beside the same in Python: times, size and memory.

python -m benchmarks.explorer [--images 5000] [--steps 500] [--rounds 5] [--folder FOLDER]

Needs playwright and Debian's chromium. The store is a ViT-B/16's of noise, with cls, spatial and
attention_summary of all layers; images beyond those that are stepped through hold zeros, so that it
takes 4 GB and not 20.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page

import vitfeat
from benchmarks.timing import machine
from tests.explorer.browser import CHROMIUM, OPTIONS, chromium
from vitfeat.data.index import Index
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.explorer.catalog import Results
from vitfeat.explorer.content import PAGE, PAGE_FILES, Content, Held
from vitfeat.explorer.server import Server
from vitfeat.store.arrays import Geometry
from vitfeat.store.create import Rows
from vitfeat.store.layout import plan_layout
from vitfeat.store.writer import open_writer

GEOMETRY = Geometry(
    layers=tuple(range(12)), width=768, heads=12, grid=(14, 14), has_cls=True, n_registers=0
)
TAPS = ("cls", "spatial", "attention_summary")
STORE = Path("results", "features", "photos", "noise.zarr")

# The page reads the current image and the four beside it.
AT_ONCE = 5


def make(folder: Path, images: int, seen: int) -> None:
    """Write images, their index, and a store with numbers of the first ones."""
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
    _write_store(folder / STORE, index, seen)


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

    def content(shape: tuple[int, ...], start: int) -> NDArray[Any]:
        if start >= seen:
            return np.zeros(shape)
        return generator.standard_normal(shape, dtype=np.float32)

    with open_writer(path, layout, GEOMETRY, rows, request, "noise") as writer:
        for block in range(layout.n_blocks):
            places = layout.rows(block)
            part = {
                array.name: content((len(places), *array.shape), places.start).astype(array.dtype)
                for array in layout.arrays
            }
            writer.write_block(block, part, forward_images=len(places))
        writer.seal()


def told(milliseconds: list[float]) -> str:
    """Write times as their median and extremes."""
    middle = statistics.median(milliseconds)
    digits = 0 if middle >= 10 else 1 if middle >= 1 else 2
    low, high = min(milliseconds), max(milliseconds)
    return f"{middle:.{digits}f} ms ({low:.{digits}f} to {high:.{digits}f})"


def timed(work: Callable[[], object]) -> float:
    """Return how many milliseconds something takes."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


# Notes after how many milliseconds the first of each kind was there to be painted.
FIRST = """
window.noted = {};
const kinds = {
  thumbnail: () => [...document.querySelectorAll(".grid img")].some(loaded),
  picture: () => [...document.querySelectorAll("article .map img")].some(loaded),
  map: () => [...document.querySelectorAll("article .map canvas")].some((c) => c.style.opacity > 0),
};
const loaded = (image) => image.complete && image.naturalWidth > 0;
const look = () => {
  for (const kind in kinds) if (!(kind in noted) && kinds[kind]()) noted[kind] = performance.now();
  if (Object.keys(noted).length < 3) requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""

# Milliseconds from a change to the next frame in which a map has other colours.
CHANGED = """() => new Promise((resolve) => {
  const canvas = document.querySelector("article .map canvas");
  const context = canvas.getContext("2d");
  const pixels = () => String(context.getImageData(0, 0, canvas.width, canvas.height).data);
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


@contextmanager
def page_of(browser: Browser, address: str) -> Iterator[Page]:
    """Open the page anew, with nothing cached, until all its first things are there."""
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()
        page.add_init_script(FIRST)
        page.goto(address, wait_until="commit")
        page.wait_for_function("() => Object.keys(window.noted ?? {}).length === 3")
        yield page


def first(browser: Browser, link: str, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds from the opening of the link to the first of each kind."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        with page_of(browser, link) as page:
            for kind, after in page.evaluate("window.noted").items():
                found.setdefault(kind, []).append(after)
    return found


def changes(browser: Browser, link: str) -> tuple[list[float], list[float]]:
    """Return milliseconds to another patch's map, and to another layer's, never read before."""
    with page_of(browser, link) as page:
        page.wait_for_timeout(500)
        places = [((n % 13 + 0.5) / 14, (n % 11 + 0.5) / 14) for n in range(40)]
        scripts = [CHANGED.replace("CHANGE", PATCH.format(x=x, y=y)) for x, y in places]
        patches = [page.evaluate(script) for script in scripts]
        page.mouse.move(5, 5)
        layers = []
        for start in (20, 60, 100, 140):
            page.goto(f"{link}#image={start}&shown=noise:11", wait_until="commit")
            page.reload(wait_until="commit")
            page.wait_for_function("() => Object.keys(window.noted ?? {}).length === 3")
            page.wait_for_timeout(500)
            for layer in range(10, -1, -1):
                layers.append(page.evaluate(CHANGED.replace("CHANGE", LAYER.format(layer=layer))))
    return patches, layers


def read_in_python(store: Path, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return milliseconds of the same in Python: through vitfeat, and through zarr."""

    def anew() -> None:
        _ = vitfeat.open(store)["spatial"][:AT_ONCE, 11]

    def anew_by_zarr() -> None:
        _ = zarr.open_array(store / "spatial", mode="r")[:AT_ONCE, 11]

    opened = vitfeat.open(store)["spatial"]
    by_zarr = zarr.open_array(store / "spatial", mode="r")
    places = list(itertools.product((20, 60, 100, 140), range(10, -1, -1)))
    tokens = opened[:AT_ONCE, 11].astype(np.float32)
    return {
        "first": (
            [timed(anew) for _ in range(rounds)],
            [timed(anew_by_zarr) for _ in range(rounds)],
        ),
        "layer": (
            [timed(lambda p=p: opened[p[0] : p[0] + AT_ONCE, p[1]]) for p in places],
            [timed(lambda p=p: by_zarr[p[0] : p[0] + AT_ONCE, p[1]]) for p in places],
        ),
        "patch": ([timed(lambda n=n: cosines(tokens, n)) for n in range(40)], []),
    }


def cosines(tokens: NDArray[np.float32], patch: int) -> NDArray[np.float32]:
    """Return the similarity of a patch of the first image to all."""
    vector = tokens[0].reshape(-1, tokens.shape[-1])[patch]
    product: NDArray[np.float32] = tokens @ vector
    product /= np.linalg.norm(tokens, axis=-1) * np.linalg.norm(vector)
    return product


# Steps through images as fast as they are drawn, and asks for a path after every 50.
STEPS = """
const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
const drawn = () => {
  const pictures = [...document.querySelectorAll("article .map img")];
  const stale = document.querySelector(".stale");
  return pictures.length && !stale && pictures.every((one) => one.complete);
};
for (let image = 0; image <= COUNT; image++) {
  do await frame(); while (!drawn());
  if (image % 50 === 0) {
    gc();
    await fetch(`measured/${image}`);
  }
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
  await frame();
}
"""


class Stepped(Content):
    """What is served, with a page that steps by itself, and notes of its process's memory.

    A browser that is driven has an inspector, which keeps what was answered; nobody watches here.
    """

    def __init__(self, results: Results, steps: int) -> None:
        super().__init__(results)
        self.steps = steps
        self.browser = 0
        self.mebibytes: dict[int, float] = {}
        self.ended = Event()

    def read(self, path: str) -> Held:
        """Return what a path holds."""
        held = super().read("app.js" if path.startswith("measured/") else path)
        if path == "app.js":
            script = STEPS.replace("COUNT", str(self.steps)).encode()
            return Held(held.type, held.part(0, held.size) + script)
        if path.startswith("measured/"):
            image = int(path.partition("/")[2])
            self.mebibytes[image] = max(_resident(pid) for pid in _renderers(self.browser))
            if image + 50 > self.steps:
                self.ended.set()
        return held


def _renderers(parent: int) -> Iterator[int]:
    """Find processes of pages below a browser's."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if b"--type=renderer" in command and _group(int(stat[1])) == _group(parent):
            yield int(path.name)


def _group(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[2])


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def memory(results: Results, steps: int, scratch: Path) -> dict[int, float]:
    """Return how many MiB the page's process holds after some images, every 50."""
    content = Stepped(results, steps)
    flags = [*OPTIONS, "--headless=new", "--js-flags=--expose-gc", f"--user-data-dir={scratch}"]
    with Server(content).running() as link:
        # A group of its own, which its pages' processes are in.
        browser = subprocess.Popen(
            [CHROMIUM, *flags, "--window-size=1440,900", link],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        content.browser = browser.pid
        try:
            content.ended.wait(60 + steps)
        finally:
            browser.terminate()
            browser.wait()
    return content.mebibytes


def main() -> None:
    """Print a Markdown table, and the memory below it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=500, help="images that are stepped through")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the store here, or take it from here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".", ignore_cleanup_errors=True) as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / "results").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            make(folder, options.images, max(options.steps, 150) + 20)
        results = Results.of(folder / "results", None, {"photos": folder / "images"})
        server = Server(Content(results))
        with server.running() as link, chromium() as browser:
            server.content.warm()
            seen = first(browser, link, options.rounds)
            patches, layers = changes(browser, link)
        python = read_in_python(folder / STORE, options.rounds)
        held = memory(results, options.steps, Path(scratch) / "chromium")
    print(f"{machine()}; {len(results.ids('photos'))} images, a ViT-B/16 of 12 layers\n")
    print("| what | the page | `vitfeat.open` | zarr | target |\n|---|---|---|---|---|")
    for kind, name, target in (
        ("thumbnail", "first thumbnail after the link is opened", "1 s"),
        ("picture", "first picture as the model saw it", "1 s"),
    ):
        print(f"| {name} | {told(seen[kind])} | | | {target} |")
    for name, page, key, target in (
        ("first map; opening and reading", seen["map"], "first", ""),
        ("another patch", patches, "patch", "50 ms"),
        ("another layer, read and drawn; read", layers, "layer", "300 ms"),
    ):
        own, other = (told(some) if some else "" for some in python[key])
        print(f"| {name} | {told(page)} | {own} | {other} | {target} |")
    size = sum(len(gzip.compress(PAGE.joinpath(name).read_bytes())) for name in PAGE_FILES)
    print(f"| the page, compressed | {size / 1e6:.2f} MB | | | 0.6 MB |")
    print(f"\nMiB of the page's process after so many images: {series(held)}")


def series(held: dict[int, float]) -> str:
    """Write memory after every so many images."""
    return ", ".join(f"{image}: {mebibytes:.0f}" for image, mebibytes in sorted(held.items()))


if __name__ == "__main__":
    main()
