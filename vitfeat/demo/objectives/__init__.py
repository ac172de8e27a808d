"""The six training objectives of the demo models."""

from __future__ import annotations

from vitfeat.demo.objectives.averaged import Dino, Moco
from vitfeat.demo.objectives.base import Objective, Recipe
from vitfeat.demo.objectives.labelled import Clip, Supervised
from vitfeat.demo.objectives.masked import Beit, Mae

OBJECTIVES: dict[str, type[Objective]] = {
    "supervised": Supervised,
    "clip": Clip,
    "dino": Dino,
    "moco": Moco,
    "mae": Mae,
    "beit": Beit,
}

__all__ = ["OBJECTIVES", "Objective", "Recipe"]
