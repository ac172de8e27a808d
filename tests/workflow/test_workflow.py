"""The workflow as a user runs it: what it makes, what a change would run, what it refuses."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import vitfeat
from tests.analyses.cka import reference_cka
from tests.workflow.harness import Workflow, changed
from vitfeat.config.parsing import read_config
from vitfeat.disk import FEATURES, GRAMS
from vitfeat.plan.disk import known_sizes, planned


def test_each_image_went_through_each_model_once(finished: Workflow) -> None:
    for model in ("demo-dino", "demo-mae"):
        assert finished.manifest(model)["forward_images"] == 40


def test_tables_hold_the_cka_of_the_stored_features(finished: Workflow) -> None:
    folder = finished.results / "features/digits"
    features = {
        model: vitfeat.open(folder / f"{model}.zarr").to_xarray()
        for model in ("demo-dino", "demo-mae")
    }

    def matrix(model: str, layer: int, tokens: str) -> np.ndarray[Any, Any]:
        at = features[model].sel(layer=layer)
        kinds = ("cls",) if tokens == "cls" else ("cls", "spatial")
        return np.concatenate(
            [at[kind].values.astype(np.float64).reshape(40, -1) for kind in kinds], axis=1
        )

    for tokens in ("cls", "all"):
        path = finished.results / f"cka/digits/{tokens}/demo-dino--demo-mae.csv"
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 36
        for row in rows[::5]:
            expected = reference_cka.cka(
                matrix(row["model_a"], int(row["layer_a"]), tokens),
                matrix(row["model_b"], int(row["layer_b"]), tokens),
                reference_cka.hsic1,
            )
            assert float(row["cka"]) == pytest.approx(expected, abs=1e-5)
            assert (row["estimator"], row["tokens"], row["n_images"]) == ("debiased", tokens, "40")


def test_figures_are_there(finished: Workflow) -> None:
    for name in ("all", "last_layer"):
        for kind in ("png", "pdf"):
            assert (finished.results / f"cka/{name}.{kind}").stat().st_size > 10_000


def test_an_unchanged_rerun_does_nothing(finished: Workflow) -> None:
    assert finished.planned() == {}


def test_the_disk_takes_what_the_plan_says_and_only_what_is_to_come_is_said(
    finished: Workflow,
) -> None:
    config = read_config(finished.folder / "config.yaml")
    items = planned(config, known_sizes(config))
    for item in (item for item in items if item.kind == FEATURES):
        array = finished.manifest(item.model)["arrays"][item.array]
        assert item.n_bytes == np.prod(array["shape"]) * np.dtype(array["dtype"]).itemsize
    for item in (item for item in items if item.kind == GRAMS):
        file = finished.results / f"cka/gram/digits/{item.array}/{item.model}.safetensors"
        assert item.n_bytes < file.stat().st_size < 1.3 * item.n_bytes
    assert "disk:" not in finished.run("--dry-run").stderr
    more = changed(finished, "models", ["demo-beit", "demo-dino", "demo-mae"])
    said = [li for li in more.run("--dry-run").stderr.splitlines() if "disk:" in li]
    # 40 x 6 x 65 x 64 float16, and two Gram matrices a layer.
    assert len(said) == 1
    assert said[0].startswith("vitfeat: disk: at most 2.0 MiB to write, about 1.8 MiB compressed; ")


def test_the_default_plans_one_extraction_a_dataset(root: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((root / "config.yaml").read_text("utf-8"))
    planned = Workflow(root, tmp_path, config).planned()
    assert planned["extract_of_all"] == 7
    assert "extract" not in planned
    assert planned["cka_of_all"] == 1
    assert sum(planned.values()) <= 65


def test_a_new_model_costs_one_extraction_and_its_pairs(finished: Workflow) -> None:
    more = changed(finished, "models", ["demo-beit", "demo-dino", "demo-mae"])
    assert more.planned() == {
        # So few images that one job is of all models, and leaves what is there as it is.
        "extract_of_all": 1,
        "gram_of_all": 1,
        "cka_of_all": 1,
        "cka_figures": 1,
        "all": 1,
    }


def test_the_order_of_models_touches_the_figures_alone(finished: Workflow) -> None:
    other = changed(finished, "models", ["demo-mae", "demo-dino"])
    assert other.planned() == {"cka_figures": 1, "all": 1}


def test_an_estimator_touches_pairs_alone(finished: Workflow) -> None:
    other = changed(finished, "analyses", "cka", "estimators", ["biased"])
    assert other.planned() == {"cka_of_all": 1, "cka_figures": 1, "all": 1}


def test_settings_of_unused_estimators_and_how_an_extraction_runs_touch_nothing(
    finished: Workflow,
) -> None:
    other = changed(
        changed(finished, "analyses", "cka", "seed", 7), "analyses", "cka", "batch_size", 8
    )
    how = {"batch_size": 7, "workers": 1, "device": "cpu", "replace": False}
    assert changed(other, "extraction", how).planned() == {}


def test_how_a_model_is_shown_touches_the_figures_alone(finished: Workflow) -> None:
    entry = {"source": "demo", "name": "dino", "crop_fraction": 1.0, "label": "D", "family": "x"}
    other = changed(finished, "catalog", {"demo-dino": entry})
    assert other.planned() == {"cka_figures": 1, "all": 1}


def test_the_element_type_touches_everything_behind_it(finished: Workflow) -> None:
    planned = changed(finished, "extraction", "dtype", "float32").planned()
    assert planned["extract_of_all"] == 1
    assert "index" not in planned


def test_fewer_kinds_of_tokens_touch_their_tables_and_no_store(finished: Workflow) -> None:
    fewer = changed(finished, "analyses", "cka", "tokens", ["cls"])
    assert fewer.planned() == {"cka_of_all": 1, "cka_figures": 1, "all": 1}
    # What is extracted anyway is extracted as it is asked for.
    other = changed(fewer, "datasets", "digits", "limit", 30)
    assert "--taps cls --index" in other.run("--dry-run").stdout


def test_a_smaller_dataset_touches_its_index_first(finished: Workflow) -> None:
    planned = changed(finished, "datasets", "digits", "limit", 30).planned()
    assert (planned["index"], planned["extract_of_all"]) == (1, 1)
    assert "demo_data" not in planned


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("modles", []), ["'modles'", "'models'"]),
        (("models", ["demo-dinno"]), ["'demo-dinno'", "'demo-dino'"]),
        (("extraction", {"dtype": 16}), ["extraction.dtype", "16", "float16"]),
        (("analyses", "cka", "without_cls", "no"), ["without_cls", "leave_out, mean"]),
    ],
)
def test_a_bad_config_is_one_line(finished: Workflow, path: Any, words: list[str]) -> None:
    done = changed(finished, *path).run("--dry-run")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("vitfeat: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0]


def test_command_line_overrides_reach_the_config(finished: Workflow) -> None:
    figures = {"cka_figures": 1, "all": 1}
    assert finished.planned("--config", "models=[demo-mae,demo-dino]") == figures
    assert finished.planned("--config", "extraction={batch_size: 16, replace: false}") == {}
    planned = finished.planned("--config", "datasets={digits: {limit: 30}}")
    assert planned["extract_of_all"] == 1


def test_rules_use_the_interpreter_that_runs_snakemake(finished: Workflow) -> None:
    # No environment is activated in these tests, and `python` elsewhere may be anything.
    done = finished.run("--dry-run", "--printshellcmds", "--forceall")
    assert "python -m vitfeat extract demo-dino demo-mae" in done.stdout
    assert sys.executable not in done.stdout
