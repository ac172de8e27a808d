"""Whether there is a GPU, asked without importing torch."""

from __future__ import annotations

from pathlib import Path


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
