"""Every command in README, docs, configs, the notebook and texts of help does what it says.

Each is run in a copy of the project, on the embedded data; or planned, where it needs data,
weights or hours that are not here; or, where not even that is possible, its words are checked. A
command of a new kind is in none of these classes, and its test fails.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT
from tests.documented import Documented, commands_of, documented
from tests.workflow.harness import in_fork
from vitfeat.cli import build_parser, main
from vitfeat.data.index import Index

# What stands for something of the reader's own: in words, or within them.
PLACEHOLDERS = {
    "STORE": "results/features/digits/demo-dino.zarr",
    "TEST.zarr": "results/features/digits/demo-dino.zarr",
    "TRAIN.zarr": "train.zarr",
    "TABLE.csv": "table.csv",
    "results/datasets/NAME.csv": "results/datasets/digits.csv",
    "IMAGE": "cat.jpg",
    "MODEL": "demo-dino",
    "ID": "demo-dino",
    "MODEL...": "demo-dino",
    "PHOTOS": "images",
    "NAME": "demo-dino-knn",
}
TARGETS = {"configs/paper.yaml": "results/paper/tasks/best.csv"}

# Commands of vitfeat that are not run here, and why.
NOT_RUN = {
    "fetch": "needs a network; tests/workflow/test_fetched_weights.py runs it on its own server",
    "explore": "serves until it is ended; tests/explorer/ runs it",
    "reproduce": "runs Snakemake; tests/ledger/ does",
    "train-demo": "takes minutes; tests/demo/test_demo_training.py trains for a few steps",
}
# Targets of make that are looked at alone (make -n), and why.
NOT_MADE = {
    "all": "takes minutes: .ci/run makes it",
    "bench": "takes an idle machine",
    "clean": "would remove what the other tests read",
    "docs": "takes half a minute: .ci/run makes it",
    "lint": ".ci/run makes it",
    "quick": "is some of what runs here",
    "test": "is what runs here",
    "test-browser": "needs Debian's Chromium",
    "test-slurm": "needs the daemons of SLURM",
}
# Other programs: what their words are checked for, since they need an installation or hours.
NEEDS_MORE = {
    "benchmarks": "take an idle machine",
    "docs/gallery/build.py": "reads the results of the whole default",
    "cd": "leads to what needs npm: make test-browser builds the page",
    "ssh": "needs another machine",
    "pip": "needs a registry",
    "conda": "needs conda and a network",
    "source": "is of the reader's shell",
}


def _helps() -> Iterator[tuple[str, str]]:
    yield "vitfeat --help", build_parser().format_help()
    for name, sub in subcommands().items():
        yield f"vitfeat {name} --help", sub.format_help()


def subcommands() -> dict[str, object]:
    """Return the parsers of vitfeat's commands."""
    for action in build_parser()._actions:
        if isinstance(action.choices, dict):
            return dict(action.choices)
    raise AssertionError


COMMANDS = documented(ROOT, _helps())
OF = {
    program: [c for c in COMMANDS if c.words[0] == program]
    for program in {c.words[0] for c in COMMANDS}
}


def _class_of(command: Documented) -> str:
    """Say how a command is tested.

    Raises
    ------
    LookupError
        It is in no class.
    """
    program, *words = command.words
    if program == "snakemake":
        # It takes results: tests/workflow/test_report.py has them.
        if "--report" in words:
            return "named"
        # Behind S3: tests/workflow/test_storage.py has a server.
        return "parsed" if "--default-storage-provider" in words else "planned"
    if program == "vitfeat" and words and words[0] in subcommands():
        if len(words) == 1:
            return "named"
        # Behind S3: tests/store/test_remote_reading.py and its neighbours have a server.
        is_remote = any(word.startswith("s3://") for word in words)
        # tests/workflow/test_own_analysis.py does what docs/extending.md says.
        is_own = words[0] == "run" and words[1] == "texture.py"
        if is_own:
            return "named"
        return "parsed" if is_remote or words[0] in NOT_RUN else "run"
    if program == "make":
        return "looked at" if words and words[0] in NOT_MADE else "run"
    if program == "python" and words:
        if words[:2] == ["-m", "vitfeat"]:
            return "named"
        if (words[0] == "-m" and words[1].startswith("benchmarks.")) or words[0] in NEEDS_MORE:
            return "looked at"
        if words[0] == "-c" or words[0].endswith(".py"):
            return "run"
    if program == "cp":
        return "run"
    if program in NEEDS_MORE:
        return "looked at"
    raise LookupError(
        f"{command} is in no class of {Path(__file__).name}: run it there on the embedded data, "
        "plan it, or say there why neither is possible"
    )


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_documented_command_is_of_a_class(command: Documented) -> None:
    assert _class_of(command)


@pytest.mark.parametrize("words", ["vitfeat frobnicate x", "git push", "python -m http.server"])
def test_a_command_of_no_class_is_found(words: str) -> None:
    with pytest.raises(LookupError, match="in no class"):
        _class_of(Documented("docs/new.md:3", words))


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (".md", "    vitfeat info STORE   # it holds\n", ["vitfeat info STORE   # it holds"]),
        (".md", "```bash\n$ snakemake -n\n```\n", ["snakemake -n"]),
        (".md", "see `vitfeat\ncollect` and `vitfeat/cli/`", ["vitfeat collect"]),
        (".md", "make sure that it is so; `source: timm`, `vitfeat`\n", []),
        (".yaml", "a: 1  # as `vitfeat models`\n#  make demo\n", ["vitfeat models", "make demo"]),
        (".yaml", "# so: snakemake ... --config a=1", ["snakemake ... --config a=1"]),
        (".help", "usage: vitfeat info\n  vitfeat info x.zarr\n", ["vitfeat info x.zarr"]),
        ("Makefile", "# make demo    makes a figure\ndemo:\n", ["make demo"]),
        (
            ".ipynb",
            '{"cells": [{"cell_type": "code", "source": ["!snakemake -n\\n", "x = 1"]},'
            ' {"cell_type": "markdown", "source": ["Run `make demo`"]}]}',
            ["snakemake -n", "make demo"],
        ),
    ],
)  # fmt: skip
def test_commands_are_found_wherever_they_stand(kind: str, text: str, expected: list[str]) -> None:
    assert [command for _, command in commands_of(kind, text)] == expected


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with two of the embedded models on 40 images, and `make demo` run."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("workflow", "profiles", "configs", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.png"))
    for name in ("Snakefile", "Makefile", "pyproject.toml", "constraints.txt", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    (folder / "vitfeat").symlink_to(ROOT / "vitfeat")
    config = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
    config["models"] = ["demo-dino", "demo-mae"]
    config["datasets"]["digits"]["limit"] = 40
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    # What is a reader's own: a photograph, a folder of them, a config.
    Image.new("RGB", (48, 40), (200, 30, 30)).save(folder / "cat.jpg")
    (folder / "images" / "cat").mkdir(parents=True)
    shutil.copy(folder / "cat.jpg", folder / "images" / "cat" / "1.jpg")
    shutil.copy(folder / "configs/folder.yaml", folder / "my.yaml")
    # As if it was installed.
    (folder / ".venv").mkdir()
    (folder / ".venv" / "installed").touch()
    return folder


@pytest.fixture(scope="module")
def demo(clone: Path) -> subprocess.CompletedProcess[str]:
    """What `make demo` says; beside what it makes, a store to learn from."""
    done = _run(["make", "demo", f"BIN={Path(sys.executable).parent}", "CORES=2"], clone)
    root, index = str(clone / "results/demo/digits"), str(clone / "train.csv")
    options = ["--layout", "digits", "--split", "train", "--root", root, "--per-class", "5"]
    assert main(["index", "train", *options, "--out", index]) == 0
    out = str(clone / "train.zarr")
    assert main(["extract", "demo-dino", "--index", index, "--root", root, "--out", out]) == 0
    # Features that were made elsewhere.
    ids = Index.read(clone / "results/datasets/digits.csv").image_id
    np.savez(clone / "resnet50.npz", image_id=np.array(ids), conv4=np.eye(len(ids)))
    return done


def _run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": programs, "PYTHONPATH": str(ROOT)}
    # A make that runs the tests says so to the make that they run.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        environment.pop(name, None)
    return subprocess.run(
        words, capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


def _filled(words: list[str]) -> list[str]:
    """Put something that is here in the place of what stands for the reader's own."""
    config = words[words.index("--configfile") + 1] if "--configfile" in words else ""
    values = PLACEHOLDERS | {"TARGET": TARGETS.get(config, "results/cka/all.png")}
    return [values.get(word, word) for word in words]


def test_make_demo_makes_the_figure_and_ends_with_its_path(
    clone: Path, demo: subprocess.CompletedProcess[str]
) -> None:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    last = demo.stdout.splitlines()[-1]
    assert last == "The figure: results/cka/all.png"
    assert (clone / "results/cka/all.png").stat().st_size > 1000
    # The steps, and no more than a few lines of them.
    assert len((demo.stdout + demo.stderr).splitlines()) < 40


@pytest.mark.parametrize(
    "command", [c for c in OF["snakemake"] if _class_of(c) == "planned"], ids=str
)
def test_snakemake_plans(
    command: Documented, clone: Path, demo: subprocess.CompletedProcess[str]
) -> None:
    words = _filled(command.words)[1:]
    done = in_fork(["-n", *words], clone, {**os.environ, "PYTHONPATH": str(ROOT)})
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Traceback" not in said
    assert re.search(r"^total +\d+|^Nothing to be done", said, re.M), said


def test_what_is_made_on_request_is_made(clone: Path, demo: None) -> None:
    (words,) = {
        tuple(c.words) for c in OF["snakemake"] if any("/pairs/" in word for word in c.words)
    }
    done = _run(["2" if word == "8" else word for word in words], clone)
    assert done.returncode == 0, done.stderr
    assert all((clone / word).exists() for word in words if word.startswith("results/"))


@pytest.mark.parametrize("command", [c for c in OF["vitfeat"] if len(c.words) > 1], ids=str)
def test_vitfeat_does_it(
    command: Documented,
    clone: Path,
    demo: subprocess.CompletedProcess[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(clone)
    words = _filled(command.words)[1:]
    kind = _class_of(command)
    if kind == "named":
        # No more than its name.
        assert subcommands()[words[0]]
        return
    build_parser().parse_args(words)
    if kind == "run":
        assert main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", OF["make"], ids=str)
def test_make_has_the_target(
    command: Documented, clone: Path, demo: subprocess.CompletedProcess[str]
) -> None:
    done = _run(["make", "-n", *command.words[1:]], clone)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.words[0] not in ("snakemake", "vitfeat", "make")], ids=str
)
def test_other_programs(
    command: Documented, clone: Path, demo: subprocess.CompletedProcess[str]
) -> None:
    words = command.words
    if _class_of(command) == "run":
        done = _run(_filled(words), clone)
        assert done.returncode == 0, done.stderr
    elif words[:2] == ["python", "-m"]:
        spec = importlib.util.find_spec(words[2].split()[0].removesuffix("..."))
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_text("utf-8")
        assert [word for word in words if word.startswith("--") and word not in source] == []
    elif words[0] == "source":
        assert words[1] == ".venv/bin/activate"
        assert "\nVENV := .venv\n" in (clone / "Makefile").read_text("utf-8")
    else:
        files = [word for word in words if word.endswith((".py", ".yml", ".txt"))]
        assert all((ROOT / word).exists() for word in files)
