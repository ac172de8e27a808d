"""A store in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vitfeat.data.views import in_words
from vitfeat.store.reader import FeatureStore
from vitfeat.text import plural, size


def describe(store: FeatureStore) -> Iterator[str]:
    """Yield lines that say what a store holds and where it came from."""
    attributes = store.attributes
    request = attributes["request"]
    labelled = int((store.labels >= 0).sum())
    yield f"store        {store.path}"
    yield f"model        {store.model} ({request['model']['source']} {request['model']['name']})"
    yield f"weights      tensors, sha256 {request['model']['weights_sha256']}"
    # Stores of earlier versions do not say.
    for key, value in attributes.get("weights", {}).items():
        yield f"             {key} {value}"
    yield f"images       {store.n_images:,}, {labelled:,} labelled, {len(store.classes)} classes"
    yield f"             sha256 {store.image_fingerprint}"
    if attributes["skipped"]:
        yield f"skipped      {len(attributes['skipped'])}, first: {attributes['skipped'][0][0]}"
    yield f"view         {in_words(request['view'])}"
    if store.is_ragged:
        least, most = store.grid_shapes.min(0), store.grid_shapes.max(0)
        yield (
            f"grids        {least[0]} x {least[1]} to {most[0]} x {most[1]} tokens, an own one for "
            "each image"
        )
    yield f"layers       {', '.join(map(str, store.layers))}"
    for tap, limit in request.get("limits", {}).items():
        which = "spread over the dataset" if isinstance(limit, int) else "named"
        number = limit if isinstance(limit, int) else len(limit)
        yield f"limited      {tap}: {plural(number, 'image')}, {which}"
    for note in attributes.get("notes", []):
        yield f"note         {note}"
    yield f"precision    {request['precision']}, stored as {request['dtype']}"
    yield f"passes       {attributes['forward_images']:,} images pushed through the model"
    yield f"fingerprint  {store.fingerprint}"
    yield f"format       {attributes['format_version']}"
    for name, facts in attributes["sealed"]["arrays"].items():
        metadata: Any = store[name].metadata
        dims = zip(metadata.dimension_names, facts["shape"], strict=True)
        shape = ", ".join(f"{dim} {n}" for dim, n in dims)
        yield f"{name:40} {facts['dtype']:8} {size(facts['bytes']):>10}  ({shape})"
    yield "versions     " + ", ".join(f"{k} {v}" for k, v in attributes["versions"].items())
