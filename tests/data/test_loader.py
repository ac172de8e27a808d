from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.pictures import MakeTree, encode, noise
from vitfeat.data.images import open_rgb
from vitfeat.data.index import Index
from vitfeat.data.loader import load_batches
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import SquareView
from vitfeat.errors import DataError

VIEW = SquareView((16, 16))


def indexed(root: Path) -> Index:
    return build_index(DatasetSpec(name="d", layout="flat", root=root))


def expected(index: Index, root: Path, rows: range) -> np.ndarray:
    return np.stack([VIEW(open_rgb(root / index.image_id[row])) for row in rows])


def workers_of_this_process() -> set[int]:
    """Live processes that the fork server started for us."""
    from multiprocessing.forkserver import _forkserver  # type: ignore[attr-defined]

    server = getattr(_forkserver, "_forkserver_pid", None)
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(") ")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == server and state != "Z":
            found.add(int(stat.parent.name))
    return found


def soon_gone(pids: set[int]) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if not pids & workers_of_this_process():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_the_asked_order(tree: MakeTree, workers: int) -> None:
    root = tree(*(f"{k:02}.png" for k in range(20)))
    index = indexed(root)
    batches = [range(8, 12), range(0, 8), range(19, 20), range(3, 3), range(12, 19)]
    state = torch.random.get_rng_state()
    found = list(load_batches(index, root, VIEW, batches, workers=workers))
    assert [[len(group) for group in groups] for groups in found] == [[4], [8], [1], [], [7]]
    for groups, rows in zip(found, batches, strict=True):
        for batch in groups:
            assert batch.dtype == torch.uint8
            assert batch.shape[1:] == (16, 16, 3)
            np.testing.assert_array_equal(batch.numpy(), expected(index, root, rows))
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"


def test_no_batches(tree: MakeTree) -> None:
    root = tree("0.png")
    assert list(load_batches(indexed(root), root, VIEW, [], workers=2)) == []


def test_ranges_that_leave_the_index(tree: MakeTree) -> None:
    root = tree("0.png")
    for rows in (range(0, 2), range(-1, 1)):
        with pytest.raises(IndexError, match="which has 1 rows"):
            next(load_batches(indexed(root), root, VIEW, [rows], workers=0))


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_keep_their_type_and_their_one_line(tree: MakeTree, workers: int) -> None:
    whole = encode(noise(3, 90, 70))
    root = tree(*(f"{k}.png" for k in range(6)), contents={"7.png": whole[: len(whole) // 2]})
    index = indexed(root)
    data = (root / "2.png").read_bytes()
    (root / "2.png").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    (root / "3.png").write_bytes(data + b"longer")
    (root / "4.png").unlink()
    changed = "the file has changed since it was indexed; run again, and the index is made anew"
    for row, message in [
        (2, rf"^2\.png: {changed}$"),
        (3, rf"^3\.png: {changed}$"),
        (4, r"^4\.png: does not exist$"),
        (6, r"^7\.png: damaged or truncated image .*$"),
    ]:
        batches = load_batches(
            index, root, VIEW, [range(0, 2), range(row, row + 1), range(0, 1)], workers=workers
        )
        assert len(next(batches)[0]) == 2
        with pytest.raises(DataError, match=message) as caught:
            next(batches)
        assert "Traceback" not in str(caught.value)
    assert soon_gone(workers_of_this_process())


def test_view_errors_name_the_image(tree: MakeTree) -> None:
    root = tree(contents={"long.png": encode(noise(1, 8, 9000))})
    view = SquareView((2048, 2048))
    with pytest.raises(DataError, match=r"^long\.png: 8 x 9000 pixels is too elongated"):
        list(load_batches(indexed(root), root, view, [range(0, 1)], workers=0))


def test_sizes_that_the_index_allowed_pass(tree: MakeTree) -> None:
    root = tree(contents={"thin.png": encode(noise(1, 30, 3))})
    spec = DatasetSpec(name="d", layout="flat", root=root, min_side=1)
    index = build_index(spec)
    assert len(next(load_batches(index, root, VIEW, [range(0, 1)], workers=0))[0]) == 1


def test_workers_go_when_the_consumer_stops(tree: MakeTree) -> None:
    root = tree(*(f"{k:02}.png" for k in range(40)))
    batches = load_batches(
        indexed(root), root, VIEW, [range(k, k + 1) for k in range(40)], workers=2
    )
    next(batches)
    workers = workers_of_this_process()
    assert len(workers) == 2
    batches.close()  # type: ignore[attr-defined]
    assert soon_gone(workers)


@pytest.mark.parametrize(("killed", "wait"), [(1, 0.0), (2, 0.0), (2, 0.3)])
def test_a_killed_worker_is_an_error_not_a_hang(tree: MakeTree, killed: int, wait: float) -> None:
    root = tree(*(f"{k:02}.png" for k in range(40)))
    batches = load_batches(
        indexed(root), root, VIEW, [range(k, k + 1) for k in range(40)], workers=2
    )
    next(batches)
    time.sleep(wait)  # with 0.3 s the batches made ahead are on their way, without they are not
    for worker in sorted(workers_of_this_process())[:killed]:
        os.kill(worker, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"a process that loads images was killed.*fewer workers"):
        list(batches)
    assert time.monotonic() - began < 20


def test_pin_is_off_unless_asked(tree: MakeTree) -> None:
    root = tree("0.png")
    (batch,) = next(load_batches(indexed(root), root, VIEW, [range(0, 1)], workers=0))
    assert not batch.is_pinned()


def test_bugs_keep_their_traceback(tree: MakeTree) -> None:
    root = tree("0.png")
    view = SquareView((16, 16))
    object.__setattr__(view, "interpolation", "none")
    with pytest.raises(KeyError):
        next(load_batches(indexed(root), root, view, [range(0, 1)], workers=0))
