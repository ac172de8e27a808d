"""List files: a text line for every image of a dataset."""

from __future__ import annotations

import functools
import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from vitfeat.data.images import printable
from vitfeat.errors import DataError
from vitfeat.text import plural

# What may stand where a tab belongs, and around a path.
_SEPARATOR = re.compile(r"\s*(?:[,;|:]|\\t)\s*|\s+")
_AROUND = " \"'"
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


class _Entry(NamedTuple):
    line: int
    label: str | None

    @property
    def kind(self) -> str:
        if self.label is None:
            return "no label"
        return "an integer label" if _INTEGER.fullmatch(self.label) else "a class name"


def read_list(path: Path, root: Path) -> list[tuple[str, int, str]]:
    """Read a list file: image ids, labels and names of classes, sorted by the parts of the path.

    A line is ``path`` or ``path<TAB>label``, with no other separator; the label is an integer from
    0 or the name of a class, one kind in the whole file, on all lines or on none (-1 and no name).
    Names are numbered in their sorted order. Blank lines and lines that begin with ``#`` are
    skipped (write ``./#name`` for such a file). Paths are relative to the root and must not leave
    it, neither by ``..`` nor through links.
    """
    entries = _entries(path, root)
    if not entries:
        raise DataError(f"list {printable(str(path))} names no images")
    first = next(iter(entries.values()))
    labels = set()
    for entry in entries.values():
        if entry.kind != first.kind:
            raise at(
                path,
                entry.line,
                f"{entry.kind}, but line {first.line} has {first.kind}; label all lines in one way "
                "or none",
            )
        labels.add(entry.label or "")
    # Without labels the only "name" is the empty one.
    numbers = {"": (-1, "")} if first.label is None else numbered(labels)
    for entry in entries.values():
        if entry.label is not None and numbers[entry.label][0] < 0:
            raise at(path, entry.line, f"label {entry.label} is below 0")
    rows = [(image_id, *numbers[entry.label or ""]) for image_id, entry in entries.items()]
    return sorted(rows, key=lambda row: row[0].split("/"))


def numbered(labels: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Return the number and the name of each label: of names, their place in sorted order."""
    known = sorted(set(labels))
    if all(map(_INTEGER.fullmatch, known)):
        return {label: (int(label), str(int(label))) for label in known}
    return {label: (place, label) for place, label in enumerate(known)}


def at(path: Path, line: int, problem: str) -> DataError:
    """Make the error of a line of a list."""
    return DataError(f"list {printable(str(path))}, line {line}: {problem}")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a list in UTF-8 that are not blank, with their numbers from 1."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"list {printable(str(path))} cannot be read: {error.strerror}") from None
    if b"\n" not in data and b"\r" in data.strip(b"\r"):
        raise DataError(
            f"list {printable(str(path))}: its lines end in carriage returns alone, as on old "
            "Macs; save it with line feeds"
        )
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError:
            raise at(path, number, "not valid UTF-8; save the list as UTF-8") from None
        if line.strip():
            yield number, line


def names_in(path: Path, check: Callable[[str], str], key: Callable[[str], str] = str) -> list[str]:
    """Read the keys of a list of names, each once; `check` says what is wrong with one."""
    lines: dict[str, int] = {}
    for number, line in lines_of(path):
        name = line.strip()
        if problem := check(name):
            raise at(path, number, problem)
        if (before := lines.setdefault(key(name), number)) != number:
            raise at(
                path,
                number,
                f"{printable(name)} stands on line {before} already; remove one of them",
            )
    return list(lines)


def _entries(path: Path, root: Path) -> dict[str, _Entry]:
    """Read the lines, by their image ids."""
    real_root = os.path.realpath(root)
    entries: dict[str, _Entry] = {}
    names_below = functools.cache(_names_below)
    for number, line in lines_of(path):
        if line.lstrip().startswith("#"):
            continue
        written, tab, label = line.partition("\t")
        label = label.strip()
        if tab and (not label or "\t" in label):
            raise at(path, number, "expected one label after the tab")
        image_id = _image_id(written, real_root)
        if image_id is None:
            raise at(
                path,
                number,
                f"{printable(written)} is not a path within the dataset's root "
                f"{printable(str(root))}; paths are relative to it and must not lead out of it",
            )
        if (problem := _misread(written, label, image_id, real_root, names_below)) is not None:
            raise at(path, number, problem)
        if image_id in entries:
            raise at(
                path,
                number,
                f"{printable(written)} stands on line {entries[image_id].line} already; "
                "remove one of them",
            )
        entries[image_id] = _Entry(number, label if tab else None)
    return entries


def _image_id(written: str, real_root: str) -> str | None:
    """Normalise a path of the list; None if it is not the path of a file within the root."""
    image_id = posixpath.normpath(written)
    if "\0" in image_id or image_id == "." or image_id.startswith(("/", "../")) or image_id == "..":
        return None
    real = os.path.realpath(os.path.join(real_root, image_id))  # noqa: PTH118 - no Path.realpath
    inside = os.path.commonpath([real, real_root]) == real_root
    return image_id if inside else None


def _misread(
    written: str,
    label: str,
    image_id: str,
    root: str,
    names_below: Callable[[str], dict[str, list[str]]],
) -> str | None:
    """Say what is wrong with a line that names no file, where a part or form of it names one."""

    def is_file(name: str) -> bool:
        return bool(name) and "\0" not in name and Path(root, name).is_file()

    if is_file(image_id):
        return None
    missing = f"{_quoted(written)} does not exist, but"
    bare = written.strip(_AROUND).replace("\\", "/")
    if is_file(bare):
        return f"{missing} {_quoted(bare)} does; write the path like that"
    if is_file(label):
        return f"{missing} {printable(label)} does; a line is the path, a tab and the label"
    for separator in _SEPARATOR.finditer(written):
        before = written[: separator.start()].strip(_AROUND)
        after = written[separator.end() :].strip(_AROUND)
        if is_file(before):
            return (
                f"{missing} {printable(before)} does; a tab stands before the label, found "
                f"{_shown(separator[0])}"
            )
        if is_file(after):
            return f"{missing} {printable(after)} does; a line is the path, a tab and the label"
    for cut in (place for place, letter in enumerate(image_id) if letter == "/"):
        if f"/{root}".endswith(f"/{image_id[:cut]}") and is_file(image_id[cut + 1 :]):
            return f"{missing} {_quoted(image_id[cut + 1 :])} does; paths are relative to the root"
    return _other_form(image_id, missing, names_below(str(Path(root, image_id).parent)))


def _other_form(image_id: str, missing: str, names: dict[str, list[str]]) -> str | None:
    """Name the file that differs by letter case, or by how accents are encoded, alone."""
    folder, _, name = image_id.rpartition("/")
    for found in names.get(_form(name), ()):
        if unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", name):
            return (
                f"{missing} a file does whose name has its accents encoded otherwise (Unicode NFC "
                "and NFD); write the name as the file system has it"
            )
        return f"{missing} {_quoted(posixpath.join(folder, found))} does; letter case counts"
    return None


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _names_below(folder: str) -> dict[str, list[str]]:
    """Return the names in a folder by their common form; of a folder that cannot be read, none."""
    names: dict[str, list[str]] = {}
    try:
        for path in sorted(Path(folder).iterdir()):
            names.setdefault(_form(path.name), []).append(path.name)
    except OSError:
        pass
    return names


def _quoted(text: str) -> str:
    return f"'{printable(text)}'"


def _shown(separator: str) -> str:
    return repr(separator.strip()) if separator.strip() else plural(len(separator), "space")
