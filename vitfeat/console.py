"""What the command line says: a progress bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TextIO

from vitfeat.text import duration

# A log file gets a line of progress this often.
_SECONDS_BETWEEN_LINES = 15.0


class Console:
    """Messages of one command.

    Parameters
    ----------
    path
        A log file. Messages go there and not to the terminal, where several jobs of a workflow
        would talk at once; errors go to both.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", buffering=1)

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def print(self, line: str) -> None:
        """Write a line of a command's result to the standard output."""
        sys.stdout.write(line + "\n")

    def log(self, line: str) -> None:
        """Write a message to the log file, or to the terminal's standard error without one."""
        stream = self._file or sys.stderr
        stream.write(line + "\n")
        stream.flush()

    def error(self, line: str) -> None:
        """Write an error's one line, to the terminal and to the log file."""
        for stream in filter(None, (sys.stderr, self._file)):
            stream.write(f"vitfeat: error: {line}\n")

    def bug(self) -> None:
        """Write the current exception's traceback to the log file; Python writes the terminal's."""
        if self._file is not None:
            traceback.print_exc(file=self._file)

    @contextmanager
    def progress(self, total: int, what: str) -> Iterator[Callable[[int], None]]:
        """Give a function that takes how many images were just done."""
        if self._file is None and sys.stderr.isatty():
            from tqdm import tqdm

            with tqdm(total=total, desc=what, unit="image", file=sys.stderr) as bar:

                def advance(n: int) -> None:
                    bar.update(n)

                yield advance
            return
        started = last = time.monotonic()
        done = 0

        def count(n: int) -> None:
            nonlocal done, last
            done += n
            now = time.monotonic()
            if now - last >= _SECONDS_BETWEEN_LINES:
                last = now
                left = (now - started) / done * (total - done)
                self.log(f"{what}: {done:,} of {total:,} images, {duration(left)} left")

        yield count
