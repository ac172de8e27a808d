from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vitfeat.errors import AnalysisError
from vitfeat.numerics.gram import Gram, gram
from vitfeat.numerics.gramfile import NOTHING, GramFile, GramMeta, write_gram_file, write_left_out

META = GramMeta("vit", "digits", "spatial", "images-1", "features-1")


def grams(count: int, n: int) -> list[Gram]:
    rng = np.random.default_rng(count * 100 + n)
    layers = rng.normal(size=(count, n, 5)).astype(np.float32)
    return [gram(lambda a, b, x=x: x[a:b], n) for x in layers]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gram.safetensors"


# An odd number of float32 would push float64 tensors off their alignment if they came after.
@pytest.mark.parametrize(("count", "n"), [(1, 1), (3, 7), (2, 8)])
def test_round_trip(path: Path, count: int, n: int) -> None:
    written = grams(count, n)
    layers = [2 * index + 1 for index in range(count)]
    write_gram_file(path, layers, iter(written), META)
    file = GramFile(path)
    assert (file.meta, file.n_images, file.layers) == (META, n, tuple(layers))
    for index, one in enumerate(written):
        found = file.gram(index)
        assert found.level == one.level
        for name in ("centred", "offset", "row_sum", "diag"):
            np.testing.assert_array_equal(getattr(found, name), getattr(one, name), err_msg=name)
    stack = np.stack([one.centred for one in written])
    np.testing.assert_array_equal(file.block(n // 2, n), stack[:, n // 2 :])


def test_the_library_reads_what_we_write(path: Path) -> None:
    written = grams(3, 7)
    write_gram_file(path, range(3), written, META)
    tensors = load_file(path)
    assert {name: (str(t.dtype), t.shape) for name, t in tensors.items()} == {
        "centred": ("float32", (3, 7, 7)),
        "offset": ("float64", (3, 7)),
        "row_sum": ("float64", (3, 7)),
        "diag": ("float64", (3, 7)),
        "level": ("float64", (3,)),
        "layer": ("int64", (3,)),
        "crc32c": ("int64", (3, 7)),
        "sha256": ("uint8", (32,)),
    }
    np.testing.assert_array_equal(tensors["centred"][1], written[1].centred)
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {
            "format": "vitfeat-gram",
            "version": "2",
            "n_images": "7",
            "model": "vit",
            "dataset": "digits",
            "tokens": "spatial",
            "image_fingerprint": "images-1",
            "features_fingerprint": "features-1",
            "made_from": "spatial",
        }


def test_what_stands_in_is_told(path: Path) -> None:
    meta = replace(META, tokens="cls", made_from="mean")
    write_gram_file(path, range(2), grams(2, 6), meta)
    assert GramFile(path).meta == meta
    assert not GramFile(path).left_out


def test_files_that_do_not_say_are_made_from_what_was_asked(path: Path) -> None:
    write_gram_file(path, range(2), grams(2, 6), META)
    rewritten(lambda _, meta: meta.pop("made_from"))(path)
    assert GramFile(path).meta.made_from == "spatial"


def test_a_model_that_was_left_out_has_a_file_without_layers(path: Path) -> None:
    write_left_out(path, 7, replace(META, tokens="cls"))
    file = GramFile(path)
    assert file.left_out
    assert (file.layers, file.n_images) == ((), 7)
    assert file.meta == replace(META, tokens="cls", made_from=NOTHING)
    assert load_file(path)["centred"].shape == (0, 7, 7)


def test_same_input_same_bytes(path: Path, tmp_path: Path) -> None:
    for name in (path, tmp_path / "other"):
        write_gram_file(name, range(2), grams(2, 6), META)
    assert path.read_bytes() == (tmp_path / "other").read_bytes()


def test_nothing_is_left_of_a_failure(path: Path) -> None:
    def failing() -> Iterator[Gram]:
        yield from grams(1, 4)
        raise RuntimeError("the disk of the features went away")

    write_gram_file(path, [0], grams(1, 5), META)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="went away"):
        write_gram_file(path, range(2), failing(), META)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("layers", "given", "message"),
    [
        ([], [], "0 Gram matrices for 0 layers"),
        ([0, 1, 2], grams(2, 4), "2 Gram matrices for 3 layers"),
        ([0], grams(2, 4), "more Gram matrices than the 1 layers"),
        ([0, 1], [*grams(1, 4), *grams(1, 5)], "of 4 and of 5 images"),
    ],
)
def test_unfit_grams_fail(path: Path, layers: list[int], given: list[Gram], message: str) -> None:
    with pytest.raises(AnalysisError, match=rf"vit on digits \(spatial\): .*{message}"):
        write_gram_file(path, layers, given, META)
    assert list(path.parent.iterdir()) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_json(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20:30] = b"\xff" * 10
    path.write_bytes(data)


def rewritten(change: Callable[[dict[str, np.ndarray], dict[str, str]], None]) -> Callable:
    def damage(path: Path) -> None:
        tensors = load_file(path)
        with safe_open(path, framework="np") as file:
            meta = file.metadata()
        # As version 1 was, without checksums.
        meta["version"] = "1"
        del tensors["crc32c"], tensors["sha256"]
        change(tensors, meta)
        save_file(tensors, path, meta)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "is damaged"),
        (cut_in_header, "is damaged"),
        (empty, "is damaged"),
        (no_json, "is damaged"),
        (rewritten(lambda tensors, _: tensors.pop("diag")), "is damaged"),
        (rewritten(lambda _, meta: meta.pop("image_fingerprint")), "is damaged"),
        (rewritten(lambda _, meta: meta.update(n_images="x")), "is damaged"),
        (rewritten(lambda _, meta: meta.update(n_images="8")), "has shape"),
        (rewritten(lambda t, _: t.update(centred=t["centred"][:1])), "centred has shape"),
        (rewritten(lambda _, meta: meta.update(made_from=NOTHING)), "2 layers made from nothing"),
        (rewritten(lambda _, meta: meta.update(version="0")), "version 2, but .* version 0"),
        (rewritten(lambda _, meta: meta.clear()), "but unknown version unknown"),
        (Path.unlink, "no Gram file at"),
    ],
)
def test_unreadable_files_fail_in_one_line(
    path: Path, damage: Callable[[Path], None], message: str
) -> None:
    write_gram_file(path, range(2), grams(2, 7), META)
    damage(path)
    with pytest.raises(AnalysisError, match=message) as caught:
        GramFile(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_gram_file(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=f"{tmp_path} is a folder and no Gram file"):
        GramFile(tmp_path)
