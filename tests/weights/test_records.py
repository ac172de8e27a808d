from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from vitfeat.errors import ConfigError, ModelError
from vitfeat.weights.records import (
    HUB_FILES,
    WeightsRecord,
    WeightsSource,
    blob_sha256,
    cached_file,
    find_record,
    pinned,
    place,
    present,
    record_path,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SUM = "5e" * 32
HUB = WeightsSource("owner/name", ("model.safetensors",), COMMIT)
URL = WeightsSource(None, ("model.pth",), url="https://example.org/model.pth")


def _read(value: Any) -> WeightsSource:
    return WeightsSource.from_config(value, "catalog.mine.weights")


def _record(path: Path, **changes: Any) -> WeightsRecord:
    fields = {
        "source": HUB,
        "repository": HUB.repository,
        "revision": COMMIT,
        "url": None,
        "file": "model.safetensors",
        "sha256": SUM,
        "bytes": 4,
        "path": path,
    }
    return WeightsRecord(**{**fields, **changes})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def _fill_cache(cache: Path, file: str = "model.safetensors", name: str = SUM) -> Path:
    """Put a file into the cache as the hub's client does, as its branch main."""
    repository = cache / "models--owner--name"
    for folder in ("blobs", "refs"):
        (repository / folder).mkdir(parents=True, exist_ok=True)
    (repository / "blobs" / name).write_bytes(b"data")
    (repository / "refs" / "main").write_text(COMMIT)
    link = repository / "snapshots" / COMMIT / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(repository / "blobs" / name)
    return link


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("owner/name", WeightsSource("owner/name", HUB_FILES)),
        ("o/" + "n" * 96, WeightsSource("o/" + "n" * 96, HUB_FILES)),
        ("timm/vit_b.in1k@v1.0", WeightsSource("timm/vit_b.in1k", HUB_FILES, "v1.0")),
        ("a/b@refs/pr/1", WeightsSource("a/b", HUB_FILES, "refs/pr/1")),
        ("https://example.org/model.pth", URL),
        (
            "HTTP://example.org/a/my%20file.bin?download=1#x",
            WeightsSource(
                None, ("my file.bin",), url="HTTP://example.org/a/my%20file.bin?download=1#x"
            ),
        ),
        (
            {"repository": "a/b", "file": "sub/w.bin", "revision": COMMIT, "sha256": SUM.upper()},
            WeightsSource("a/b", ("sub/w.bin",), COMMIT, None, SUM),
        ),
        (
            {"url": "https://example.org/get?id=3", "file": "w.pth", "sha256": SUM},
            WeightsSource(None, ("w.pth",), None, "https://example.org/get?id=3", SUM),
        ),
        ({"repository": "a/b", "file": None, "url": None}, WeightsSource("a/b", HUB_FILES)),
    ],
)
def test_sources(value: Any, source: WeightsSource) -> None:
    assert _read(value) == source
    assert _read(json.loads(json.dumps(source.to_mapping()))) == source


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, r": found 3; needed is 'owner/name'"),
        (["a/b"], r": found \['a/b'\]"),
        ("name", r": 'name' is no name of a repository"),
        ("a/b/c", "no name of a repository"),
        ("a/../b", "no name of a repository"),
        ("a/b..c", "no name of a repository"),
        ("a/b--c", "no name of a repository"),
        ("a/-b", "no name of a repository"),
        ("a/b.git", "no name of a repository"),
        ("a/b c", "no name of a repository"),
        ("a/é", "no name of a repository"),
        ("a/" + "b" * 97, "no name of a repository"),
        ("a" * 97 + "/b", "no name of a repository"),
        ("", "no name of a repository"),
        ("a/b@", r"\.revision: found ''"),
        ("a/b@../c", r"\.revision: found '\.\./c'"),
        ("file:///etc/passwd", r"\.url: found 'file:///etc/passwd'; an http or https"),
        ("ftp://example.org/w.pth", r"\.url"),
        ("https:///w.pth", r"\.url"),
        ("https://[1/w.pth", r"\.url"),
        ("https://example.org/ä.pth", r"\.url"),
        ("https://example.org/a b.pth", r"\.url"),
        ("https://example.org/", r"\.file: found ''; needed is the name"),
        ("https://example.org/..", r"\.file: found '\.\.'"),
        ("https://example.org/a%2Fb", r"\.file: found 'a/b'"),
        ({"repositry": "a/b"}, r": unknown key 'repositry' \(did you mean 'repository'\?\)"),
        ({1: "a/b"}, r": unknown key 1"),
        ({}, r": neither of 'repository' and 'url' given"),
        ({"repository": "a/b", "url": "https://x.org/w"}, r": both of 'repository' and 'url'"),
        ({"repository": "a/b", "revision": 1234567}, r"\.revision: found 1234567; text"),
        ({"url": "https://x.org/w", "revision": "main"}, r"\.revision: .* a url has none"),
        ({"repository": "a/b", "file": "../w"}, r"\.file: found '\.\./w'; needed is the path"),
        ({"repository": "a/b", "file": "/w"}, r"\.file"),
        ({"repository": "a/b", "file": "a\\b"}, r"\.file"),
        ({"repository": "a/b", "file": "a\nb"}, r"\.file"),
        ({"url": "https://x.org/w", "file": "a/b"}, r"\.file: found 'a/b'; needed is the name"),
        ({"url": "https://x.org/w", "file": ".."}, r"\.file"),
        ({"url": "https://x.org/w", "sha256": "5e"}, r"\.sha256: found '5e'; 64 hexadecimal"),
        ({"url": "https://x.org/w", "sha256": "x" * 64}, r"\.sha256"),
    ],
)
def test_wrong_sources(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^catalog\.mine\.weights.*{message}") as info:
        _read(value)
    assert "\n" not in str(info.value)


def test_a_record_comes_back(tmp_path: Path) -> None:
    path = record_path(tmp_path / "weights", "mine")
    assert path == tmp_path / "weights" / "mine.json"
    assert find_record(tmp_path / "weights", "mine") is None
    for record in (
        _record(tmp_path / "elsewhere" / "model.safetensors"),
        _record(tmp_path / "model.safetensors", revision=None, placed=True),
        _record(
            tmp_path, source=URL, repository=None, revision=None, url=URL.url, file="model.pth"
        ),
    ):
        record.write(path)
        assert WeightsRecord.read(path) == record
        assert find_record(tmp_path / "weights", "mine") == record


def test_records_and_files_move_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = _record(Path("old/mine/model.safetensors"))
    record.write(record_path(Path("old"), "mine"))
    assert json.loads(Path("old/mine.json").read_text())["path"] == "mine/model.safetensors"
    Path("old").rename("new")
    moved = WeightsRecord.read(Path("new/mine.json"))
    assert moved.path == tmp_path / "new" / "mine" / "model.safetensors"
    # A file elsewhere stays where it is.
    record = _record(Path("other/model.safetensors"))
    record.write(Path("new/mine.json"))
    expected = tmp_path / "other" / "model.safetensors"
    assert json.loads(Path("new/mine.json").read_text())["path"] == str(expected)


@pytest.mark.parametrize(
    "changes",
    [
        "",
        "[]",
        "3",
        '"x"',
        {"format": "other"},
        {"version": 2},
        {"more": 1},
        {"path": None},
        {"path": 3},
        {"sha256": None},
        {"sha256": "5e"},
        {"sha256": 3},
        {"bytes": -1},
        {"bytes": True},
        {"bytes": 4.0},
        {"revision": "main"},
        {"revision": None},
        {"repository": "other/name"},
        {"url": "https://example.org/model.pth"},
        {"file": "other"},
        {"placed": 1},
        {"source": {"repository": "no name"}},
        {"source": None},
    ],
)
def test_damaged_records(tmp_path: Path, changes: str | dict[str, Any]) -> None:
    path = record_path(tmp_path, "mine")
    _record(tmp_path / "file").write(path)
    if isinstance(changes, str):
        path.write_text(changes)
    else:
        value = json.loads(path.read_text())
        path.write_text(json.dumps({**value, **changes}))
    with pytest.raises(
        ModelError, match=r"mine\.json is damaged \(.+\): remove it and run"
    ) as info:
        WeightsRecord.read(path)
    assert "`vitfeat fetch mine`" in str(info.value)
    with pytest.raises(ModelError, match="is damaged"):
        present(HUB, tmp_path, "mine")


def test_every_field_of_a_record_is_needed(tmp_path: Path) -> None:
    path = record_path(tmp_path, "mine")
    _record(tmp_path / "file").write(path)
    whole = json.loads(path.read_text())
    for key in whole.keys() - {"placed"}:
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        with pytest.raises(ModelError, match="is damaged"):
            WeightsRecord.read(path)


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no record .*mine\.json: run `vitfeat fetch mine`"):
        WeightsRecord.read(record_path(tmp_path, "mine"))


def test_pinned(tmp_path: Path) -> None:
    source = WeightsSource("owner/name", HUB_FILES, "main")
    assert pinned(source, None) == source
    assert pinned(source, _record(tmp_path)) == source
    exactly = WeightsSource("owner/name", ("model.safetensors",), COMMIT, None, SUM)
    assert pinned(source, _record(tmp_path, source=source)) == exactly
    placed = _record(tmp_path, source=source, revision=None, placed=True)
    assert pinned(source, placed).revision == "main"


def test_present_by_its_record(tmp_path: Path) -> None:
    file = tmp_path / "file"
    record = _record(file)
    record.write(record_path(tmp_path, "mine"))
    assert not present(HUB, tmp_path, "mine")
    file.write_bytes(b"data")
    assert present(HUB, tmp_path, "mine")
    assert not present(HUB, tmp_path, "other")
    # Of another revision nothing is here.
    assert not present(WeightsSource("owner/name", HUB.files, "v2"), tmp_path, "mine")
    file.write_bytes(b"other data")
    assert not present(HUB, tmp_path, "mine")


@pytest.mark.parametrize("source", [HUB, URL])
def test_present_by_hand(
    tmp_path: Path, source: WeightsSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place(tmp_path, "mine", source.files[0])
    assert file == tmp_path / "mine" / source.files[0]
    file.parent.mkdir()
    assert not present(source, tmp_path, "mine")
    file.mkdir()
    assert not present(source, tmp_path, "mine")
    file.rmdir()
    file.write_bytes(b"data")
    assert present(source, tmp_path, "mine")
    assert not present(source, tmp_path, "other")
    monkeypatch.chdir(tmp_path)
    assert present(source, Path(), "mine")


@pytest.mark.parametrize("placed", [True, False])
def test_what_another_source_left_is_not_present(tmp_path: Path, placed: bool) -> None:
    file = place(tmp_path, "mine", "model.pth")
    file.parent.mkdir()
    file.write_bytes(b"data")
    record = _record(
        file,
        source=URL,
        repository=None,
        revision=None,
        url=URL.url,
        file="model.pth",
        placed=placed,
    )
    record.write(record_path(tmp_path, "mine"))
    newer = WeightsSource(None, ("model.pth",), url="https://example.org/v2/model.pth")
    assert present(URL, tmp_path, "mine")
    assert not present(newer, tmp_path, "mine")
    file.write_bytes(b"other data")
    assert present(newer, tmp_path, "mine")


def test_present_in_the_cache(tmp_path: Path, cache: Path) -> None:
    main = WeightsSource("owner/name", HUB_FILES)
    assert cached_file(main) is None
    assert not present(main, tmp_path, "mine")
    link = _fill_cache(cache)
    for source in (main, HUB):
        assert cached_file(source) == ("model.safetensors", link, COMMIT)
        assert present(source, tmp_path, "mine")
    for other in (
        WeightsSource("owner/other", HUB_FILES),
        WeightsSource("owner/name", ("other",)),
        WeightsSource("owner/name", HUB_FILES, "v2"),
        WeightsSource("owner/name", HUB_FILES, sha256="00" * 32),
        URL,
    ):
        assert cached_file(other) is None
        assert not present(other, tmp_path, "mine")
    assert cached_file(WeightsSource("owner/name", HUB_FILES, sha256=SUM)) is not None


def test_the_cache_has_folders_and_several_names(cache: Path) -> None:
    link = _fill_cache(cache, "sub/folder/w.bin", name="git-sum")
    source = WeightsSource("owner/name", ("sub/folder/w.bin",), sha256=SUM)
    assert cached_file(source) == ("sub/folder/w.bin", link, COMMIT)
    second = _fill_cache(cache, "pytorch_model.bin")
    found = cached_file(WeightsSource("owner/name", HUB_FILES))
    assert found == ("pytorch_model.bin", second, COMMIT)


def test_what_the_cache_calls_a_blob(cache: Path, tmp_path: Path) -> None:
    link = _fill_cache(cache)
    assert blob_sha256(link) == SUM
    assert blob_sha256(_fill_cache(cache, "other", name="git-sum")) is None
    # What repositories share is called by another sum.
    shared = cache / "blobs" / SUM[:2] / SUM
    link.unlink()
    link.symlink_to(shared)
    assert blob_sha256(link) is None
    (tmp_path / SUM).write_bytes(b"data")
    assert blob_sha256(tmp_path / SUM) is None


def test_a_record_asks_the_cache_for_its_commit(tmp_path: Path, cache: Path) -> None:
    main = WeightsSource("owner/name", HUB_FILES)
    _fill_cache(cache)
    _record(tmp_path / "lost", source=main, revision="f" * 40).write(record_path(tmp_path, "mine"))
    assert not present(main, tmp_path, "mine")
    _record(tmp_path / "lost", source=main).write(record_path(tmp_path, "mine"))
    assert present(main, tmp_path, "mine")


def test_a_record_asks_for_its_file(tmp_path: Path) -> None:
    main = WeightsSource("owner/name", HUB_FILES)
    file = place(tmp_path, "mine", "pytorch_model.bin")
    file.parent.mkdir()
    file.write_bytes(b"data")
    assert present(main, tmp_path, "mine")
    _record(tmp_path / "lost", source=main).write(record_path(tmp_path, "mine"))
    assert not present(main, tmp_path, "mine")


def test_planning_imports_neither_torch_nor_the_hub() -> None:
    script = "import sys, vitfeat.weights.records; print(sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "'vitfeat.weights.records'" in run.stdout
    for module in ("'torch'", "'huggingface_hub'", "'urllib.request'"):
        assert module not in run.stdout
