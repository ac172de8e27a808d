"""A folder of one's own, with the workflow that is installed with vitfeat."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from vitfeat.config.parsing import parse_config
from vitfeat.data.folders import Folder, Tally
from vitfeat.data.layouts import find
from vitfeat.data.spec import DatasetSpec
from vitfeat.errors import ConfigError
from vitfeat.text import plural, some

_SNAKEFILE = """\
# The workflow that is installed with vitfeat. Rules of your own may follow.
from vitfeat.new_study import workflow_home


include: workflow_home() / "Snakefile"


# What snakemake makes when no target is named.
rule study:
    input:
        rules.all.input,
"""

# What people change, and what Snakemake looks for beside a Snakefile.
_COPIED = ("configs", "profiles", "workflow/profiles")

_CLASSES = """
  # The subfolders are the classes.
  clustering:
    datasets: [photos]
"""


def workflow_home() -> Path:
    """Return where Snakefile, config.yaml, workflow/ and docs/ are: of a wheel, or of a clone."""
    package = Path(__file__).parent
    return next(p for p in (package / "_workflow", package.parent) if (p / "Snakefile").is_file())


def write_study(
    folder: Path, models: Sequence[str] = (), photos: Path | None = None
) -> Iterator[str]:
    """Write a Snakefile, a config and profiles to a folder; yield lines that say what is next.

    Nothing in the folder is overwritten; `models` and `photos` come in the place of what is
    embedded.
    """
    home, parts = workflow_home(), {}
    if models:
        parts["models"] = "".join(f"\n  - {json.dumps(model)}" for model in models)
    if photos is None:
        text = (home / "config.yaml").read_text("utf-8")
        said = "the embedded digits"
    else:
        if not models:
            raise ConfigError("--from-folder: --models is missing; `vitfeat models` lists them")
        text, layout, said = _of_photos((home / "configs/folder.yaml").read_text("utf-8"), photos)
        parts |= {
            "results": " results",
            "catalog": " {}   # models of your own: configs/folder.yaml shows some",
            "datasets": f"\n  photos:\n    layout: {layout}\n    root: {_quoted(photos)}\n"
            "    orientation: exif     # photographs upright, as viewers show them\n"
            "    on_error: skip        # leave broken images out, and record which",
        }
    text = _replaced(text, parts)
    # Paths in a config are relative to where Snakemake runs.
    parse_config(yaml.safe_load(text) | {"results": str(folder.absolute() / "results")})
    tops = ("Snakefile", "config.yaml", *dict.fromkeys(name.split("/")[0] for name in _COPIED))
    for top in tops:
        if (folder / top).exists():
            raise ConfigError(f"{folder / top} is there already; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".init-") as partial:
        for name in _COPIED:
            shutil.copytree(home / name, Path(partial, name))
        Path(partial, "Snakefile").write_text(_SNAKEFILE, "utf-8")
        Path(partial, "config.yaml").write_text(text, "utf-8")
        for top in tops:
            Path(partial, top).rename(folder / top)
    yield f"{folder}: {', '.join(tops)}"
    yield f"config.yaml: {said}; every key: {home / 'docs' / 'settings.md'}"
    yield f"next: cd {shlex.quote(str(folder))} && snakemake --cores 2 results/cka/all.png"


def _of_photos(text: str, photos: Path) -> tuple[str, str, str]:
    """Return the config of a folder of images, its layout, and what was found."""
    if not photos.is_dir():
        raise ConfigError(f"--from-folder: {photos}: no such folder")
    top = Folder.read(photos)
    layout = "folder" if len(top.folders) > 1 and not top.images else "flat"
    listing = find(DatasetSpec(name="photos", layout=layout, root=photos, on_error="skip"), Tally())
    found = plural(sum(1 for _ in listing.candidates), "image")
    if layout == "flat":
        return text, layout, f"{found}, without classes"
    classes = plural(len(top.folders), "subfolder")
    return (
        text.rstrip() + _CLASSES,
        layout,
        (f"{found} in {classes}, which are taken for classes: {some(top.folders, 3)}"),
    )


def _quoted(path: Path) -> str:
    return json.dumps(str(path.absolute()), ensure_ascii=False)


def _replaced(text: str, parts: Mapping[str, str]) -> str:
    """Put other values behind keys of a config, whose comments elsewhere stay."""
    for key, value in parts.items():
        # Up to the next key of the top level, or the comment that belongs to it.
        old = re.search(rf"^{key}:.*\n(?:[ ].*\n|\n(?=[ ]))*", text, re.M)
        assert old is not None, key
        text = f"{text[: old.start()]}{key}:{value}\n{text[old.end() :]}"
    return text
