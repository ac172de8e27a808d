"""What the command line says: one line of progress on a terminal, plain lines in a log file."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TextIO

from vitfeat.progress import ProgressCounter

# Set by what shows the errors of a workflow's jobs from their logs: they need not write them to the
# terminal themselves, in the middle of what is shown there.
ERRORS_FROM_LOGS = "VITFEAT_ERRORS_FROM_LOGS"

logger = logging.getLogger("vitfeat")


def log_to_terminal() -> None:
    """Write what vitfeat logs to the standard error, with its name, among lines of others."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("vitfeat: %(message)s"))
    # A workflow's rules are read more than once.
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Lines(logging.Handler):
    """Takes what vitfeat logs, each line with its model where a job is of several."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write
        self.model = ""

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        begun = tuple(f"{self.model}{mark}" for mark in (":", ",", " "))
        named = not self.model or line.startswith(begun)
        self._write(line if named else f"{self.model}: {line}")


class Console:
    """Messages of one command.

    With a `path`, that of a log file, messages go there and not to the terminal, where several jobs
    of a workflow would talk at once; errors go to both, but where :data:`ERRORS_FROM_LOGS` is set.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file: TextIO | None = None
        self._lines = _Lines(self._write)
        self._shows_status = False
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", buffering=1)

    def __enter__(self) -> Console:
        self._before = logger.level, logger.propagate
        logger.addHandler(self._lines)
        logger.setLevel(logging.INFO)
        # A library may give the root logger a handler, which would write every line again.
        logger.propagate = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        logger.removeHandler(self._lines)
        level, logger.propagate = self._before
        logger.setLevel(level)
        if self._file is not None:
            self._file.close()

    @contextmanager
    def naming(self, model: str) -> Iterator[None]:
        """Write the model before what is logged, by any thread, unless a line begins with it."""
        self._lines.model = model
        try:
            yield
        finally:
            self._lines.model = ""

    def print(self, line: str) -> None:
        """Write a line of a command's result to the standard output."""
        sys.stdout.write(line + "\n")

    def _write(self, line: str) -> None:
        """Write a message to the log file, or to the terminal's standard error without one."""
        if self._shows_status:
            self._status("")
        stream = self._file or sys.stderr
        stream.write(line + "\n")
        stream.flush()

    def error(self, line: str) -> None:
        """Write an error's lines, usually one, to the terminal and to the log file."""
        for stream in self._error_streams():
            stream.writelines(f"vitfeat: error: {part}\n" for part in line.split("\n"))

    def bug(self) -> bool:
        """Write the current exception's traceback to the log file.

        Returns whether it is shown from there; else Python writes it to the terminal.
        """
        if self._file is not None:
            traceback.print_exc(file=self._file)
        return sys.stderr not in self._error_streams()

    def _error_streams(self) -> list[TextIO]:
        if self._file is None:
            return [sys.stderr]
        return [self._file] if ERRORS_FROM_LOGS in os.environ else [sys.stderr, self._file]

    @contextmanager
    def progress(
        self, total: int, what: str, *, at_once: bool = False
    ) -> Iterator[Callable[[int], None]]:
        """Give a function that takes how many images were just done.

        A log has a line as soon as a rate is known, or ``at_once``, where what comes first matters.
        """
        counter = ProgressCounter(total)
        on_terminal = self._file is None and sys.stderr.isatty()
        if at_once and not on_terminal:
            self._write(f"{what}: {counter.now()}")

        def advance(n: int) -> None:
            line = f"{what}: {counter.add(n)}"
            if on_terminal:
                self._status(line)
            elif counter.line_is_due():
                self._write(line)

        try:
            yield advance
        finally:
            if on_terminal:
                self._status("")

    def _status(self, line: str) -> None:
        """Show a line on the terminal in the place of the one before."""
        self._shows_status = bool(line)
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[K{line[:width]}")
        sys.stderr.flush()
