"""What is wrong with an analysis of the user's own is one line, which names module and field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.store.filled import Content
from vitfeat.analyses.own import register_own
from vitfeat.cli import main
from vitfeat.config.parsing import parse_config
from vitfeat.errors import ConfigError

HEAD = "import vitfeat\nfrom pydantic import Field\n"


def parsed(module: Path, name: str = "mine", **settings: Any) -> Any:
    return parse_config(
        {
            "extraction": {"taps": ["cls"]},
            "models": ["demo-dino"],
            "datasets": {"digits": {"layout": "digits", "split": "test"}},
            "analyses": {name: {"module": str(module), "datasets": ["digits"], **settings}},
        }
    )


def write(folder: Path, text: str) -> Path:
    module = folder / "mine.py"
    module.write_text(text)
    return module


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows = 3\n", r"mine\.py has no function rows"),
        ("def rows(:\n", r"mine\.py, line 1: invalid syntax"),
        ("x = 1\nimport nowhere\n", r"mine\.py, line 2: ModuleNotFoundError: .*nowhere"),
        (
            "class Settings:\n    pass\ndef rows(store, settings):\n    yield\n",
            r"Settings is no vitfeat\.Settings",
        ),
        (
            f"{HEAD}class Odd:\n    pass\nclass Settings(vitfeat.Settings):\n    x: Odd = Odd()\n",
            r"mine\.py: Settings: .*Odd",
        ),
    ],
)
def test_a_module_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^analyses\.mine\.module: .*{words}"):
        parsed(write(tmp_path, text))


def test_a_module_that_is_not_there_or_whose_name_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^analyses\.mine\.module: .*no such Python module"):
        parsed(tmp_path / "no.py")
    module = write(tmp_path, "def rows(store, settings):\n    yield\n")
    with pytest.raises(ConfigError, match="vitfeat has an analysis knn; choose another name"):
        parsed(module, "knn")
    with pytest.raises(ConfigError, match=r"analyses\.mine\.module: found 3; allowed: a path"):
        parse_config({"models": [], "datasets": {}, "analyses": {"mine": {"module": 3}}})


def test_its_settings_are_checked_as_any_other(tmp_path: Path) -> None:
    text = (
        f"{HEAD}class Settings(vitfeat.Settings):\n    n: int = Field(3, ge=1, description='N')\n"
    )
    module = write(tmp_path, f"{text}def rows(store, settings):\n    yield\n")
    assert parsed(module, n=5).analyses["mine"].n == 5
    with pytest.raises(ConfigError, match=r"analyses\.mine\.n: found 0"):
        parsed(module, n=0)
    with pytest.raises(ConfigError, match=r"unknown key 'analyses\.mine\.m'.*: datasets, n$"):
        parsed(module, m=1)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{'value': 1}", "row 1 of .*: no layer; every row needs a layer and a value"),
        ("{'layer': 1}", "row 1 of .*: no value"),
        ("{'layer': 99, 'value': 1}", "layer: found 99; the store has 1, 3, 4"),
        ("{'layer': 1, 'value': float('nan')}", "value: found nan in layer 1; leave such rows"),
        ("{'layer': 1, 'value': 'much'}", "value: found 'much', no number"),
        ("{'layer': 1, 'value': 1, 'scor': 'a'}", r"unknown key 'scor' \(did you mean 'score'"),
        ("{'layer': 1, 'value': 1, 'score': 'b'}", "score: found 'b'; SCORES has a"),
        ("3", "row 1 of .*: found 3; a row is a mapping"),
        ("store.nothing", r"mine\.py, line 3: AttributeError: .*nothing"),
    ],
)
def test_rows_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str, words: str
) -> None:
    store = tmp_path / "digits" / "m.zarr"
    Content(taps=("cls",)).write(store)
    text = f"SCORES = {{'a': 'A'}}\ndef rows(store, settings):\n    yield {row}\n"
    out = tmp_path / "out.csv"
    assert main(["run", str(write(tmp_path, text)), str(store), "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vitfeat: error: ")
    assert re.search(words, line), line
    assert not out.exists()


def test_two_values_of_one_kind_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "digits" / "m.zarr"
    Content(taps=("cls",)).write(store)
    text = "def rows(store, settings):\n    for _ in range(2):\n"
    text += "        yield {'layer': 1, 'value': 1}\n"
    command = ["run", str(write(tmp_path, text)), str(store), "--out", str(tmp_path / "o.csv")]
    assert main(command) == 1
    assert "row 2 of " in (line := capsys.readouterr().err)
    assert "layer 1 has two values of value" in line


def test_an_analysis_of_which_nothing_is_stored(tmp_path: Path) -> None:
    write(tmp_path, "def rows(store, settings):\n    yield\n")
    config = {
        "models": ["demo-dino"],
        "datasets": {"digits": {"layout": "digits", "split": "test"}},
        "analyses": {"mine": {"module": str(tmp_path / "mine.py"), "datasets": ["digits"]}},
    }
    with pytest.raises(ConfigError, match=r"^analyses\.mine: nothing is stored of 'digits'"):
        parse_config(config)


def test_one_module_after_another(tmp_path: Path) -> None:
    module = write(tmp_path, "def rows(store, settings):\n    yield\n")
    register_own({"one": str(module)})
    register_own({"two": str(module)})
    parsed(module, "one")


def test_what_a_module_logs_is_in_the_log_of_its_job(tmp_path: Path) -> None:
    text = "import logging\ndef rows(store, settings):\n"
    text += "    logging.getLogger(__name__).info('3 tokens left out')\n"
    module = write(tmp_path, f"{text}    yield {{'layer': store.layers[0], 'value': 1.0}}\n")
    store, log = tmp_path / "digits" / "m.zarr", tmp_path / "log"
    Content(taps=("cls",)).write(store)
    words = ["run", module, store, "--out", tmp_path / "mine.csv", "--log", log]
    assert main([str(word) for word in words]) == 0
    assert log.read_text() == "3 tokens left out\n"
