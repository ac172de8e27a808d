"""A model of settings: one mapping of a config, or of what else people write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from vitfeat.errors import ConfigError
from vitfeat.settings.messages import flaws
from vitfeat.settings.schema import schema_of


class Part(BaseModel):
    """Settings, each with its type, bounds, default and description; no other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def checked(cls, where: str, values: Any, **known: Any) -> Self:
        """Make the settings from what people write.

        ``where`` stands before the keys in messages: ``datasets.photos.``, or ``--view: ``; what is
        ``known`` beside it nobody writes.
        """
        if faults := list(flaws(values, schema_of(cls), where)):
            raise ConfigError(*faults)
        try:
            return cls(**values, **known)
        except ValidationError as error:
            raise ConfigError(*faults_of(error, where)) from error

    def but(self, **changes: Any) -> Self:
        """Return the same settings but for some."""
        return type(self)(**{**dict(self), **changes})


def faults_of(error: ValidationError, where: str) -> Iterator[str]:
    """Say in a line each what checks of ours found.

    They raise errors whose arguments are the faults: ``key: what is wrong``, or ``: what is wrong``
    with the whole.
    """
    for flaw in error.errors():
        place = where + ".".join(map(str, flaw["loc"]))
        told = flaw.get("ctx", {}).get("error")
        for fault in told.args if told else [f": found {flaw['input']!r}; {flaw['msg']}"]:
            if fault.startswith(":"):
                yield place.rstrip(".: ") + fault
            else:
                yield (f"{place}." if flaw["loc"] else place) + fault
