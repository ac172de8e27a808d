"""From a store of videos' frames to scores, masks and a figure, as the command does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.analyses.video.filmed import LAYERS, Films, indexed, view_named, write_films, write_store
from vitfeat.analyses.rows import ScoreRow, read_scores
from vitfeat.analyses.video.job import Choice, DrawnFrame, write_video
from vitfeat.analyses.video.propagation import propagate
from vitfeat.analyses.video.segmentation_scores import SCORES, score_sequence
from vitfeat.analyses.video.settings import VideoSettings
from vitfeat.analyses.video.soft_masks import first_labels, to_mask
from vitfeat.cli import main
from vitfeat.data.annotations import FrameRow
from vitfeat.data.masks import read_mask, write_mask
from vitfeat.data.views import SquareView
from vitfeat.errors import AnalysisError, DataError
from vitfeat.tables import read_table

GIVEN = {"context": 3, "neighbourhood": 2, "top": 3, "temperature": 0.05}
SETTINGS = VideoSettings(**GIVEN)


def quarters(height: int, width: int) -> np.ndarray:
    """Three objects and background: what tokens tell apart exactly, corners included."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[: height // 2, width // 2 :] = 1
    mask[height // 2 :, : width // 2] = 2
    mask[height // 2 :, width // 2 :] = 3
    return mask


def own_place(_: str, __: int, ___: int, grid: tuple[int, int]) -> np.ndarray:
    """Features that tell every token apart, and no frame and layer."""
    return np.eye(64)[: grid[0] * grid[1]].reshape(*grid, 64)


def drawn(sequence: str, number: int, layer: int, grid: tuple[int, int]) -> np.ndarray:
    seed = [*sequence.encode(), number, layer]
    return np.random.default_rng(seed).standard_normal((*grid, 8))


def constant(_: str, __: int, ___: int, grid: tuple[int, int]) -> np.ndarray:
    return np.ones((*grid, 3))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the analysis logged; indexes of films log too."""
    return [r.getMessage() for r in caplog.records if r.name.startswith("vitfeat.analyses.")]


@pytest.fixture
def films(tmp_path: Path) -> Films:
    """A still video of quarters, and one of two objects of which one moves."""
    moving = []
    for step in range(5):
        mask = np.zeros((24, 32), dtype=np.uint8)
        mask[:8] = 1
        mask[12:20, 4 * step : 4 * step + 12] = 2
        moving.append(mask)
    return write_films(tmp_path / "data", {"still": [quarters(24, 32)] * 6, "moving": moving})


Follow = Callable[..., list[ScoreRow]]


@pytest.fixture
def follow(films: Films, tmp_path: Path) -> Follow:
    """The rows of the table of a store of some features."""

    def run(
        features: Any = drawn,
        view: str = "dense",
        *,
        films: Films = films,
        figure: Path | None = None,
        folder: Path | None = None,
        threads: int = 1,
        **options: Any,
    ) -> list[ScoreRow]:
        number = len(list(tmp_path.iterdir()))
        path = tmp_path / str(number) / "davis" / "m.zarr"
        store = write_store(films, features, view_named(view), path)
        out = tmp_path / f"{number}.csv"
        settings = VideoSettings(**(GIVEN | options))
        paths = (store, *films.arguments(), out, figure, folder)
        write_video(*paths, settings, threads=threads)
        return read_scores(out)

    return run


def value(rows: list[ScoreRow], layer: int, score: str, group: str = "") -> float:
    (found,) = [r.value for r in rows if (r.layer, r.score, r.group) == (layer, score, group)]
    return found


@pytest.mark.parametrize("view", ["square", "padded", "dense"])
def test_features_that_tell_places_apart_follow_a_still_video_perfectly(
    tmp_path: Path, follow: Follow, view: str
) -> None:
    """In a padded view too: its tokens without picture count for nothing."""
    size = (32, 32) if view == "square" else (24, 32)
    still = write_films(tmp_path / view, {"still": [quarters(*size)] * 6})
    folder = tmp_path / "masks"
    rows = follow(own_place, view, films=still, masks="all", folder=folder, threads=2)
    for row in rows:
        assert row.value == (0.0 if row.score.endswith("decay") else 1.0), row
    for layer in LAYERS:
        for number in range(6):
            path = folder / f"{layer:02d}" / "still" / f"{number:05d}.png"
            np.testing.assert_array_equal(read_mask(path, size), quarters(*size))


def test_rows_of_the_table(follow: Follow) -> None:
    rows = follow()
    assert {(r.task, r.model, r.dataset, r.features, r.variant) for r in rows} == {
        ("video", "m", "davis", "spatial", "")
    }
    objects = ["moving/1", "moving/2", "still/1", "still/2", "still/3"]
    expected = [
        (layer, score, group) for layer in LAYERS for group in ("", *objects) for score in SCORES
    ]
    assert [(r.layer, r.score, r.group) for r in rows] == expected
    counts = {r.group: r.n for r in rows}
    assert counts == {"": 5, "moving/1": 3, "moving/2": 3, "still/1": 4, "still/2": 4, "still/3": 4}


@pytest.mark.parametrize("normalise", ["none", "paper"])
def test_scores_are_those_of_the_masks_of_every_layer(
    films: Films, follow: Follow, normalise: str
) -> None:
    """Put together here from the pieces, which have tests of their own."""
    rows = follow(normalise=normalise)
    for layer in LAYERS:
        means = []
        for name, n_frames, n_objects in (("moving", 5, 2), ("still", 6, 3)):
            truth = [
                read_mask(films.root / f"Annotations/480p/{name}/{i:05d}.png", (24, 32))
                for i in range(n_frames)
            ]
            box = (0.0, 0.0, 32.0, 24.0)
            first = first_labels(truth[0], n_objects, box, (6, 8)).labels
            frames = [drawn(name, i, layer, (6, 8)) for i in range(n_frames)]
            masks = [
                to_mask(labels, box, (24, 32), normalise)
                for labels in propagate(frames, first, SETTINGS)
            ]
            for record in score_sequence(
                truth, [truth[0], *masks], range(1, n_objects + 1)
            ).records():
                group = f"{name}/{record.number}"
                assert value(rows, layer, record.score, group) == pytest.approx(record.value)
                if record.score == "j_mean":
                    means.append(record.value)
        assert value(rows, layer, "j_mean") == pytest.approx(np.mean(means))
        both = (value(rows, layer, "j_mean") + value(rows, layer, "f_mean")) / 2
        assert value(rows, layer, "jf_mean") == pytest.approx(both)
    assert len({value(rows, layer, "j_mean") for layer in LAYERS}) == 3


def test_random_and_constant_features_are_near_chance_and_no_nan(follow: Follow) -> None:
    """Of a still video's quarters a guess hits a quarter: J of 1 in 7."""
    for features, most in ((drawn, 0.4), (constant, 0.2)):
        rows = follow(features, context=7, neighbourhood=12, top=5, temperature=0.1)
        assert all(np.isfinite(r.value) for r in rows)
        assert value(rows, 0, "j_mean", "still/1") < most


def test_masks_are_indexed_pngs_of_the_asked_layers(films: Films, tmp_path: Path) -> None:
    store = write_store(films, own_place, view_named("dense"), tmp_path / "s" / "m.zarr")
    folder = tmp_path / "masks"
    stale = folder / "01" / "still" / "00009.png"
    kept = folder / "01" / "mine.txt"
    for path in (stale, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    arguments = (store, *films.arguments(), tmp_path / "t.csv", None, folder)
    for masks, layers in (("all", ("00", "02", "05")), ("last", ("05",)), ("first", ("00",))):
        write_video(*arguments, VideoSettings(**GIVEN, masks=masks))
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
        assert found == sorted(
            f"{layer}/{name}/{number:05d}.png"
            for layer in layers
            for name, n in (("moving", 5), ("still", 6))
            for number in range(n)
        )
        assert kept.exists()
        assert not stale.parent.exists()
    with Image.open(folder / found[0]) as image:
        assert image.mode == "P"
        assert image.size == (32, 24)
        assert image.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]
    write_video(*arguments, VideoSettings(**GIVEN, masks="none"))
    assert [path for path in folder.rglob("*") if path.is_file()] == [kept]


def test_void_of_the_first_mask_is_background(tmp_path: Path, follow: Follow) -> None:
    first = quarters(24, 32)
    first[:12, :16] = 255
    films = write_films(tmp_path / "void", {"a": [first] + [quarters(24, 32)] * 4})
    folder = tmp_path / "masks"
    rows = follow(own_place, films=films, masks="last", folder=folder)
    assert {r.value for r in rows if r.score == "j_mean"} == {1.0}
    written = read_mask(folder / "05" / "a" / "00000.png", (24, 32))
    np.testing.assert_array_equal(written, quarters(24, 32))


def test_videos_with_a_first_mask_alone_are_followed_not_scored(
    tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    films = write_films(
        tmp_path / "dev", {"a": [quarters(24, 32), None, None], "b": [quarters(24, 32)] * 2}
    )
    folder, figure = tmp_path / "masks", tmp_path / "f.png"
    rows = follow(own_place, films=films, masks="first", folder=folder, figure=figure)
    assert rows == []
    assert said(caplog) == [
        "davis: 2 sequences without masks of all frames, or of fewer than three frames: not scored"
    ]
    assert [p.name for p in sorted((folder / "00" / "a").iterdir())] == [
        "00000.png",
        "00001.png",
        "00002.png",
    ]
    assert [p.name for p in folder.iterdir()] == ["00"]
    assert figure.exists()


def test_what_is_scored_stays_when_another_video_is_not(tmp_path: Path, follow: Follow) -> None:
    half = {"a": [quarters(24, 32), None, None], "b": [quarters(24, 32)] * 4}
    rows = follow(own_place, films=write_films(tmp_path / "half", half))
    assert {r.group.split("/")[0] for r in rows} == {"", "b"}
    assert {r.n for r in rows if not r.group} == {3}


def test_an_object_smaller_than_a_token_is_followed_and_said(
    tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    mask = quarters(24, 32)
    mask[17, 25] = 4
    films = write_films(tmp_path / "small", {"a": [mask] * 4})
    folder = tmp_path / "masks"
    follow(own_place, films=films, masks="last", folder=folder)
    assert said(caplog) == [
        "sequence a: object 4 (1 pixel) has the largest share of no token: its shares are raised "
        "so that it can be followed"
    ]
    for number in range(4):
        found = read_mask(folder / "05" / "a" / f"{number:05d}.png", (24, 32))
        assert found[17, 25] == 4
        assert (found == 4).sum() <= 16


def test_an_object_that_no_pixel_of_the_first_mask_has_is_none(
    tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    """Objects 1 and 3: 1 is followed perfectly; 3 is gone after the first frame, predicted yet."""
    first, later = quarters(24, 32), quarters(24, 32)
    first[first == 2] = later[later == 2] = 0
    later[later == 3] = 0
    films = write_films(tmp_path / "gap", {"gap": [first, later, later, later]})
    rows = follow(own_place, films=films)
    assert {r.group for r in rows} == {"", "gap/1", "gap/3"}
    assert (value(rows, 0, "jf_mean", "gap/1"), value(rows, 0, "jf_mean", "gap/3")) == (1, 0)
    assert value(rows, 0, "jf_mean") == 0.5
    assert {r.n for r in rows if not r.group} == {2}
    assert said(caplog) == [
        "sequence gap: 2 of its objects without a pixel in the first mask: not scored"
    ]
    # As davis2017-evaluation: as many objects as the highest number; one that is nowhere is right.
    caplog.clear()
    official = follow(own_place, films=films, objects="official")
    assert value(official, 0, "jf_mean", "gap/2") == 1
    assert value(official, 0, "jf_mean") == pytest.approx(2 / 3)
    assert said(caplog) == [
        "sequence gap: 2 of its objects without a pixel in the first mask: scored"
    ]


def test_frames_that_exif_turns_are_drawn_with_their_masks(tmp_path: Path, follow: Follow) -> None:
    """Stored on their side, 24 wide and 32 high; the masks are of 32 x 24, as frames are seen."""
    films = write_films(tmp_path / "side", {"a": [quarters(24, 32)] * 4})
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, path in enumerate(sorted((films.root / "JPEGImages/480p/a").iterdir())):
        Image.new("RGB", (24, 32), (9 * number, 90, 30)).save(path, exif=exif)
    with pytest.raises(DataError, match=r"datasets\.davis\.orientation: exif$"):
        indexed(films.root)
    turned = indexed(films.root, orientation="exif")
    figure = tmp_path / "frames.png"
    rows = follow(own_place, films=turned, figure=figure)
    assert value(rows, 0, "jf_mean") == 1
    assert figure.exists()


def test_objects_that_come_later_and_void_are_said(
    tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    first, later = quarters(24, 32), quarters(24, 32)
    later[0, :3], later[1, :2] = 4, 255
    films = write_films(tmp_path / "later", {"a": [first, later, first]})
    follow(own_place, films=films)
    assert said(caplog) == [
        "sequence a: objects that come after its first mask, not scored: 4",
        "sequence a: masks with pixels of 255 (void), which count as background",
    ]


def test_objects_that_vanish_are_said_with_their_layers(
    tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    """Tokens of the object are told from the others in layer 2 alone; else all are alike."""

    def in_layer_2(sequence: str, number: int, layer: int, grid: tuple[int, int]) -> np.ndarray:
        if layer == 2:
            return own_place(sequence, number, layer, grid)
        return np.ones((*grid, 64))

    mask = np.zeros((24, 32), dtype=np.uint8)
    mask[8:16, 8:16] = 1
    films = write_films(tmp_path / "gone", {"a": [mask] * 4})
    follow(in_layer_2, films=films)
    assert said(caplog) == [
        "sequence a: object 1 has no pixel after the first frame with the features of layers 0, 5"
    ]
    follow(constant, films=films)
    assert said(caplog)[1:] == [
        "sequence a: object 1 has no pixel after the first frame with the features of any layer"
    ]


def test_objects_that_the_view_cuts_off_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = np.zeros((32, 64), dtype=np.uint8)
    mask[:, :8], mask[:16, 24:40] = 1, 2
    films = write_films(tmp_path / "wide", {"a": [mask] * 3})
    store = write_store(films, own_place, SquareView((32, 32), 1.0), tmp_path / "s" / "m.zarr")
    out = tmp_path / "t.csv"
    write_video(store, *films.arguments(), out, None, None, SETTINGS)
    assert said(caplog) == ["sequence a: object 1 cannot be followed: the view does not show it"]
    rows = read_scores(out)
    assert value(rows, 0, "j_mean", "a/1") == 0
    assert value(rows, 0, "j_mean", "a/2") > 0.9


def test_a_video_without_objects_is_left_out(
    tmp_path: Path, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    empty = [np.zeros((24, 32), dtype=np.uint8)] * 3
    films = write_films(tmp_path / "none", {"a": empty, "b": [quarters(24, 32)] * 3})
    rows = follow(own_place, films=films)
    assert said(caplog) == ["sequence a: its first mask holds no object: left out"]
    assert {r.group.split("/")[0] for r in rows} == {"", "b"}


def test_the_figure_shows_the_next_video_for_one_without_objects(
    tmp_path: Path, follow: Follow
) -> None:
    empty = [np.zeros((24, 32), dtype=np.uint8)] * 3
    films = write_films(tmp_path / "none", {"a": empty, "b": [quarters(24, 32)] * 3})
    follow(own_place, films=films, figure=tmp_path / "f.png")
    assert (tmp_path / "f.png").exists()
    names = [f"{number}" for number in range(9)]
    choice = Choice([FrameRow(name, 0, name, name) for name in names])
    # Officially 0, 2, 4, 6 and 8.
    assert [name for name in names if name not in "04" and choice.takes(name)] == list("12568")


def test_no_video_with_objects_leaves_nothing(tmp_path: Path, follow: Follow) -> None:
    empty = [np.zeros((24, 32), dtype=np.uint8)] * 3
    films = write_films(tmp_path / "none", {"a": empty})
    with pytest.raises(AnalysisError, match=r"no sequence .* has an object in its first mask"):
        follow(own_place, films=films, figure=tmp_path / "f.png")
    assert not [path for path in tmp_path.glob("*.csv") if path.stat().st_size]
    assert not (tmp_path / "f.png").exists()


def test_threads_change_no_byte(follow: Follow) -> None:
    assert follow(threads=1) == follow(threads=3)


def test_the_command(films: Films, tmp_path: Path) -> None:
    write_store(films, drawn, view_named("dense"), tmp_path / "davis" / "a.zarr")
    write_store(films, own_place, view_named("dense"), tmp_path / "davis" / "b.zarr")
    frames, index, root = map(str, films.arguments())
    command = [
        *("run", "video", str(tmp_path / "davis" / "{model}.zarr"), "--models", "a", "b"),
        *("--frames", frames, "--index", index, "--root", root, "--labels", "Model A", "Model B"),
        *("--context", "3", "--neighbourhood", "2", "--top", "3", "--temperature", "0.05"),
        *("--normalise", "paper", "--masks", "middle", "--threads", "2"),
        *("--out", str(tmp_path / "{model}.csv"), "--figure", str(tmp_path / "{model}" / "f.png")),
        *("--mask-folder", str(tmp_path / "{model}" / "masks")),
    ]
    assert main(command) == 0
    settings = VideoSettings(**GIVEN, normalise="paper")
    for model in "ab":
        store, expected = tmp_path / "davis" / f"{model}.zarr", tmp_path / "expected.csv"
        write_video(store, *films.arguments(), expected, None, None, settings)
        assert (tmp_path / f"{model}.csv").read_bytes() == expected.read_bytes()
        assert [path.name for path in (tmp_path / model / "masks").iterdir()] == ["02"]
        assert (tmp_path / model / "f.pdf").exists()


def test_every_line_of_a_log_of_several_models_says_which(tmp_path: Path) -> None:
    void = quarters(24, 32)
    void[:2] = 255
    films = write_films(tmp_path / "void", {"film": [void] * 2})
    for model in "ab":
        write_store(films, drawn, view_named("dense"), tmp_path / "davis" / f"{model}.zarr")
    frames, index, root = map(str, films.arguments())
    command = [
        *("run", "video", str(tmp_path / "davis" / "{model}.zarr"), "--models", "a", "b"),
        *("--frames", frames, "--index", index, "--root", root, "--log", str(tmp_path / "log")),
        *("--out", str(tmp_path / "{model}.csv"), "--figure", str(tmp_path / "{model}/f.png")),
        *("--mask-folder", str(tmp_path / "{model}" / "masks")),
    ]
    assert main(command) == 0
    said = "sequence film: masks with pixels of 255 (void), which count as background"
    lines = (tmp_path / "log").read_text("utf-8").splitlines()
    assert [line for line in lines if "void" in line] == [f"a: {said}", f"b: {said}"]


def test_numbers_beside_the_figure_are_its_frames_and_scores(
    films: Films, tmp_path: Path, follow: Follow
) -> None:
    figure = tmp_path / "frames.png"
    rows = follow(figure=figure)
    drawn_frames = read_table(figure.with_suffix(".csv"), DrawnFrame, "table", "")
    assert [(one.sequence, one.frame, one.image_id) for one in drawn_frames] == [
        (name, number, f"JPEGImages/480p/{name}/{number:05d}.jpg")
        for name, n in (("moving", 5), ("still", 6))
        for number in range(n)
    ]
    for one in drawn_frames:
        objects = [
            r.value
            for r in rows
            if r.layer == LAYERS[-1] and r.score == "jf_mean" and r.group.startswith(one.sequence)
        ]
        assert one.jf_mean == pytest.approx(np.mean(objects))


def test_errors_name_the_file_or_the_sequence(films: Films, tmp_path: Path, follow: Follow) -> None:
    def poisoned(sequence: str, number: int, layer: int, grid: tuple[int, int]) -> np.ndarray:
        found = drawn(sequence, number, layer, grid)
        if (sequence, number, layer) == ("moving", 3, 2):
            found[1, 1, 1] = np.inf
        return found

    with pytest.raises(AnalysisError, match=r"sequence moving, layer 2: frame 3: features hold"):
        follow(poisoned)
    (films.root / "Annotations/480p/still/00002.png").unlink()
    with pytest.raises(DataError, match=r"Annotations/480p/still/00002\.png"):
        follow()


def test_a_table_of_other_frames_is_an_error(films: Films, tmp_path: Path, follow: Follow) -> None:
    text = films.frames_path.read_text()
    films.frames_path.write_text(text.replace("moving/00003.jpg", "moving/00033.jpg"))
    with pytest.raises(DataError, match=r"moving/00033.jpg of the table of frames is not in the"):
        follow()
    films.frames_path.write_text(text.replace("Annotations/480p/still/00000.png", ""))
    with pytest.raises(DataError, match=r"sequence still: no mask of its first frame in the table"):
        follow()


def test_frames_of_one_video_have_one_size(tmp_path: Path, follow: Follow) -> None:
    films = write_films(tmp_path / "data2", {"a": [quarters(24, 32)] * 3})
    Image.new("RGB", (40, 24)).save(films.root / "JPEGImages/480p/a/00001.jpg")
    mask = np.zeros((24, 40), dtype=np.uint8)
    write_mask(films.root / "Annotations/480p/a/00001.png", mask)
    with pytest.raises(DataError, match=r"sequence a: frames of different sizes, 32 x 24 and 40"):
        follow(films=indexed(films.root))


def test_the_store_must_be_of_the_index_and_hold_all_spatial_tokens(
    films: Films, tmp_path: Path
) -> None:
    other = write_films(tmp_path / "other", {"a": [quarters(24, 32)] * 3})
    store = write_store(films, drawn, view_named("dense"), tmp_path / "s" / "m.zarr")
    with pytest.raises(AnalysisError, match=r"index.csv lists other images than .*m.zarr was made"):
        write_video(store, *other.arguments(), tmp_path / "t.csv", None, None, SETTINGS)
    square = tmp_path / "q" / "m.zarr"
    write_store(films, drawn, view_named("square"), square, taps=("attention_mean",))
    some = tmp_path / "l" / "m.zarr"
    write_store(films, drawn, view_named("square"), some, kept={"spatial": (0, 1, 2)})
    for path in (square, some):
        with pytest.raises(
            AnalysisError,
            match=r"spatial tokens .* which videos are followed by",
        ):
            write_video(path, *films.arguments(), tmp_path / "t.csv", None, None, SETTINGS)
