"""Whether a path names one weight file, and if not, which one may be meant; known without torch."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vitfeat.text import nearest, plural, some

# Names that weight files end with; their content decides what they are.
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".tar", ".pkl", ".th", ".model")

# Of one letter it is a drive of Windows. A path has one slash where an address had two.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|hf[-_]hub:")

_OR_HUB = "; a repository of the model hub is named by 'weights'"

# How many files of a folder a message names.
_SHOWN = 5


def looks_like_file(text: str) -> bool:
    """Whether a text names a file of this machine rather than a tag or a repository of the hub."""
    return (
        text.startswith(("/", "./", "../", "~", "file:"))
        or text.lower().endswith(_ENDINGS)
        or Path(text).is_file()
    )


def fault_of(path: Path) -> str | None:
    """Say why a path names no weight file, and which one may be meant; None where it does."""
    if _ADDRESS.match(str(path)):
        return (
            f"{path} is an address; name a file on this machine, or published weights by 'weights'"
        )
    try:
        if path.is_dir():
            return f"{path} is a folder; {_within(path)}"
        if path.is_file():
            return _index_fault(path)
        if path.exists():
            return f"{path} is no regular file; name one weight file"
        return f"no checkpoint file {path}{_nearest(path)}"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"


def _weight_files(folder: Path) -> list[str]:
    names = (p.name for p in sorted(folder.iterdir()) if p.is_file())
    return [name for name in names if name.lower().endswith(_ENDINGS)]


def _within(folder: Path) -> str:
    if indices := sorted(folder.glob("*.index.json")):
        return str(_index_fault(indices[0]))
    if any(folder.glob("*.distcp")):
        return (
            "it holds a distributed checkpoint in several files; join them in one by `python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch`, and name that"
        )
    names = _weight_files(folder)
    if len(names) == 1:
        return f"name the weight file in it: {folder / names[0]}"
    if names:
        return f"name one of the weight files in it: {some(names, _SHOWN)}"
    folders = [p for p in sorted(folder.iterdir()) if p.is_dir() and _weight_files(p)]
    if folders:
        return f"name one weight file; there are some in {folders[0]}"
    return "it holds no weight file; name one"


def _index_fault(path: Path) -> str | None:
    """Say what to do with an index of weights that are spread over several files."""
    if not path.name.endswith(".index.json"):
        return None
    try:
        files = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return f"{path} is an index of weight files, and damaged; name one weight file"
    if len(files) == 1:
        return f"{path} is an index of one weight file; name that: {path.with_name(str(files[0]))}"
    return (
        f"{path} is an index of weights in {plural(len(files), 'file')} ({some(files, 2)}); join "
        "them in one, and name that: load each by safetensors.torch.load_file (or torch.load), put "
        "all into one dict, and save it"
    )


def _nearest(path: Path) -> str:
    """Say which file beside an absent one may be meant, or which folder is not there."""
    folder = path.parent
    if not folder.is_dir():
        if folder.exists():
            return f": {folder} is no folder"
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        missing = path.relative_to(folder).parts[0]
        beside = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
        hub = "" if path.name.lower().endswith(_ENDINGS) or path.is_absolute() else _OR_HUB
        return f": there is no {folder / missing}{nearest(missing, beside)}{hub}"
    names = _weight_files(folder)
    hint = nearest(path.name, names)
    if not hint and names:
        hint = f"; {folder} has {some(names, _SHOWN)}"
    return hint
