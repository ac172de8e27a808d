from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Noise images of the tests are so large.
WIDTH, HEIGHT = 24, 20


def square(left: int = 2, top: int = 3, side: int = 4) -> list[list[float]]:
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def image(id_: int, name: str, **other: Any) -> dict[str, Any]:
    return {"id": id_, "file_name": name, "height": HEIGHT, "width": WIDTH} | other


def region(id_: int, image_id: int, category: int = 1, **other: Any) -> dict[str, Any]:
    plain = {"id": id_, "image_id": image_id, "category_id": category, "iscrowd": 0}
    return plain | {"segmentation": square()} | other


def category(id_: int, name: str, supercategory: str = "animal") -> dict[str, Any]:
    return {"id": id_, "name": name, "supercategory": supercategory}


def instances(
    images: list[Any], annotations: list[Any], categories: list[Any] | None = None
) -> dict[str, Any]:
    # Licences have ids and names, too.
    return {
        "info": {"description": "made"},
        "licenses": [{"id": 1, "name": "none", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": [category(1, "cat"), category(18, "dog")]
        if categories is None
        else categories,
    }


def dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
