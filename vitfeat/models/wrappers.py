"""Keys as the network alone would have them: without what training wrapped around its modules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from vitfeat.errors import ModelError

T = TypeVar("T")

# What wrappers put between two parts of a key: DistributedDataParallel and fairscale's checkpoints,
# torch.compile, FSDP of PyTorch and of fairscale, activation checkpoints, Lightning's strategies.
_WRAPPERS = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module",
    "_forward_module", "_wrapped_module",
}  # fmt: skip

_CHUNKED = re.compile(r"blocks\.(\d+)\.(\d+)\.(.+)")


def bare(key: str) -> str:
    """Return a key without the parts that wrappers put into it."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def before(key: str, landmark: str) -> str:
    """Return what stands before a landmark in a key whose bare form ends with it, as it stands."""
    if "/" in landmark:
        return key.removesuffix(landmark)
    parts = key.split(".")
    own = [i for i, part in enumerate(parts) if part not in _WRAPPERS]
    return "".join(f"{part}." for part in parts[: own[-1 - landmark.count(".")]])


def under(state: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Return what stands under a prefix, by bare keys.

    Raises
    ------
    ModelError
        Two tensors have one bare key.
    """
    start = bare(prefix)
    taken: dict[str, str] = {}
    for key in state:
        name = bare(key)
        if not name.startswith(start):
            continue
        name = name.removeprefix(start)
        if name in taken:
            raise ModelError(
                f"holds {name} twice, as {taken[name]} and as {key}; save the network's state dict "
                "alone"
            )
        taken[name] = key
    return {name: state[key] for name, key in taken.items()}


def dropped_inside(keys: Iterable[str], prefix: str) -> list[str]:
    """Return the parts that wrappers put behind a prefix, in alphabetical order."""
    inside = (key.removeprefix(prefix).split(".") for key in keys)
    return sorted({part for parts in inside for part in parts if part in _WRAPPERS})


def numbered_through(state: Mapping[str, T]) -> tuple[dict[str, T], int]:
    """Give blocks in chunks, ``blocks.{chunk}.{block}.``, the numbers of one stack.

    DINOv2 numbers a chunk's blocks as in the whole network; where numbers start anew in every
    chunk, they are counted on.

    Returns
    -------
    tuple
        The state, and the number of chunks: 0 where blocks do not stand in any.
    """
    parts = {key: _CHUNKED.fullmatch(key) for key in state if key.startswith("blocks.")}
    if not parts or not all(parts.values()):
        return dict(state), 0
    found = {key: (int(m[1]), int(m[2]), m[3]) for key, m in parts.items() if m}
    places = sorted({(chunk, block) for chunk, block, _ in found.values()})
    numbers = [block for _, block in places]
    if len(set(numbers)) < len(numbers):
        numbers = list(range(len(places)))
    number = dict(zip(places, numbers, strict=True))
    renamed = {k: f"blocks.{number[c, b]}.{rest}" for k, (c, b, rest) in found.items()}
    return {renamed.get(k, k): v for k, v in state.items()}, len({c for c, _ in places})
