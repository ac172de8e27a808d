"""A store in words."""

from __future__ import annotations

from collections.abc import Iterator

from vitfeat.data.views import in_words
from vitfeat.store.layout import FORMAT_VERSION
from vitfeat.store.reader import FeatureStore
from vitfeat.text import normalisation, plural, size

_PRECISIONS = {
    "fp32": "float32",
    "tf32": "float32 with TF32 products",
    "bf16": "bfloat16",
    "fp16": "float16",
}


def describe(store: FeatureStore) -> Iterator[str]:
    """Yield lines that say what a store holds, what decided its numbers, and where it came from."""
    attributes = store.attributes
    request = attributes["request"]
    yield f"store        {store.path}"
    yield from _model(store)
    labelled = int((store.labels >= 0).sum())
    yield f"images       {store.n_images:,}, {labelled:,} labelled, {len(store.classes)} classes"
    yield f"             sha256 {store.image_fingerprint}"
    if attributes["skipped"]:
        yield f"skipped      {len(attributes['skipped'])}, first: {attributes['skipped'][0][0]}"
    yield f"view         {in_words(request['view'])}"
    if not store.is_imported:
        mean, std = request["model"]["mean"], request["model"]["std"]
        yield f"normalised   {normalisation(mean, std, attributes.get('normalised_by', ''))}"
    if store.is_ragged:
        least, most = store.grid_shapes.min(0), store.grid_shapes.max(0)
        yield (
            f"grids        {least[0]} x {least[1]} to {most[0]} x {most[1]} tokens, an own one for "
            "each image"
        )
    elif "grid" in attributes:
        rows, columns = store.grid
        yield f"grid         {rows} x {columns} tokens{_prefix(store)}"
    layers = [f"{n} {name}" for n, name in zip(store.layers, store.layer_names, strict=False)]
    yield f"layers       {', '.join(layers or map(str, store.layers))}"
    yield f"taps         {', '.join(request['taps'])}"
    for tap, limit in request.get("limits", {}).items():
        which = "spread over the dataset" if isinstance(limit, int) else "named"
        number = limit if isinstance(limit, int) else len(limit)
        yield f"limited      {tap}: {plural(number, 'image')}, {which}"
    if "regions" in request:
        yield (
            f"regions      {store['regions'].shape[0]:,}, masks weigh tokens: "
            f"{request['regions']['masks']}; table sha256 {request['regions']['fingerprint']}"
        )
    computed = _PRECISIONS.get(request["precision"], request["precision"])
    computed = "" if store.is_imported else f"computed in {computed}, "
    bits = f" of {request['keep_bits']} bits of mantissa" if "keep_bits" in request else ""
    yield f"precision    {computed}features stored as {request['dtype']}{bits}"
    for note in attributes.get("notes", []):
        yield f"note         {note}"
    yield f"passes       {attributes['forward_images']:,} images pushed through the model"
    yield f"fingerprint  {store.fingerprint}"
    old = ", sealed without checksums of its metadata; extract it again to have them"
    version = attributes["format_version"]
    yield f"format       {version}{old if version < FORMAT_VERSION else ''}"
    width = max(map(len, (*store, *store.dropped)))
    for name, array in store.items():
        shape = ", ".join(f"{d} {n}" for d, n in zip(array.dims, array.shape, strict=True))
        n_bytes = size(attributes["sealed"]["arrays"][name]["bytes"])
        yield f"{name:{width}}  {array.dtype!s:8} {n_bytes:>10}  ({shape})"
    for name in store.dropped:
        n_bytes = size(attributes["sealed"]["arrays"][name]["bytes"])
        yield f"{name:{width}}  dropped after use, as extraction.keep says: {n_bytes} less"
    yield "versions     " + ", ".join(f"{k} {v}" for k, v in attributes["versions"].items())


def _model(store: FeatureStore) -> Iterator[str]:
    model = store.attributes["request"]["model"]
    if store.is_imported:
        yield f"model        {store.model} (features from elsewhere)"
        yield f"features     {store.attributes['weights']['file']}"
        yield f"             sha256 {store.attributes['request']['features']['sha256']}"
        return
    args = ", ".join(f"{key} {value}" for key, value in model["args"].items())
    yield (
        f"model        {store.model} ({model['source']} {model['name']}"
        f"{f', with {args}' if args else ''})"
    )
    yield f"weights      tensors, sha256 {model['weights_sha256']}"
    # Stores of earlier versions do not say.
    for key, value in store.attributes.get("weights", {}).items():
        yield f"             {key} {value}"
    norm = store.attributes.get("final_norm")
    if norm is not None:
        pooled = ", applied to pooled tokens" if norm["pooled"] else ""
        yield f"final norm   {norm['kind']}, eps {norm['eps']:g}{pooled}; features are before it"
    if not store.has_branches:
        yield "branches     none: its blocks do not add attention and MLP to skips of their own"


def _prefix(store: FeatureStore) -> str:
    kinds = ["CLS"] if store.attributes["has_cls"] else []
    if registers := store.attributes["n_registers"]:
        kinds.append(plural(registers, "register"))
    return f", behind {' and '.join(kinds)}" if kinds else ", no CLS"
