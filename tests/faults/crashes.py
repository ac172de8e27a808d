"""Power cuts: what may be on a disk at any moment, from what was written, synced and renamed.

A disk keeps what was synced. Of the rest it may have anything: a file's bytes, some of them or
none; a name that was given or taken away since its folder was synced, or not.
"""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

#: What a name stands for: a number that no other file or folder has had.
Node = int

CALLS = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "symlink")


@dataclass
class Moment:
    """Everything below a folder, and what of it a power cut cannot take.

    Attributes
    ----------
    names, synced_names
        By folder, the nodes by their names.
    content, synced_content
        By file, its bytes; of files that were never synced there are none that are safe.
    links
        By symbolic link, where it leads, which it does from its first moment on.
    """

    names: dict[Node, dict[str, Node]]
    content: dict[Node, bytes]
    synced_names: dict[Node, dict[str, Node]]
    synced_content: dict[Node, bytes]
    links: dict[Node, str]

    def after_power_cut(self, to: Path, choose: random.Random) -> None:
        """Make a folder as a disk may have it afterwards."""
        self._restore(0, to, choose)

    def _restore(self, folder: Node, to: Path, choose: random.Random) -> None:
        to.mkdir()
        now, safe = self.names.get(folder, {}), self.synced_names.get(folder, {})
        for name in sorted({*now, *safe}):
            node = safe.get(name)
            if now.get(name) != node and choose.random() < 0.5:
                node = now.get(name)
            if node is None:
                continue
            if node in self.names or node in self.synced_names:
                self._restore(node, to / name, choose)
            elif node in self.links:
                (to / name).symlink_to(self.links[node])
            else:
                (to / name).write_bytes(self._bytes(node, choose))

    def _bytes(self, node: Node, choose: random.Random) -> bytes:
        now, safe = self.content.get(node), self.synced_content.get(node)
        if now is None or now == safe:
            return safe or b""
        cut = now[: choose.randrange(len(now) + 1)]
        return choose.choice([now, cut, bytes(len(cut)), safe or b""])


@dataclass
class Recorder:
    """Keeps the moments before each call that changes names or syncs, below one folder."""

    folder: Path
    moments: list[Moment] = field(default_factory=list)
    _nodes: dict[int, Node] = field(default_factory=dict)
    _next: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _links: dict[Node, str] = field(default_factory=dict)
    _synced_names: dict[Node, dict[str, Node]] = field(default_factory=dict)
    _synced_content: dict[Node, bytes] = field(default_factory=dict)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Look at the folder before every such call, and note what is synced behind it."""
        for name in CALLS:
            patch.setattr(os, name, self._watched(getattr(os, name), name == "fsync"))

    def _watched(self, call: Callable[..., Any], syncs: bool) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            # Zarr writes in threads of its own.
            with self._lock:
                moment = self._look()
                done = call(*arguments, **options)
                if syncs:
                    self._sync(arguments[0], moment)
            return done

        return watched

    def _look(self) -> Moment:
        names: dict[Node, dict[str, Node]] = {}
        content: dict[Node, bytes] = {}
        seen: dict[int, Node] = {os.stat(self.folder).st_ino: 0}  # noqa: PTH116

        def walk(path: Path, node: Node) -> None:
            names[node] = {}
            for entry in sorted(path.iterdir()):
                if entry.name.endswith((".lock", ".claim")):
                    continue  # They say nothing once their process is gone.
                status = entry.lstat()
                child = self._nodes.get(status.st_ino)
                if child is None:
                    child, self._next = self._next, self._next + 1
                seen[status.st_ino] = names[node][entry.name] = child
                if stat.S_ISDIR(status.st_mode):
                    walk(entry, child)
                elif stat.S_ISLNK(status.st_mode):
                    self._links[child] = os.readlink(entry)  # noqa: PTH115
                else:
                    content[child] = entry.read_bytes()

        walk(self.folder, 0)
        # A number of a file that is gone may come again, for another file.
        self._nodes = seen
        safe = dict(self._synced_names), dict(self._synced_content)
        moment = Moment(names, content, *safe, dict(self._links))
        self.moments.append(moment)
        return moment

    def _sync(self, handle: int, moment: Moment) -> None:
        node = self._nodes.get(os.fstat(handle).st_ino)
        if node is None:
            return
        if node in moment.names:
            self._synced_names[node] = moment.names[node]
        else:
            self._synced_content[node] = moment.content[node]
