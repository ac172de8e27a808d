"""Errors for people: one line each, saying what was found, where, and what to do.

Every error that a user can cause is a :class:`VitfeatError`; the command line prints its one line
and exits with status 1. Anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno


class VitfeatError(Exception):
    """Base of every error that vitfeat raises for a user to read: what is wrong, a line each."""

    def __init__(self, *faults: str) -> None:
        # A line each, whatever was interpolated: file names and library messages may hold newlines.
        super().__init__(*(" ".join(fault.split()) for fault in faults))

    def __str__(self) -> str:
        return "\n".join(self.args)


class ConfigError(VitfeatError):
    """A setting that is unknown, of the wrong type, or at odds with another."""


class DataError(VitfeatError):
    """A dataset or an image that cannot be used as asked."""


class ModelError(VitfeatError):
    """A model or a checkpoint that cannot be loaded or tapped as asked."""


class StoreError(VitfeatError):
    """A feature store that is absent, unfinished, damaged, or from other settings."""


class ReadError(StoreError):
    """A feature store that cannot be read now: of what it holds that says nothing."""


class AnalysisError(VitfeatError):
    """An analysis whose input does not allow what was asked."""


_TO_DO: dict[int | None, str] = {
    errno.EMFILE: "raise the limit (ulimit -n), then try again",
    errno.ENFILE: "end what has them open, then try again",
    errno.ENOMEM: "end what else uses it, then try again",
    errno.ENOSPC: "make room, then try again",
    errno.EDQUOT: "make room, then try again",
    errno.EACCES: "look after its permissions, then try again",
    errno.EPERM: "look after its permissions, then try again",
    errno.EROFS: "choose a path that can be written",
}


# What every other file would meet as well.
_OF_THE_SYSTEM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def is_of_the_system(error: BaseException) -> bool:
    """Return whether an error says nothing of the file that it was met with."""
    return isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM


def what_to_do(error: BaseException) -> str:
    """Say what helps against an error of the system's, which is none of the files'."""
    return _TO_DO.get(getattr(error, "errno", None), "look after the disk, then try again")
