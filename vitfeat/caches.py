"""Where libraries keep what they can make again, on machines where they have no home for it.

Containers often run as a user without a home, on code that may only be read. Matplotlib then says
so in every job and lists all fonts again, and Numba has nowhere to keep what it compiled.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitfeat.files import existing


def find_caches() -> None:
    """Give libraries a folder among the temporary ones, where they have none at home.

    To be called before they are imported. What the user says by their own variables stays.
    """
    if all(
        map(_is_writable, (_home("XDG_CACHE_HOME", ".cache"), _home("XDG_CONFIG_HOME", ".config")))
    ):
        return
    folder = Path(tempfile.gettempdir()) / f"vitfeat-{os.getuid() if os.name == 'posix' else ''}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        # Numba runs what it finds there.
        if os.name == "posix" and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            return
    except OSError:
        return
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))


def _home(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or Path(os.path.expanduser("~"), name))  # noqa: PTH111


def _is_writable(folder: Path) -> bool:
    """Whether a folder may be written to, or made."""
    if not folder.is_absolute():
        return False
    there = existing(folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a function by Numba, and keep the result for other processes if there is a place."""
    # Here and not above: Numba takes half a second to import, and most jobs do without.
    import numba

    try:
        kept: Callable[..., Any] = numba.njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(nogil=True, **options)(function)  # type: ignore[no-any-return]
    return kept
