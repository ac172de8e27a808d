"""Where published weights come from, and the record of what was fetched.

Nothing here imports torch or uses the network: the workflow asks while it plans whether weights are
on this machine, and a compute node reads the record. :mod:`vitfeat.weights.fetch` makes it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from vitfeat.errors import ConfigError, ModelError
from vitfeat.files import write_json
from vitfeat.text import nearest
from vitfeat.weights.local import looks_like_file

#: What a repository of the hub calls its weights, the safer format first.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")

FORMAT = "vitfeat-weights"
VERSION = 1

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")

_KEYS = ("repository", "file", "revision", "url", "sha256")
# The hub's rule for names, which its client checks too.
_REPOSITORY = re.compile(
    r"(?!.*(?:--|\.\.|\.git$))\w(?:[\w.-]{0,94}\w)?/\w(?:[\w.-]{0,94}\w)?", re.ASCII
)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./+-]*", re.ASCII)
# Printable ASCII: anything else stands percent-encoded in a URL.
_URL = re.compile(r"https?://[!-.0-~][!-~]*", re.IGNORECASE)


@dataclass(frozen=True)
class WeightsSource:
    """Where the weights of a model are published: a repository of the model hub, or a URL."""

    #: ``owner/name`` on the hub, or None.
    repository: str | None
    #: Names to try in this order: files of the repository, with folders where it has them; for a
    #: URL the one name that the file gets here.
    files: tuple[str, ...]
    #: Commit, branch or tag of the repository; its ``main`` if None.
    revision: str | None = None
    #: Address (http, https) of the file, or None.
    url: str | None = None
    #: What the file must have, 64 lower-case hexadecimal digits; unknown if None.
    sha256: str | None = None

    @classmethod
    def from_config(cls, value: str | Mapping[str, Any], where: str) -> WeightsSource:
        """Read a source as a config gives it.

        ``owner/name``, ``owner/name@revision``, a URL, or a mapping with ``repository`` or ``url``,
        and ``file``, ``revision``, ``sha256``.
        """
        if isinstance(value, str):
            if "://" in value:
                value = {"url": value}
            else:
                repository, at, revision = value.partition("@")
                value = {"repository": repository, **({"revision": revision} if at else {})}
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"{where}: found {value!r}; needed is 'owner/name' of the model hub, a URL, or a "
                f"mapping with {', '.join(_KEYS)}"
            )
        return cls._from_mapping(value, where)

    @classmethod
    def _from_mapping(cls, value: Mapping[str, Any], where: str) -> WeightsSource:
        for key, item in value.items():
            if key not in _KEYS:
                raise ConfigError(
                    f"{where}: unknown key {key!r}{nearest(str(key), _KEYS)}; "
                    f"allowed: {', '.join(_KEYS)}"
                )
            names = key == "file" and isinstance(item, list)
            texts = item if names and item else [item]
            if item is not None and not all(isinstance(text, str) for text in texts):
                raise ConfigError(
                    f"{where}.{key}: found {item!r}; text is needed: put it in quotes"
                )
        repository, file, revision, url, sha256 = (value.get(key) for key in _KEYS)
        if (repository is None) == (url is None):
            given = "neither" if url is None else "both"
            raise ConfigError(
                f"{where}: {given} of 'repository' and 'url' given; exactly one is needed"
            )
        if repository is not None and looks_like_file(repository):
            raise ConfigError(
                f"{where}: {repository!r} is a file on this machine; name it by 'checkpoint', "
                "which is in the place of 'weights'"
            )
        if repository is not None and not _REPOSITORY.fullmatch(repository):
            raise ConfigError(
                f"{where}: {repository!r} is no name of a repository; needed is 'owner/name' of "
                "the model hub, or a URL that starts with https://"
            )
        if revision is not None and (url is not None or not _REVISION.fullmatch(revision)):
            why = "a url has none: remove it" if url is not None else "a commit, branch or tag"
            raise ConfigError(f"{where}.revision: found {revision!r}; {why}")
        if url is not None and not _is_url(url):
            raise ConfigError(f"{where}.url: found {url!r}; an http or https address is needed")
        if sha256 is not None and not SHA256.fullmatch(sha256 := sha256.lower()):
            raise ConfigError(
                f"{where}.sha256: found {sha256!r}; 64 hexadecimal digits are needed "
                "(`sha256sum FILE` prints them)"
            )
        if url is not None and file is None:
            file = unquote(PurePosixPath(urlsplit(url).path).name)
        files = HUB_FILES if file is None else (file,) if isinstance(file, str) else tuple(file)
        one_too_many = url is not None and len(files) > 1
        if one_too_many or not all(_is_file_name(name, folders=url is None) for name in files):
            needed = (
                "the path of a file in the repository, or a list of those to try"
                if url is None
                else "the name, without folders, that the file gets here"
            )
            raise ConfigError(f"{where}.file: found {file!r}; needed is {needed}")
        return cls(repository, files, revision, url, sha256)

    def to_mapping(self) -> dict[str, Any]:
        """Return what :meth:`from_config` reads back as this source."""
        file: str | list[str] | None = self.files[0] if len(self.files) == 1 else list(self.files)
        if self.files == HUB_FILES:
            file = None
        values = (self.repository, file, self.revision, self.url, self.sha256)
        return {k: v for k, v in zip(_KEYS, values, strict=True) if v is not None}


def _is_url(url: str) -> bool:
    try:
        return bool(_URL.fullmatch(url) and urlsplit(url).hostname)
    except ValueError:  # brackets that hold no address
        return False


def _is_file_name(file: str, *, folders: bool) -> bool:
    parts = file.split("/") if folders else [file]
    return all(
        part not in ("", ".", "..") and part.isprintable() and not set(part) & set("/\\")
        for part in parts
    )


@dataclass(frozen=True)
class WeightsRecord:
    """What was fetched, and where it lies."""

    #: What was asked for.
    source: WeightsSource
    #: Repository and full hash of the commit that the file is of; None for a URL, and the revision
    #: also for a file that was placed by hand.
    repository: str | None
    revision: str | None
    url: str | None
    #: Which of the source's files it is.
    file: str
    sha256: str
    bytes: int
    path: Path
    #: Whether it was placed by hand: its SHA-256 is then all that is known of where it is from.
    placed: bool = False

    @classmethod
    def read(cls, path: Path) -> WeightsRecord:
        """Read a record; one that is absent or damaged is a :class:`ModelError`."""
        try:
            value = json.loads(path.read_text("utf-8"))
            if (value.pop("format"), value.pop("version")) != (FORMAT, VERSION):
                raise ValueError(f"not of the format {FORMAT}, version {VERSION}")
            source = WeightsSource.from_config(value.pop("source"), "source")
            place = path.parent.absolute() / value.pop("path")
            record = cls(source=source, path=place, **value)
            record._check()
        except FileNotFoundError as error:
            raise ModelError(
                f"no record of weights at {path}: run `vitfeat fetch {path.stem}`"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise ModelError(
                f"the record of weights {path} is damaged ({error}): remove it and run "
                f"`vitfeat fetch {path.stem}` again"
            ) from error
        return record

    def _check(self) -> None:
        good = (
            (self.repository, self.url) == (self.source.repository, self.source.url)
            and self.file in self.source.files
            and SHA256.fullmatch(self.sha256)
            and type(self.bytes) is int
            and self.bytes >= 0
            and type(self.placed) is bool
            # A file of a repository whose commit nobody knows can only have been placed by hand.
            and (
                COMMIT.fullmatch(self.revision)
                if self.revision is not None
                else self.placed or self.repository is None
            )
        )
        if not good:
            raise ValueError("its fields contradict each other")

    def write(self, path: Path) -> None:
        """Write the record; a file beside or below it is named relative to its folder."""
        folder, place = path.parent.absolute(), self.path.absolute()
        if place.is_relative_to(folder):
            place = place.relative_to(folder)
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields |= {"source": self.source.to_mapping(), "path": place.as_posix()}
        write_json(path, {"format": FORMAT, "version": VERSION, **fields})

    def is_there(self) -> bool:
        """Whether its file exists and has the size of then; its content is not read."""
        return self.path.is_file() and self.path.stat().st_size == self.bytes


def record_path(folder: Path, model_id: str) -> Path:
    """Return where the record of a model's weights is."""
    return folder / f"{model_id}.json"


def find_record(folder: Path, model_id: str) -> WeightsRecord | None:
    """Return the record of a model's weights, or None without one; one that is damaged raises."""
    path = record_path(folder, model_id)
    return WeightsRecord.read(path) if path.exists() else None


def place(folder: Path, model_id: str, file: str) -> Path:
    """Return where a file may be placed by hand, and where those of URLs are fetched to.

    Every model has its own folder: two that call their files alike cannot get each other's.
    """
    return folder / model_id / file


def pinned(source: WeightsSource, record: WeightsRecord | None) -> WeightsSource:
    """Return the source narrowed to exactly what a record of it says was fetched."""
    if record is None or record.source != source:
        return source
    return dataclasses.replace(
        source,
        files=(record.file,),
        revision=record.revision or source.revision,
        sha256=record.sha256,
    )


def present(source: WeightsSource, folder: Path, model_id: str) -> bool:
    """Whether weights are on this machine, as far as can be told without reading them."""
    record = find_record(folder, model_id)
    if record is not None and record.source == source and record.path.is_file():
        return record.is_there()
    wanted = pinned(source, record)
    for _, path in placed_files(wanted, folder, model_id):
        # What another source left there is not what this one means.
        if record is None or record.path != path or not record.is_there():
            return True
    return cached_file(wanted) is not None


def placed_files(source: WeightsSource, folder: Path, model_id: str) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of the files of a source that lie where they are placed by hand."""
    for file in source.files:
        if (path := place(folder.absolute(), model_id, file)).is_file():
            yield file, path


def cached_file(source: WeightsSource) -> tuple[str, Path, str] | None:
    """Return (name, path, commit) of a source's file in the hub's cache on this machine, or None.

    The cache is where ``HF_HUB_CACHE`` or ``HF_HOME`` say.
    """
    if source.repository is None:
        return None
    # 0.2 s, and most questions are answered before.
    from huggingface_hub import try_to_load_from_cache

    for file in source.files:
        found = try_to_load_from_cache(source.repository, file, revision=source.revision)
        if not isinstance(found, str):
            continue
        path = Path(found).absolute()
        commit = path.parents[file.count("/")].name
        known = (None, source.sha256)
        if COMMIT.fullmatch(commit) and (source.sha256 is None or blob_sha256(path) in known):
            return file, path, commit
    return None


def blob_sha256(path: Path) -> str | None:
    """Return the SHA-256 that the hub's cache says a file has, or None where it does not say.

    A file of the cache is a link to its repository's ``blobs/<ETag>``; the hub's ETag of weights
    is their SHA-256 (of small files git's SHA-1). What repositories share is called otherwise.
    """
    if not path.is_symlink() or (blob := path.readlink()).parent.name != "blobs":
        return None
    return blob.name if SHA256.fullmatch(blob.name) else None
