"""The miniature, run once for all tests of the workflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.harness import MINI, Workflow


@pytest.fixture(scope="session")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The miniature, run once; tests may only plan on it."""
    workflow = Workflow(root, tmp_path_factory.mktemp("mini"), MINI)
    done = workflow.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow
