"""After a power cut a table, Gram file, figure, manifest or download is the old or the new one."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.faults.counts import times
from tests.faults.crashes import Recorder
from vitfeat import files as vitfeat_files
from vitfeat.analyses.rows import ScoreRow
from vitfeat.figures import style
from vitfeat.files import write_json
from vitfeat.numerics.gram import gram
from vitfeat.numerics.gramfile import GramMeta, write_gram_file
from vitfeat.tables import write_table
from vitfeat.weights.download import download

OLD = b"what was there"
CUTS = times(40, 400)


def _gram(path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    made = gram(lambda a, b: features[a:b], 9)
    write_gram_file(path, [0, 1], [made] * 2, GramMeta("m", "d", "cls", "i", "f"))


class _Weights(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "50000")
        self.end_headers()
        self.wfile.write(b"w" * 50000)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Weights) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/w.bin"
        server.shutdown()


def _writers(url: str) -> dict[str, Callable[[Path], object]]:
    return {
        "t.csv": lambda path: write_table(path, ScoreRow, []),
        "g.safetensors": _gram,
        "m.json": lambda path: write_json(path, {"fingerprint": "f"}),
        "f.png": lambda path: style.save(Figure(), path),
        "w.bin": lambda path: download(
            url, path, path.with_name("w.part"), name="w", progress=False
        ),
    }


def _recorded(path: Path, write: Callable[[Path], object]) -> Recorder:
    """Write a file in the place of an older one, which is safe on the disk."""
    path.parent.mkdir()
    path.write_bytes(OLD)
    recorder = Recorder(path.parent)
    with pytest.MonkeyPatch.context() as patch:
        recorder.watch(patch)
        for place in (path, path.parent):
            handle = os.open(place, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        recorder.moments.clear()
        write(path)
        recorder._look()
    return recorder


@pytest.mark.parametrize("name", ["t.csv", "g.safetensors", "m.json", "f.png", "w.bin"])
def test_it_is_the_old_one_or_the_new(tmp_path: Path, url: str, name: str) -> None:
    recorder = _recorded(tmp_path / "disk" / name, _writers(url)[name])
    new = (tmp_path / "disk" / name).read_bytes()
    assert new != OLD
    for seed in range(CUTS):
        choose = random.Random(seed)
        choose.choice(recorder.moments).after_power_cut(tmp_path / str(seed), choose)
        assert (tmp_path / str(seed) / name).read_bytes() in (OLD, new)
        # What was said to be done cannot be taken back.
        recorder.moments[-1].after_power_cut(tmp_path / f"{seed} end", choose)
        assert (tmp_path / f"{seed} end" / name).read_bytes() == new


def test_without_syncing_it_would_be_lost(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the test would see it."""
    monkeypatch.setattr(vitfeat_files, "_sync", lambda _: None)
    for name, write in _writers(url).items():
        recorder = _recorded(tmp_path / f"{name} disk" / name, write)
        new, lost = (tmp_path / f"{name} disk" / name).read_bytes(), 0
        for seed in range(20):
            to = tmp_path / f"{name} {seed}"
            recorder.moments[-1].after_power_cut(to, random.Random(seed))
            lost += (to / name).read_bytes() != new
        assert lost > 0, name
