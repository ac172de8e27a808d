"""What to extract and how."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vitfeat.data.views import ViewSettings
from vitfeat.errors import ConfigError
from vitfeat.store.layout import DEFAULT_TAPS
from vitfeat.store.limits import Limit
from vitfeat.text import plural


@dataclass(frozen=True)
class Settings:
    """What to extract and how.

    Attributes
    ----------
    limits
        Taps that are kept for some images only: so many, spread over the dataset
        (:func:`vitfeat.store.limits.spread`), or the images of these ids. Norms and summaries come
        from the pass, whatever the limits of the tensors that they are made of.
    keep_bits
        Bits of mantissa that stored features are rounded to; None keeps all that the type has.
    workers
        Processes that decode; 0 decodes between the passes, None fits them to the work.
    repair
        Whether a finished store is read whole first, and what is damaged of it pushed again.
    part
        Only the blocks of one of several jobs on one store: its number, from 1, and how many jobs
        there are. The store is sealed by an extraction of all.
    masks
        How masks weigh tokens, for the tap ``regions``
        (:func:`vitfeat.extraction.regions.load_regions`).
    """

    taps: Sequence[str] = DEFAULT_TAPS
    limits: Mapping[str, Limit] = field(default_factory=dict)
    layers: str | int | Sequence[str | int] = "all"
    dtype: str = "float16"
    keep_bits: int | None = None
    precision: str = "fp32"
    batch_size: int = 32
    device: str = "auto"
    threads: int = 0
    workers: int | None = None
    replace: bool = False
    repair: bool = False
    part: tuple[int, int] | None = None
    view: ViewSettings = field(default_factory=ViewSettings)
    masks: str = "coverage"

    @classmethod
    def of_request(cls, request: Mapping[str, Any], **ways: Any) -> Settings:
        """Return the settings that a store's request comes from; `ways` are how it is made."""
        return cls(
            taps=request["taps"],
            limits=request.get("limits", {}),
            layers=request["layers"],
            dtype=request["dtype"],
            keep_bits=request.get("keep_bits"),
            precision=request["precision"],
            view=ViewSettings.of_described(request["view"]),
            masks=request.get("regions", {}).get("masks", "coverage"),
            **ways,
        )


def choose_device(name: str) -> torch.device:
    """Turn a device's name into a device; ``auto`` takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise ConfigError(f"extraction.device: found {name!r}; allowed: auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"extraction.device: found {name!r}, but this machine has "
            f"{plural(torch.cuda.device_count(), 'usable GPU')}; use auto or cpu"
        )
    return device
