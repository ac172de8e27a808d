"""The entries of the ledger, as ``numbers.yaml`` has them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from vitfeat.errors import ConfigError
from vitfeat.text import nearest

LEDGER = Path(__file__).with_name("numbers.yaml")


class Protocol(BaseModel):
    """How numbers of one source were measured, and how they are measured here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measured: str  # what the number is, with its unit
    source: str  # who published it
    url: str
    read: str  # what of the number and the protocol could be read by whom wrote the entry
    exactly: str  # the protocol
    deviations: tuple[str, ...]  # where what is run here departs from it, or may
    tolerance: float  # by how much ours may differ, in the number's unit
    # What data is needed, where it is looked for, and the page that shows what belongs there: all
    # empty for data that is embedded.
    data: str = ""
    root: str = ""
    page: str = ""
    # The cell of the table of an analysis on a dataset that the number is in, in the last layer.
    analysis: str
    dataset: str
    features: str
    variant: str = ""
    score: str
    # The config behind it but for models and folders.
    config: Mapping[str, Any]


class Published(BaseModel):
    """A published number of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    protocol: Protocol
    model: str  # of the catalogue
    published: float
    lacking: str = ""  # why it cannot be run, where it cannot

    @property
    def state(self) -> str:
        """Say whether it was ever run by whom wrote the entry."""
        if self.lacking:
            return "cannot be run"
        # Tests run what needs no data; nobody here had any other.
        return "run here" if not self.protocol.data else "never run here"


@functools.cache
def read_ledger() -> Mapping[str, Published]:
    """Return the entries by name."""
    raw = yaml.safe_load(LEDGER.read_text("utf-8"))
    protocols = {name: Protocol(**fields) for name, fields in raw["protocols"].items()}
    return {
        name: Published(name=name, **{**fields, "protocol": protocols[fields["protocol"]]})
        for name, fields in raw["numbers"].items()
    }


def find_entry(name: str) -> Published:
    """Return an entry by name."""
    ledger = read_ledger()
    if name not in ledger:
        raise ConfigError(
            f"no published number {name!r}{nearest(name, ledger)}; `vitfeat reproduce` lists them"
        )
    return ledger[name]
