"""The figure of kept tokens: what its pixels and texts say."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tests.figures.canvas import assert_readable, axes_named, words
from vitfeat.analyses.saliency.figures import (
    Kept,
    MaskRow,
    SalientImage,
    figure,
    nothing_figure,
    table,
)
from vitfeat.errors import AnalysisError
from vitfeat.figures import style
from vitfeat.figures.overlay import MARK_COLOUR

CYAN = np.rint(np.array(to_rgb(MARK_COLOUR)) * 255)


def tokens(grid: tuple[int, int], *places: tuple[int, int]) -> np.ndarray:
    found = np.zeros(grid, dtype=bool)
    for place in places:
        found[place] = True
    return found


def image(
    name: str = "a/b.png",
    grid: tuple[int, int] = (4, 6),
    queries: tuple[str, ...] = ("cls", "mean", "centre"),
    patch: int = 16,
) -> SalientImage:
    """Tokens (1, 1) and (1, 2) are foreground; two corners are kept."""
    shape = (grid[0] * patch, grid[1] * patch)
    kept = tokens(grid, (0, grid[1] - 1), (grid[0] - 1, 0))
    mask = np.zeros(shape, dtype=bool)
    mask[patch : 2 * patch, patch : 3 * patch] = True
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    both = [Kept(q, head, kept, 0.25, 0.04) for q in queries for head in (3, None)]
    return SalientImage(name, name, picture, mask, tokens(grid, (1, 1), (1, 2)), tuple(both))


def drawn(*images: SalientImage, paper: bool = False) -> Figure:
    return figure(images, title="M", note="coco, layer 3, 1 of 5 images", mass=0.6, paper=paper)


def pixels(ax: Axes) -> np.ndarray:
    (shown,) = ax.images
    return np.asarray(shown.get_array()).astype(int)


def coloured(array: np.ndarray) -> np.ndarray:
    """Where the red is well above the blue: of what is kept, and of nothing else."""
    return np.asarray(array[..., 0] - array[..., 2] > 40)


def test_kept_tokens_are_coloured_and_others_are_grey() -> None:
    array = pixels(axes_named(drawn(image()), "a/b.png cls 3"))
    step = array.shape[0] // 4
    found = coloured(array)
    expected = np.zeros_like(found)
    expected[:step, -step:] = expected[-step:, :step] = True
    np.testing.assert_array_equal(found, expected)
    # In the middle of a token of neither kind all channels are equal.
    middle = array[2 * step + step // 2, 4 * step + step // 2]
    assert len(set(middle.tolist())) == 1


@pytest.mark.parametrize("which", ["a/b.png cls 3", "a/b.png mean None", "a/b.png"])
def test_the_outline_is_that_of_the_objects(which: str) -> None:
    fig = drawn(image())
    (ax,) = (ax for ax in fig.axes if ax.get_label() == which)
    array = pixels(ax)
    step = array.shape[0] // 4
    cyan = (array == CYAN).all(-1)
    rows, columns = np.flatnonzero(cyan.any(1)), np.flatnonzero(cyan.any(0))
    assert (rows[0], rows[-1]) == (step, 2 * step - 1)
    assert (columns[0], columns[-1]) == (step, 3 * step - 1)
    # A line and no area: also between the two tokens there is none.
    assert not cyan[step + step // 2, step + step // 3 : 3 * step - step // 3].any()


def test_the_outline_is_open_at_the_edge() -> None:
    one = image()
    every = SalientImage(
        one.image, one.caption, one.picture, one.mask | True, one.foreground | True, one.kept
    )
    for ax in drawn(every).axes:
        assert not (pixels(ax) == CYAN).all(-1).any()


def test_texts() -> None:
    text = words(drawn(image("x.png"), image("y.png")))
    for part in ("CLS query", "mean of spatial queries", "centre query", "x.png", "y.png"):
        assert part in text
    assert "IoU 0.25 (0.04)" in text
    assert "by chance" in text
    assert text.count("best head: 3") == 3
    assert text.count("heads merged") == 3
    assert "60% of the attention" in text
    assert "at least half" in text
    assert "object tokens: 8%" in text
    assert "research code" in words(drawn(image(), paper=True))


def test_it_fits_on_a_page() -> None:
    """Texts of 6.5 points are at least 5.5 where a figure is printed 6.9 inches wide."""
    for grid, patch in (((14, 14), 16), ((8, 8), 4)):
        wide = drawn(image(grid=grid, patch=patch)).get_figwidth()
        assert wide < 6.9 * style.SMALL_SIZE / 5.5


@pytest.mark.parametrize(
    "images",
    [
        [image()],
        [image(f"{i}.png") for i in range(6)],
        [image(queries=("mean",))],
        [image("long/" * 60 + "name.png", queries=("cls",))],
        [image("$x_{1$.png")],
        [image(grid=(16, 16), patch=14)],
        [image(grid=(2, 9), patch=4)],
        [image(grid=(9, 3), patch=4)],
    ],
)
def test_everything_can_be_read(images: list[SalientImage]) -> None:
    assert_readable(drawn(*images))


def test_a_picture_whose_patches_leave_pixels_over() -> None:
    """Pixels beyond the last patch belong to no token: never coloured."""
    one = image(patch=16)
    wider = np.pad(one.picture, ((0, 3), (0, 0), (0, 0)))
    kept = tuple(Kept(k.query, k.head, k.tokens | True, k.iou, k.chance) for k in one.kept)
    mask = np.pad(one.mask, ((0, 3), (0, 0)))
    odd = SalientImage(one.image, one.caption, wider, mask, one.foreground, kept)
    array = pixels(axes_named(drawn(odd), "a/b.png cls 3"))
    found = coloured(array)
    last = round(64 / 67 * array.shape[0])
    assert found[: last - 1][:, :10].all()
    assert not found[last + 1 :].any()
    bare = tuple(Kept(k.query, k.head, k.tokens & False, k.iou, k.chance) for k in one.kept)
    other = SalientImage(one.image, one.caption, wider, mask, one.foreground, bare)
    plain = pixels(axes_named(drawn(other), "a/b.png cls 3"))
    np.testing.assert_array_equal(array[last + 1 :], plain[last + 1 :])


def test_a_model_without_any_query() -> None:
    fig = nothing_figure(title="M", note="coco, layer 3")
    assert_readable(fig)
    (ax,) = fig.axes
    assert "no CLS token" in " ".join(t.get_text().replace("\n", " ") for t in ax.texts)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(AnalysisError, match="needs an image and a query"):
        drawn()
    with pytest.raises(AnalysisError, match="needs an image and a query"):
        drawn(image(queries=()))


def test_the_numbers() -> None:
    rows = list(table([image("x.png", queries=("mean",))], 3))
    assert rows == [
        MaskRow("x.png", 3, "mean", 3, 2, 2, 0.25, 0.04),
        MaskRow("x.png", 3, "mean", None, 2, 2, 0.25, 0.04),
    ]
