"""Finding images in folders, always in the order of their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from vitfeat.data.images import image_extensions, printable, reader_of
from vitfeat.errors import DataError
from vitfeat.text import plural

Doubles = Literal["refuse", "skip", "keep"]
"""What becomes of images of a folder that differ only in their endings."""


@dataclass
class Tally:
    """What a search passed over; it grows while the search's iterators are consumed."""

    ignored_files: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    """Of the ignored files, by their endings, images that other programs read."""
    doubles: list[tuple[str, str]] = field(default_factory=list)
    """Images left out as doubles, with the reason."""
    beside_classes: int = 0
    revisited_folders: list[str] = field(default_factory=list)
    empty_classes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """Whatever else a layout noticed, a line each."""

    def pass_over(self, folder: Folder) -> None:
        """Count the files of a folder that are no images."""
        self.ignored_files += folder.others
        self.unread += folder.unread

    def unread_notes(self) -> Iterator[str]:
        """Yield a line about each kind of images that other programs read."""
        for ending, count in sorted(self.unread.items()):
            files = f"{plural(count, 'file')} ending in {ending}"
            yield f"{files} ignored, which are read by {reader_of(ending)}"

    def notes(self) -> Iterator[str]:
        """Yield one line for the log about each thing passed over."""
        if others := self.ignored_files - self.unread.total():
            yield f"{plural(others, 'file')} ignored, not an image by the extension"
        yield from self.unread_notes()
        if self.doubles:
            name, reason = self.doubles[0]
            yield (
                f"{plural(len(self.doubles), 'image')} skipped, named as another but for the "
                f"ending, first {printable(name)}: {printable(reason)}"
            )
        if self.beside_classes:
            yield f"{plural(self.beside_classes, 'image')} beside the class folders ignored"
        if self.revisited_folders:
            yield (
                f"{plural(len(self.revisited_folders), 'link')} to folders already visited not "
                f"followed, first {printable(self.revisited_folders[0])}"
            )
        for name in self.empty_classes:
            yield f"class folder {printable(name)} holds no images"
        yield from self.remarks


@dataclass(frozen=True)
class Folder:
    """What lies directly in a folder, sorted by name, dot-files left out."""

    identity: tuple[int, int]
    folders: list[str]
    images: list[str]
    others: int
    """How many files are no images by their endings."""
    unread: Counter[str]
    """Of these, by their endings, images that other programs read."""

    @staticmethod
    def read(path: Path) -> Folder:
        """List a folder."""
        folders, images, others = [], [], 0
        unread: Counter[str] = Counter()
        try:
            identity = _identity(path)
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        _require_utf8(path, entry.name)
                        folders.append(entry.name)
                        continue
                    ending = PurePosixPath(entry.name).suffix.lower()
                    if ending in image_extensions():
                        _require_utf8(path, entry.name)
                        images.append(entry.name)
                    else:
                        others += 1
                        unread[ending] += reader_of(ending) is not None
        except OSError as error:
            raise DataError(
                f"folder {printable(str(path))} cannot be read: {error.strerror}"
            ) from None
        return Folder(identity, sorted(folders), sorted(images), others, +unread)


def one_too_deep(root: Path, wanted: str) -> str:
    """Return ``" (root/inner has it)"`` where a folder of the root has what the root lacks.

    Archives are often unpacked into a folder of their own name.
    """
    if root.is_dir():
        for name in Folder.read(root).folders:
            if next((root / name).glob(wanted), None) is not None:
                return f" ({printable(str(root / name))} has it)"
    return ""


def _identity(path: Path) -> tuple[int, int]:
    """Tell a real folder from another, whatever links lead to it."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _require_utf8(path: Path, name: str) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{printable(str(path / name))}: the name is not valid UTF-8; rename it"
        ) from None


# Masks are never of these endings; of a photograph and its mask, these are the photograph.
_PHOTOGRAPHS = frozenset((".jpg", ".jpeg", ".heic", ".heif", ".webp", ".avif"))


def _unlike_stems(folder: str, images: list[str], doubles: Doubles, tally: Tally) -> list[str]:
    """Return the images of a folder without doubles: of cat.jpg beside cat.png, the photograph."""
    used: dict[str, str] = {}
    for name in sorted(images, key=lambda name: (not _is_photograph(name), name)):
        other = used.setdefault(PurePosixPath(name).stem, name)
        if other == name:
            continue
        first, second = (str(PurePosixPath(folder, n)) for n in (other, name))
        if doubles == "refuse":
            raise DataError(
                f"{printable(first)} and {printable(second)} have one name and two extensions (an "
                "image and its mask, or a copy?); remove one, name the images to use with layout: "
                f"list, or set on_error: skip, which uses {printable(other)} alone"
            )
        tally.doubles.append((second, f"{other} is used, of the same name (its mask, or a copy?)"))
    return sorted(used.values())


def _is_photograph(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _PHOTOGRAPHS


def images_below(
    root: Path, folder: str, tally: Tally, doubles: Doubles = "refuse"
) -> Iterator[str]:
    """Yield the images anywhere below a folder, lazily, sorted by the parts of their paths.

    `folder` and what is yielded are POSIX paths relative to the root. Links to folders are
    followed, each real folder once, so that loops of links end.
    """
    # The folders above count as visited: a link back to them would bring in other classes.
    visited = {_identity(root / above) for above in PurePosixPath(folder).parents}
    # A stack rather than recursion: folders may nest deeper than Python's frames.
    stack = [iter([(folder, True)])]
    while stack:
        path, is_folder = next(stack[-1], ("", False))
        if not path:
            stack.pop()
        elif not is_folder:
            yield path
        else:
            found = Folder.read(root / path)
            if found.identity in visited:
                tally.revisited_folders.append(path)
                continue
            visited.add(found.identity)
            tally.pass_over(found)
            images = found.images
            if doubles != "keep":
                images = _unlike_stems(path, images, doubles, tally)
            here = PurePosixPath(path)
            members = [(name, True) for name in found.folders]
            members += [(name, False) for name in images]
            stack.append(iter([(str(here / name), deeper) for name, deeper in sorted(members)]))
