"""Whether there is a GPU, asked without importing torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitfeat.errors import ConfigError
from vitfeat.text import plural

if TYPE_CHECKING:
    import torch


def torch_device_name(name: str) -> str:
    """Turn ``auto`` into ``cuda`` or ``cpu``; other names stay.

    Importing torch costs seconds in each of hundreds of jobs; without an NVIDIA driver there is no
    reason to.
    """
    if name != "auto":
        return name
    if not Path("/proc/driver/nvidia/version").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_device(name: str) -> torch.device:
    """Turn a device's name into a device; ``auto`` takes a GPU where there is one."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"extraction.device: found {name!r}, but this machine has "
            f"{plural(torch.cuda.device_count(), 'usable GPU')}; use auto or cpu"
        )
    return device
