"""A GPU in one go: extraction beside a bare forward loop, JPEGs, Gram matrices, k-NN, equality.

Needs no network: networks are untrained, images made up. What no time is left for is left out and
said. Writes ``gpu.csv`` and ``gpu.md`` (a Markdown table) into a folder.

python -m benchmarks.gpu [--out results/gpu] [--minutes 8] [--device auto] [--smoke]
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.extraction import photographs
from benchmarks.knn import features, torch_topk
from benchmarks.timing import in_turn, machine
from vitfeat.data.index import Index
from vitfeat.data.loader import load_batches, normalise
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import SquareView
from vitfeat.device import choose_device
from vitfeat.extraction.pipeline import Schedule
from vitfeat.extraction.precision import autocast, matmul_precision
from vitfeat.extraction.run import extract
from vitfeat.extraction.settings import Settings
from vitfeat.models.backbone import Backbone
from vitfeat.models.entry import ModelEntry
from vitfeat.models.loading import load_backbone
from vitfeat.numerics.gram import gram
from vitfeat.numerics.neighbours import nearest_images
from vitfeat.store.opening import open_store

MODELS = {
    "S/16": "vit_small_patch16_224",
    "B/16": "vit_base_patch16_224",
    "L/14": "vit_large_patch14_224",
}
TAPS = {
    "cls": ("cls",),
    "cls + spatial": ("cls", "spatial"),
    "cls + spatial + summaries": ("cls", "spatial", "attention_summary"),
}
GOALS = {"cls": 0.95, "cls + spatial": 0.85, "cls + spatial + summaries": 0.80}

# Largest difference between the stores of a CPU and a GPU, beside the largest number of a layer.
# float32 products in another order; tf32 keeps 10 bits of the factors, bf16 7.
TOLERANCES = {"fp32": 1e-3, "tf32": 2e-2, "bf16": 1e-1}


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    what, model, precision, batch
        What was measured.
    rate, unit
        The median, and of what: images a second, or a largest difference.
    ratio
        How fast it is beside the bare one, or beside what it is held to.
    goal
        What the ratio should reach.
    peak_gib
        Most memory of the GPU that was taken.
    note
        What the ratio is held to, where it is not the bare forward loop.
    """

    what: str
    model: str = ""
    precision: str = ""
    batch: int = 0
    rate: float = float("nan")
    unit: str = "images/s"
    ratio: float = float("nan")
    goal: float = float("nan")
    peak_gib: float = float("nan")
    note: str = ""


class Bench:
    """The measurements, as far as time allows.

    Parameters
    ----------
    device
        Where the models run.
    scratch
        A folder on the disk that stores would be written to.
    deadline
        Time of ``time.monotonic`` after which nothing is begun.
    smoke
        Whether to measure next to nothing: to see that all of it runs.
    """

    def __init__(self, device: torch.device, scratch: Path, deadline: float, smoke: bool) -> None:
        self.rows: list[Row] = []
        self.device = device
        self._scratch = scratch
        self._deadline = deadline
        self._smoke = smoke
        self._folder = scratch / "photographs"
        self._folder.mkdir()
        self._n_files = 8 if smoke else 768
        photographs(self._folder, self._n_files)
        self._index = self._indexed(self._n_files)
        self._seconds = 0.02 if smoke else 0.8

    def add(self, row: Row) -> None:
        """Keep and show a row."""
        self.rows.append(row)
        print(_line(row), flush=True)

    def has_time(self, what: str) -> bool:
        """Whether there is time for more; says what is left out otherwise."""
        if time.monotonic() < self._deadline:
            return True
        self.add(Row(what, note="left out: no time"))
        return False

    def _indexed(self, n: int) -> Index:
        spec = DatasetSpec(name="photographs", layout="flat", root=self._folder, limit=n)
        return build_index(spec)

    def _repeated(self, n: int) -> Index:
        """Make an index of so many images in memory: their files are never read."""
        source = self._index
        return Index(
            image_id=[f"{i:06d}.jpg" for i in range(n)],
            label=np.full(n, -1),
            class_name=[""] * n,
            width=np.full(n, 500),
            height=np.full(n, 375),
            n_bytes=np.full(n, 1),
            sha256=[source.sha256[i % len(source)] for i in range(n)],
        )

    def load(self, name: str) -> Backbone:
        """Load an untrained network onto the device."""
        args = {"depth": 2, "embed_dim": 32, "num_heads": 2} if self._smoke else {}
        mapping = {"source": "timm", "name": name, "args": args}
        backbone = load_backbone(ModelEntry.from_mapping("vit", mapping))
        backbone.module.to(self.device)
        return backbone

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _peak(self, function: Callable[[], None]) -> float:
        """Run a function and return the GPU memory that it took at most, in GiB."""
        if self.device.type != "cuda":
            function()
            return float("nan")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        return torch.cuda.max_memory_allocated(self.device) / 2**30

    @torch.inference_mode()
    def _forward(self, backbone: Backbone, memory: Tensor, batch: int, precision: str) -> None:
        with matmul_precision(precision, self.device), autocast(precision, self.device):
            for images in memory.split(batch):
                images = images.to(self.device, non_blocking=True)
                backbone.module(normalise(images, backbone.mean, backbone.std))
        self._synchronise()

    def _store(
        self,
        backbone: Backbone,
        memory: Tensor,
        taps: Sequence[str],
        batch: int,
        precision: str,
        out: str = "store.zarr",
        device: torch.device | None = None,
    ) -> Path:
        path = self._scratch / out
        shutil.rmtree(path, ignore_errors=True)
        settings = Settings(
            taps=taps, batch_size=batch, device=str(device or self.device), precision=precision
        )

        def batches(plan: Schedule) -> Iterator[Tensor]:
            return (memory[b.start : b.stop] for b in plan.all_batches)

        index = self._repeated(len(memory))
        extract(backbone, index, self._folder, path, settings, batches=batches)
        return path

    def models(self, name: str, precision: str, batch: int, rounds: int) -> None:
        """One model, precision and batch: bare, and each choice of taps beside it.

        What an extraction takes to start (probe, hash of the weights, creation, seal) is taken out
        by the difference of a long and a short one; it is a row of its own.
        """
        label = f"{name} {precision} {batch}"
        if not self.has_time(label):
            return
        backbone = self.load(MODELS[name])
        height, width = backbone.image_size
        one = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8)
        self._forward(backbone, one, batch, precision)  # warm
        started = time.perf_counter()
        self._forward(backbone, one, batch, precision)
        a_batch = time.perf_counter() - started
        n = batch * max(1, min(48, round(self._seconds / a_batch)))
        memory = one.repeat(3 * n // batch, 1, 1, 1)
        if self.device.type == "cuda":
            memory = memory.pin_memory()

        def bare() -> None:
            self._forward(backbone, memory, batch, precision)

        peak = self._peak(bare)
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            bare()
            seconds.append(time.perf_counter() - started)
        forward = len(memory) / statistics.median(seconds)
        self.add(Row("bare forward", name, precision, batch, forward, peak_gib=peak))
        for what, taps in TAPS.items():
            if not self.has_time(f"{label} {what}"):
                return
            rates, starts = [], []
            peak = float("nan")
            for _ in range(rounds):
                times = []
                for some in (memory[:n], memory):

                    def run(some: Tensor = some, taps: Sequence[str] = taps) -> None:
                        self._store(backbone, some, taps, batch, precision)

                    started = time.perf_counter()
                    peak = self._peak(run)
                    times.append(time.perf_counter() - started)
                short, long = times
                # Noise of the starts, where hardly anything is measured.
                rates.append((len(memory) - n) / (long - short) if long > short else float("nan"))
                starts.append(max(0.0, short - n / rates[-1]))
            rate = statistics.median(rates)
            note = f"start {statistics.median(starts):.1f} s"
            if what != "cls":
                disk = self._disk_rate(self._scratch / "store.zarr", len(memory))
                note += f"; the disk alone {disk:,.0f} images/s"
            self.add(
                Row(
                    what, name, precision, batch, rate, "images/s",
                    rate / forward, GOALS[what], peak, note,
                )
            )  # fmt: skip
        self._full_attention(name, backbone, memory, precision, forward)

    def _disk_rate(self, store: Path, n: int) -> float:
        """Images a second that the disk takes of a store's bytes, synced, with nothing computed."""
        size = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
        block = os.urandom(2**24)
        path = self._scratch / "bytes"
        started = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(-(-size // len(block))):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        seconds = time.perf_counter() - started
        path.unlink()
        return n / seconds

    def _full_attention(
        self, name: str, backbone: Backbone, memory: Tensor, precision: str, forward: float
    ) -> None:
        some = memory[:64]
        started = time.perf_counter()
        peak = self._peak(
            lambda: _nothing(self._store(backbone, some, ("attention",), 64, precision))
        )
        rate = len(some) / (time.perf_counter() - started)
        self.add(
            Row(
                "full attention of 64 images", name, precision, 64, rate, "images/s",
                rate / forward, peak_gib=peak, note="its start counted",
            )
        )  # fmt: skip

    def end_to_end(self, name: str, precision: str, batch: int, rounds: int) -> None:
        """From JPEG files, beside the slower of decoding alone and forward alone."""
        if not self.has_time("JPEG end to end"):
            return
        backbone = self.load(MODELS[name])
        view = SquareView(backbone.image_size, 0.875, backbone.interpolation)
        index, rows = self._index, range(self._n_files)
        spans = [rows[a : a + batch] for a in range(0, len(rows), batch)]
        workers = max(1, (os.cpu_count() or 1) - 1)

        def decode() -> list[Tensor]:
            groups = load_batches(index, self._folder, view, spans, workers=workers)
            return [batch for (batch,) in groups]

        memory = torch.cat(decode())
        settings = Settings(
            taps=("cls",), batch_size=batch, device=str(self.device), precision=precision,
            workers=workers,
        )  # fmt: skip

        def ours() -> None:
            out = self._scratch / "store.zarr"
            shutil.rmtree(out, ignore_errors=True)
            extract(backbone, index, self._folder, out, settings)

        pairs = {
            "decoding alone": in_turn(ours, lambda: _nothing(decode()), rounds=rounds),
            "forward alone": in_turn(
                ours, lambda: self._forward(backbone, memory, batch, precision), rounds=rounds
            ),
        }
        slower = max(pairs, key=lambda k: statistics.median(pairs[k].other))
        rate = len(index) / statistics.median(pairs[slower].ours)
        self.add(
            Row(
                "JPEG end to end", name, precision, batch, rate, "images/s",
                pairs[slower].speed, 0.90,
                note=f"beside {slower}; {workers} decoding processes; its start counted",
            )
        )  # fmt: skip

    def equality(self, name: str, precision: str) -> None:
        """Largest difference between a store of the device and one of a CPU in float32."""
        if not self.has_time(f"equality {precision}"):
            return
        backbone = self.load(MODELS[name])
        n = 4 if self._smoke else 32
        memory = torch.randint(0, 256, (n, *backbone.image_size, 3), dtype=torch.uint8)
        taps = TAPS["cls + spatial + summaries"]
        cpu = torch.device("cpu")
        there = open_store(self._store(backbone, memory, taps, n, precision, "there.zarr"))
        here = open_store(self._store(backbone, memory, taps, n, "fp32", "here.zarr", cpu))
        worst = 0.0
        for array in here.array_names:
            a, b = (np.asarray(s[array][:], dtype=np.float64) for s in (here, there))
            worst = max(worst, float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)))
        bound = TOLERANCES[precision]
        said = "within" if worst <= bound else "BEYOND"
        self.add(
            Row("CPU against device", name, precision, n, worst, "of the largest number",
                note=f"{said} {bound:g}")
        )  # fmt: skip

    def gram_and_knn(self, rounds: int) -> None:
        """Gram matrices and the search of neighbours, beside bare products on the same device."""
        if not self.has_time("Gram and k-NN"):
            return
        n, width = (64, 32) if self._smoke else (5000, 768)
        x = features(n, width, 1)
        on_device = torch.from_numpy(x).to(self.device)

        def bare_gram() -> None:
            centred = on_device - on_device.mean(0)
            (centred @ centred.T).cpu()

        name = self.device.type

        def ours_gram() -> None:
            gram(lambda a, b: x[a:b], n, device=name)

        pair = in_turn(ours_gram, bare_gram, rounds=rounds)
        self.add(
            Row(f"Gram matrix {n:,} x {width}", rate=1 / statistics.median(pair.ours),
                unit="matrices/s", ratio=pair.speed, note="beside one product in memory")
        )  # fmt: skip
        n_bank, k = (256, 5) if self._smoke else (200_000, 200)
        bank = features(n_bank, width, 2)
        units = [
            torch.from_numpy(v / np.linalg.norm(v, axis=1, keepdims=True)).to(self.device)
            for v in (x, bank)
        ]

        def ours_knn() -> None:
            for _ in nearest_images(
                lambda a, b: x[a:b], n, lambda a, b: bank[a:b], n_bank, k, device=name
            ):
                pass

        pair = in_turn(ours_knn, lambda: _nothing(torch_topk(*units, k).cpu()), rounds=rounds)
        self.add(
            Row(f"k-NN {n:,} x {n_bank:,} x {width}, k {k}",
                rate=n / statistics.median(pair.ours), ratio=pair.speed,
                note="beside blocked products and torch.topk")
        )  # fmt: skip


def _nothing(_value: object) -> None:
    """Take a value and return none."""


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return "" if value in (0, "") else str(value)


def _line(row: Row) -> str:
    return "| " + " | ".join(_cell(v) for v in asdict(row).values()) + " |"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--smoke", action="store_true", help="see that all of it runs")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    device = choose_device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=options.out))
    names = [f.name for f in fields(Row)]
    head = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    print("\n".join([machine(), "", *head]), flush=True)
    precisions = ["fp32", "tf32", "bf16"] if device.type == "cuda" else ["fp32", "bf16"]
    rounds = 1 if options.smoke else 3
    batches = (4,) if options.smoke else (256, 64)
    try:
        bench = Bench(device, scratch, deadline, options.smoke)
        # What matters most first: time may run out.
        for precision in precisions:
            bench.equality("S/16", precision)
        bench.models("B/16", precisions[-1], batches[0], rounds)
        bench.end_to_end("B/16", precisions[-1], batches[-1], rounds)
        bench.gram_and_knn(rounds)
        for batch in batches:
            for precision in reversed(precisions):
                for name in MODELS:
                    if (name, precision, batch) != ("B/16", precisions[-1], batches[0]):
                        bench.models(name, precision, batch, 1)
    finally:
        shutil.rmtree(scratch)
    with (options.out / "gpu.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(asdict(row) for row in bench.rows)
    table = [machine(), "", *head, *map(_line, bench.rows), ""]
    (options.out / "gpu.md").write_text("\n".join(table), "utf-8")


if __name__ == "__main__":
    main()
