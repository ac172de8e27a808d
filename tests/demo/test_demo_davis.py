from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitfeat.data import davis as layout
from vitfeat.data.annotations import FrameRow
from vitfeat.data.masks import objects_in, read_mask
from vitfeat.data.scan import build_index
from vitfeat.data.spec import DatasetSpec
from vitfeat.data.views import DenseView
from vitfeat.demo import datasets
from vitfeat.demo.datasets.davis import N_FRAMES, SEQUENCES, SPLITS
from vitfeat.errors import DataError

Video = list[np.ndarray]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("davis")
    datasets.write("davis", root)
    return root


def rows_of(root: Path, split: str) -> list[FrameRow]:
    spec = DatasetSpec(name="demo", layout="davis", root=root, split=split)
    return layout.frames(spec, build_index(spec), [])


def masks_of(root: Path, sequence: str) -> Video:
    one = SEQUENCES[sequence]
    folder = root / "Annotations/480p" / sequence
    return [read_mask(path, (one.height, one.width)) for path in sorted(folder.iterdir())]


def frames_of(root: Path, sequence: str) -> Video:
    folder = root / "JPEGImages/480p" / sequence
    return [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("split", SPLITS)
def test_the_layout_reads_it(root: Path, split: str) -> None:
    rows = rows_of(root, split)
    assert [(row.sequence, row.frame) for row in rows] == [
        (name, frame) for name in sorted(SPLITS[split]) for frame in range(N_FRAMES)
    ]
    assert all(row.mask for row in rows)


def test_frames_and_masks_fit(root: Path) -> None:
    for name, one in SEQUENCES.items():
        for frame, mask in zip(frames_of(root, name), masks_of(root, name), strict=True):
            assert frame.shape == (one.height, one.width, 3)
            assert set(np.unique(mask)) <= set(range(len(one.movers) + 1))
            for number in set(np.unique(mask)) - {0}:
                # Bright digits on dark ground.
                assert frame[mask == number].mean() > 130
            assert frame[mask == 0].mean() < 45
        assert objects_in(masks_of(root, name)[0]) == tuple(range(1, len(one.movers) + 1))


def test_shapes_and_numbers_of_objects_differ(root: Path) -> None:
    assert len({one.width / one.height for one in SEQUENCES.values()}) == len(SEQUENCES)
    assert {len(one.movers) for one in SEQUENCES.values()} == {1, 2, 3}


def test_objects_hide_each_other(root: Path) -> None:
    areas = [int((mask == 1).sum()) for mask in masks_of(root, "crossing")]
    assert min(areas) < 0.6 * areas[0]
    assert areas[-1] == areas[0]


def test_an_object_is_less_than_a_token_at_first_and_grows(root: Path) -> None:
    masks, one = masks_of(root, "growing"), SEQUENCES["growing"]
    height, _ = DenseView("short", 64, (4, 4)).size_of(one.width, one.height)
    token = 4 * one.height / height
    assert 0 < (masks[0] == 2).sum() < token**2 / 2
    assert (masks[-1] == 2).sum() > 20 * token**2


def test_an_object_leaves(root: Path) -> None:
    masks = masks_of(root, "leaving")
    there = [bool((mask == 2).any()) for mask in masks]
    assert there[:5] == [True] * 5
    assert there[-2:] == [False] * 2
    assert all((mask == 1).any() for mask in masks)


def test_everything_moves_and_the_ground_stays(root: Path) -> None:
    for name in SEQUENCES:
        masks, frames = masks_of(root, name), frames_of(root, name)
        assert (masks[0] != masks[-1]).any()
        # Away from the soft edges of digits; JPEG changes a little.
        ground = np.max([frame[..., 0] for frame in frames], axis=0) < 30
        still = np.std([frame[ground] for frame in frames], axis=0)
        assert np.median(still) < 2


def test_writing_is_deterministic(root: Path, tmp_path: Path) -> None:
    datasets.write("davis", tmp_path)
    ours, again = (
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (root, tmp_path)
    )
    assert ours == again
    assert len(ours) == 2 * N_FRAMES * len(SEQUENCES) + len(SPLITS)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "ImageSets").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write the demo's davis under .* writable"):
        datasets.write("davis", tmp_path)
