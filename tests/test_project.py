"""The project's files agree with each other."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import vitfeat
from vitfeat.analyses.registry import analyses
from vitfeat.config.model import Figures
from vitfeat.config.parsing import parse_config
from vitfeat.extraction.settings import Extraction

# The names of the same project on the two registries.
_CONDA_NAMES = {"torch": "pytorch", "open_clip_torch": "open-clip-torch"}


def _minimum_versions(requirements: list[str]) -> dict[str, str]:
    return dict(re.fullmatch(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", r).groups() for r in requirements)  # type: ignore[union-attr,misc]


def test_conda_and_pip_ask_for_the_same_minimum_versions(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    pip = _minimum_versions([*project["dependencies"], *extras["remote"], *extras["slurm"]])
    conda: list[str] = yaml.safe_load((root / "environment.yml").read_text("utf-8"))["dependencies"]
    found = _minimum_versions([d for d in conda if d != "pip"])
    assert found.pop("python") == project["requires-python"].removeprefix(">=")
    assert found == {_CONDA_NAMES.get(name, name): version for name, version in pip.items()}


def test_constraints_satisfy_the_minimum_versions(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = {
        name.lower().replace("_", "-"): version
        for name, version in (
            line.split("==") for line in (root / "constraints.txt").read_text().splitlines()
        )
    }

    def numbers(version: str) -> tuple[int, ...]:
        return tuple(int(n) for n in re.findall(r"\d+", version))

    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *extras["remote"],
        *extras["storage"],
        *extras["slurm"],
        *extras["scheduler"],
    ]
    for name, minimum in _minimum_versions(wanted).items():
        assert numbers(pinned[name.lower().replace("_", "-")]) >= numbers(minimum), name


def test_the_workflow_catalogue_finds_what_it_asks_for(
    root: Path, schema: Mapping[str, Any]
) -> None:
    """Its rules for standardized usage (about/adding_workflows.md of its repository)."""
    assert 'include: "../Snakefile"' in (root / "workflow/Snakefile").read_text("utf-8")
    assert {"snakemake", "workflow"} <= set(
        re.findall(r"\w+", (root / "README.md").read_text("utf-8").lower())
    )
    page = (root / "config/README.md").read_text("utf-8")
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in page.splitlines() if "|" in line]
    assert {key for row in rows for key in row} == set(schema["properties"])
    usage = yaml.safe_load((root / ".snakemake-workflow-catalog.yml").read_text("utf-8"))["usage"]
    rules = "".join(path.read_text("utf-8") for path in (root / "workflow/rules").glob("*.smk"))
    assert usage["software-stack-deployment"] == {
        "conda": 'conda:\n        "../../environment.yml"' in rules,
        "apptainer": "container:" in rules,
        "apptainer+conda": False,
        "report": bool(re.search(r"\breport\(", rules)),
    }
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}


def test_the_version_stands_once(root: Path) -> None:
    tracked = ("pyproject.toml", "CITATION.cff", "README.md", "CONTRIBUTING.md", "setup.py")
    assert [name for name in tracked if vitfeat.__version__ in (root / name).read_text()] == []
    heading = re.search(r"^## (\S+)", (root / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert heading is not None
    assert vitfeat.__version__.startswith(heading.group(1))


@pytest.mark.parametrize(
    "path", ["config.yaml", *(f"configs/{n}.yaml" for n in ("folder", "families", "paper"))]
)
def test_shipped_configs_are_valid(root: Path, path: str) -> None:
    config = parse_config(yaml.safe_load((root / path).read_text("utf-8")))
    assert config.models
    assert "cka" in config.analyses


def test_the_paper_config_names_its_26_configurations(root: Path) -> None:
    raw = yaml.safe_load((root / "configs/paper.yaml").read_text("utf-8"))
    models = parse_config(raw).models
    counts: dict[str, int] = {}
    for model in models:
        counts[model.family] = counts.get(model.family, 0) + 1
    assert counts == {
        "supervised": 10,
        "clip": 4,
        "dino": 4,
        "moco": 2,
        "mae": 3,
        "beit": 2,
        "random": 1,
    }


def test_square_views_of_the_paper_config_keep_the_whole_short_side(root: Path) -> None:
    """As its code does; Lanczos for padded images, too."""
    config = parse_config(yaml.safe_load((root / "configs/paper.yaml").read_text("utf-8")))
    views = {name: config.view(name) for name in config.datasets}
    square = {name: view.crop_fraction for name, view in views.items() if view.kind == "square"}
    assert square == dict.fromkeys(
        ("imagenet-50", "imagenet-train", "imagenet-val", "coco", "partimagenet"), 1.0
    )
    assert [v.interpolation for v in views.values() if v.kind == "padded"] == ["lanczos"]


def test_the_paper_config_has_every_dataset_and_analysis(root: Path) -> None:
    raw = yaml.safe_load((root / "configs/paper.yaml").read_text("utf-8"))
    config = parse_config(raw)
    how, what = ("attention", "attention_maps", "saliency"), ("cka", "clustering", "regions")
    why = ("knn", "retrieval", "video", "keypoints")
    assert set(config.analyses) == {*how, *what, "similarity", "residual", *why}
    published = {"imagenet", "imagenet50", "coco", "partimagenet", "revisited", "davis", "spair"}
    assert {spec.layout for spec in config.datasets.values()} == published
    # Over a million images: what is stored of each is all that counts.
    assert config.taps("imagenet-train") == ["cls"]
    assert config.datasets["imagenet-50"].per_class == 100
    assert all(config.taps(name) for name in config.datasets)
    dense = {name for name in config.datasets if config.view(name).kind == "dense"}
    assert dense == {"coco-dense", "partimagenet-dense", "roxford5k", "rparis6k", "davis"}


def test_the_page_has_every_setting_of_the_papers_analyses_beside_the_published_code(
    root: Path, schema: Mapping[str, Any]
) -> None:
    """Nobody may find another: a new setting needs its row."""
    raw = yaml.safe_load((root / "configs/paper.yaml").read_text("utf-8"))
    page = (root / "docs/paper.md").read_text("utf-8")
    section = page.partition("\n## Every setting against the published code\n")[2]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.partition("\n## ")[0].splitlines()
        if line.startswith("| ") and not line.startswith("| setting |")
    ]
    assert len(rows) > 100
    named = {name for row in rows for name in re.findall(r"`([a-z_.]+)`", row[0])}
    keys = schema["properties"]["analyses"]["properties"]
    beyond = {"similarity"}
    expected = {
        f"{analysis}.{key}"
        for analysis in set(raw["analyses"]) - beyond
        for key in set(keys[analysis]["properties"]) - {"datasets"}
    }
    datasets = raw["datasets"].values()
    expected |= {key for d in datasets for key in set(d) - {"layout", "root", "view"}}
    expected |= {f"view.{key}" for d in datasets for key in set(d.get("view", {})) - {"kind"}}
    expected |= {f"extraction.{key}" for key in ("layers", "dtype", "precision")}
    assert expected - named == set()
    for row in rows:
        setting, published, here, equal, remedy = row
        assert setting, row
        assert published, row
        assert here, row
        assert equal in ("=", ""), row
        # Where numbers differ, a setting that gives the code's, or why there is none.
        assert equal or remedy, row


@pytest.fixture(scope="module")
def estimate(root: Path) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("estimate", root / "docs/paper/estimate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules["estimate"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["estimate"]


def test_the_papers_costs_are_those_of_its_config(root: Path, estimate: Any) -> None:
    page = (root / "docs/paper.md").read_text("utf-8")
    for name, table in estimate.tables(estimate.paper_config()).items():
        assert f"<!-- table: {name} -->\n\n{table}\n<!-- end: {name} -->" in page, name


def test_jobs_on_several_gpus_end_no_sooner_than_the_longest(estimate: Any) -> None:
    jobs = [1.0, 1.0, 1.0, 1.0, 4.0]
    assert [estimate.makespan(jobs, machines) for machines in (1, 2, 3, 64)] == [8, 4, 4, 4]


def test_a_pass_takes_as_long_as_its_slowest_part(estimate: Any) -> None:
    config = estimate.paper_config()
    model = config.model("mae-h14")
    n = estimate.SIZES["davis"].images
    computed = n * estimate.passes(config, "davis", model) / estimate.GPU_FP32
    written = estimate.store_bytes(config, "davis", model) / estimate.WRITE
    assert written > computed
    rate = estimate.GPU_FP32
    assert estimate.gpu_hours(config, "davis", [model], rate) == pytest.approx(written / 3600)
    # Of CLS tokens little is written, and with a GPU fast enough images are waited for.
    n = estimate.SIZES["imagenet-train"].images
    decoded = n * estimate.DECODE_SECONDS / estimate.CORES
    hours = estimate.gpu_hours(config, "imagenet-train", [config.model("dino-s16")], 1e18)
    assert hours == pytest.approx(decoded / 3600)


def test_the_default_config_states_the_defaults(
    schema: Mapping[str, Any], default_config: dict[str, Any]
) -> None:
    # Whoever reads config.yaml sees every key, at its default.
    assert default_config["extraction"] == Extraction().model_dump(mode="json")
    assert set(default_config["analyses"]) == set(analyses())
    for name, shown in default_config["analyses"].items():
        kind = analyses()[name].settings
        required = {key: shown[key] for key in kind.required}
        assert shown == kind(**required).model_dump(mode="json"), name
    assert default_config["figures"] == Figures().model_dump(mode="json")
    assert set(default_config) == set(schema["properties"])


def test_every_line_of_the_default_config_that_sets_something_is_commented(root: Path) -> None:
    lines = (root / "config.yaml").read_text("utf-8").splitlines()
    uncommented = [
        line
        for i, line in enumerate(lines)
        if line.strip()
        and not line.strip().startswith(("#", "-"))
        and "#" not in line
        and not (i and lines[i - 1].strip().startswith("#"))
        # Below a commented heading, a dataset explains itself by its neighbour.
        and not line.strip().startswith(("layout: ", "root: ", "split: ", "datasets: ["))
    ]
    assert uncommented == []


def test_every_key_of_the_schema_is_described(schema: Mapping[str, Any]) -> None:
    def undescribed(node: dict[str, Any], path: str) -> list[str]:
        found = [path] if path and "description" not in node else []
        for key, sub in node.get("properties", {}).items():
            found += undescribed(sub, f"{path}.{key}")
        if isinstance(node.get("additionalProperties"), dict):
            for key, sub in node["additionalProperties"].get("properties", {}).items():
                found += undescribed(sub, f"{path}.*.{key}")
        return found

    assert undescribed(schema, "") == []


@pytest.mark.parametrize(
    "module",
    [
        "vitfeat",
        "vitfeat.cli",
        "vitfeat.config.parsing",
        "vitfeat.plan.needs",
        "vitfeat.analyses.attention.job",
        "vitfeat.analyses.attention_maps.job",
        "vitfeat.analyses.cka.gram_job",
        "vitfeat.data.index",
        "vitfeat.analyses.cka.compute",
        "vitfeat.numerics.accumulate",
        "vitfeat.analyses.attention.metrics",
        "vitfeat.analyses.attention.stream",
        "vitfeat.analyses.attention.norms",
        "vitfeat.analyses.attention.rollout",
        "vitfeat.models.entry",
        "vitfeat.models.hub",
        "vitfeat.analyses.attention_maps.sheets",
        "vitfeat.analyses.cka.figures",
        "vitfeat.store.opening",
        "vitfeat.demo.digits",
    ],
)
def test_what_hundreds_of_jobs_import_does_not_import_torch(module: str) -> None:
    code = (
        f"import sys, {module}; print([m for m in ('torch', 'timm', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
