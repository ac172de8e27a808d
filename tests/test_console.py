"""What vitfeat logs: in a command's log, and in a notebook."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vitfeat.console import Console, log_to_terminal

logger = logging.getLogger("vitfeat.some.module")


@pytest.fixture
def at_root() -> Iterator[list[logging.LogRecord]]:
    """What comes to a handler that a library has given to the root logger."""
    records: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Kept()
    logging.getLogger().addHandler(handler)
    yield records
    logging.getLogger().removeHandler(handler)


def test_a_log_has_infos_and_warnings_once_and_in_order(
    tmp_path: Path, at_root: list[logging.LogRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    with Console(tmp_path / "log"):
        logger.info("first")
        logger.debug("not this")
        logger.warning("last")
    assert (tmp_path / "log").read_text() == "first\nlast\n"
    assert capsys.readouterr().err == ""
    assert at_root == []
    logger.warning("outside")
    assert [record.getMessage() for record in at_root] == ["outside"]


def test_lines_of_a_model_say_which_from_every_thread(tmp_path: Path) -> None:
    with Console(tmp_path / "log") as console:
        with console.naming("dino"), ThreadPoolExecutor(1) as threads:
            threads.submit(logger.info, "from a thread").result()
            for line in ("dino: named", "dino, layer 1: named", "dino has no CLS", "dino2: other"):
                logger.warning(line)
        logger.info("of all")
    assert (tmp_path / "log").read_text().splitlines() == [
        "dino: from a thread",
        "dino: named",
        "dino, layer 1: named",
        "dino has no CLS",
        "dino: dino2: other",
        "of all",
    ]


def test_a_plan_says_each_line_once_with_the_name_of_vitfeat(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    top = logging.getLogger("vitfeat")
    for name in ("handlers", "propagate"):
        monkeypatch.setattr(top, name, getattr(top, name))
    for _ in range(2):
        log_to_terminal()
    logger.info("disk: at most 2 MiB")
    assert capsys.readouterr().err == "vitfeat: disk: at most 2 MiB\n"


@pytest.mark.parametrize(("level", "shown"), [("", ["warning"]), ("INFO", ["info", "warning"])])
def test_a_notebook_shows_warnings_and_what_is_asked_for(level: str, shown: list[str]) -> None:
    code = f"""
import logging, vitfeat
if {level!r}:
    logging.basicConfig(level={level!r}, format="%(message)s")
logger = logging.getLogger("vitfeat.some.module")
logger.info("info")
logger.warning("warning")
"""
    words = [sys.executable, "-c", code]
    said = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr.splitlines()) == ("", shown)
