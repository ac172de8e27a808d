"""The six training objectives of the demo models."""

from __future__ import annotations

from vitfeat.demo.objectives.base import Objective, Recipe
from vitfeat.demo.objectives.beit import Beit
from vitfeat.demo.objectives.clip import Clip
from vitfeat.demo.objectives.dino import Dino
from vitfeat.demo.objectives.mae import Mae
from vitfeat.demo.objectives.moco import Moco
from vitfeat.demo.objectives.supervised import Supervised

OBJECTIVES: dict[str, type[Objective]] = {
    "supervised": Supervised,
    "clip": Clip,
    "dino": Dino,
    "moco": Moco,
    "mae": Mae,
    "beit": Beit,
}

__all__ = ["OBJECTIVES", "Objective", "Recipe"]
