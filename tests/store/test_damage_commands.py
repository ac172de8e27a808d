"""What the commands say of a store that is damaged, or of something that is no store: one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.store.filled import ONE_AN_IMAGE, Content, copied, flip, shard_of
from vitfeat.cli import main
from vitfeat.store.opening import open_store
from vitfeat.store.paths import manifest_path


class Positive(Content):
    """Of numbers that norms and attention can be as well."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.abs(values) for name, values in super().arrays().items()}


class Others(Positive):
    """Of other images, to learn from."""

    @property
    def request(self) -> dict[str, Any]:
        return super().request | {"data": {"fingerprint": "ef" * 32, "n_images": self.n_images}}


EVERY = Positive(taps=ONE_AN_IMAGE, dtype="float32")
# By array that they read: commands, with their further arguments; OUT is a path.
COMMANDS = {
    "cls": [
        ("run", "clustering", "--out", "OUT", "--clusters", "2"),
        ("run", "gram", "--tokens", "cls", "--out", "OUT"),
        ("run", "knn", "--train", "OTHERS", "--out", "OUT", "--neighbours", "2"),
        ("run", "linear_probe", "--train", "OTHERS", "--out", "OUT"),
        ("verify",),
    ],
    "attention_summary/aligned": [("run", "attention", "--out", "OUT", "--maps", "OUT")],
    "attention_mean": [("run", "clustering", "--features", "attention_mean", "--out", "OUT")],
    "block_input/cls": [("run", "residual", "--norms", "NORMS", "--cka", "OUT", "--tokens", "cls")],
    "residual_norms/mlp_skip": [("run", "residual", "--norms", "OUT")],
}
CASES = [(array, command) for array, commands in COMMANDS.items() for command in commands]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("every") / "m.zarr"
    EVERY.write(path)
    return path


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with one line, and return it."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 1
        lines = capsys.readouterr().err.splitlines()
        (error,) = [line for line in lines if line.startswith("vitfeat: error: ")]
        assert lines[-1] == error
        return error

    return run


def _arguments(command: tuple[str, ...], store: Path) -> list[str | Path]:
    folder = store.parent
    places = {"OUT": folder / "out", "NORMS": folder / "norms.csv", "OTHERS": folder / "others"}
    first = 2 if command[0] == "run" else 1
    more = [places.get(word, word) for word in command[first:]]
    return [*command[:first], store, *more]


@pytest.mark.parametrize(("array", "command"), CASES, ids=[" ".join(c) for _, c in CASES])
def test_every_command_says_a_turned_bit_in_one_line(
    every: Path, tmp_path: Path, fails: Callable[..., str], array: str, command: tuple[str, ...]
) -> None:
    store = copied(every, tmp_path / "m.zarr")
    if "OTHERS" in command:
        Others(taps=("cls",), dtype="float32").write(tmp_path / "others")
    flip(shard_of(store, array, 1), 20, bit=3)
    line = fails(*_arguments(command, store))
    assert str(store) in line
    assert array in line
    assert "checksum" in line
    assert "; run vitfeat repair, or remove it and extract it again" in line
    assert not (tmp_path / "out").exists()
    # And in an array that labels the images, whatever is read.
    flip(shard_of(store, array, 1), 20, bit=3)
    flip(shard_of(store, "image_id"), 30)
    line = fails(*_arguments(command, store))
    assert f"{store}: image_id/c.0 is not as it was when the store was sealed; copy" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["info", "verify"])
def test_what_is_no_store_is_said(
    every: Path, tmp_path: Path, fails: Callable[..., str], command: str
) -> None:
    store = copied(every, tmp_path / "digits" / "m.zarr")
    manifest = manifest_path(store)
    manifest.write_text(json.dumps({"fingerprint": open_store(store).fingerprint}))
    replace(EVERY, taps=("cls",)).write(tmp_path / "n.zarr", [0], seal=False)
    for path, words in [
        (tmp_path / "digits", "a folder of 1 store (m.zarr); give one of them"),
        (tmp_path, "a folder of 1 store (digits/m.zarr); give one of them"),
        (manifest, "the manifest of a store; the store is m.zarr beside it"),
        (store / "cls", f"a part of the store {store}; give the store"),
        (store / "cls" / "c.0.0.0", "a file, not a feature store of vitfeat"),
        (store / "zarr.json", f"the metadata of a store; the store is its folder, {store}"),
        (tmp_path / "n.zarr", "has not finished (n.zarr.partial is there); run it again"),
        (tmp_path / "n.zarr.partial", "an unfinished store; run its extraction again to go on"),
        (tmp_path / "nothing.zarr", "no such store; extract it first"),
    ]:
        line = fails(command, path)
        assert line.startswith(f"vitfeat: error: {path}: "), line
        assert words in line
    shutil.rmtree(store)
    assert "no such store, but its manifest m.json is there" in fails(command, store)
