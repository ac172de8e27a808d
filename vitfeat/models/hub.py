"""Which published weights an entry means: its own word, or what the library names."""

from __future__ import annotations

import posixpath
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitfeat.errors import ModelError, VitfeatError
from vitfeat.models.entry import ModelEntry, builtin_catalog
from vitfeat.text import nearest
from vitfeat.weights.fetch import ensure
from vitfeat.weights.records import HUB_FILES, WeightsRecord, WeightsSource, present

# What open_clip calls its weights in a repository.
_OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def source_of(entry: ModelEntry) -> WeightsSource:
    """Return where an entry's published weights are; one with ``pretrained`` asks its library."""
    where = f"catalog.{entry.id}"
    if entry.weights is not None:
        source = WeightsSource.from_config(entry.weights, f"{where}.weights")
    elif entry.source == "open_clip":
        source = _of_open_clip(entry, where)
    else:
        source = _of_timm(entry, where)
    if entry.source == "open_clip" and source.files == HUB_FILES:
        return replace(source, files=_OPEN_CLIP_FILES)
    return source


def fetch(
    entry: ModelEntry,
    folder: Path,
    *,
    progress: bool = True,
) -> WeightsRecord:
    """Make sure that an entry's published weights are on this machine, as :func:`ensure` does."""
    source, command = source_of(entry), fetch_command(entry, folder)
    return ensure(entry.id, source, folder, command=command, progress=progress)


def fetch_command(entry: ModelEntry, folder: Path) -> str:
    """Return the command that fetches a model's weights."""
    # Models of a config's own are known from there alone.
    config = "" if entry.id in builtin_catalog() else " --configfile CONFIG"
    where = "" if folder == Path("weights") else f" --weights-folder {shlex.quote(str(folder))}"
    return f"vitfeat fetch {entry.id}{config}{where}"


def weights_state(entry: ModelEntry, folder: Path) -> str:
    """Say whether a model's weights are on this machine."""
    if not entry.is_fetched:
        if entry.checkpoint or entry.is_imported:
            return "a file of your own"
        return {"demo": "built in", "noise": "none"}.get(entry.source, "untrained")
    try:
        return "present" if present(source_of(entry), folder, entry.id) else "absent"
    except VitfeatError:  # one record is no reason to list nothing
        return "damaged record"


def timm_tag(name: str) -> Any:
    """Return what timm tells of the weights of a name with its tag, or None where it has none."""
    import timm

    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that the architecture does not have
        return None


def _of_timm(entry: ModelEntry, where: str) -> WeightsSource:
    import timm

    config = timm_tag(entry.name)
    repository, url = getattr(config, "hf_hub_id", None), getattr(config, "url", None)
    if not repository and not url:
        architecture = entry.name.split(".")[0]
        known = timm.list_models(f"{architecture}*", pretrained=True)
        raise ModelError(
            f"model {entry.id}: timm names no published weights for {entry.name!r}"
            f"{nearest(entry.name, known)}; set `weights` to a repository or URL, or "
            "`pretrained: false` for an untrained network"
        )
    if not repository:
        return WeightsSource.from_config(str(url), where)
    file = getattr(config, "hf_hub_filename", None)
    return WeightsSource.from_config({"repository": repository, "file": file}, where)


def _of_open_clip(entry: ModelEntry, where: str) -> WeightsSource:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(entry.name)
    if entry.pretrained not in tags:
        raise ModelError(
            f"model {entry.id}: open_clip has no weights {entry.pretrained!r} of {entry.name}"
            f"{nearest(str(entry.pretrained), tags)}; known: {', '.join(tags) or 'none'}"
        )
    config = open_clip.get_pretrained_cfg(entry.name, str(entry.pretrained))
    if not config.get("hf_hub"):
        return WeightsSource.from_config(config["url"], where)
    # "owner/name/file", where the file may be left out.
    repository, file = posixpath.split(config["hf_hub"])
    return WeightsSource.from_config({"repository": repository, "file": file or None}, where)
