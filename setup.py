"""What pyproject.toml cannot say: a wheel holds the workflow, which stands at the top here."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WORKFLOW = (
    "Snakefile",
    "config.yaml",
    "environment.yml",
    "configs",
    "profiles",
    "workflow",
    "docs",
)


class BuildWithWorkflow(build_py):
    """Puts the workflow, and the pages that its messages name, into the package."""

    def run(self) -> None:
        """Copy them; an editable install has them where they are."""
        super().run()
        if self.editable_mode:
            return
        home = Path(self.build_lib) / "vitfeat" / "_workflow"
        for file in (file for name in WORKFLOW for file in _files(Path(name))):
            (home / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, home / file)


def _files(path: Path) -> list[Path]:
    if path.name == "docs":
        return sorted(path.rglob("*.md"))
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


setup(cmdclass={"build_py": BuildWithWorkflow})
