"""Exports: what is written holds the same numbers, and opens elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

import vitfeat
from vitfeat.cli import main
from vitfeat.errors import DataError
from vitfeat.explorer.catalog import Results
from vitfeat.explorer.content import TYPES, AbsentError, Content, Held
from vitfeat.explorer.export import Choice, export_file, export_site
from vitfeat.explorer.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def found(made: Path) -> Results:
    return Results.of(made / "results", None, {"d": made / "images"})


@pytest.fixture(scope="module")
def site(found: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "site"
    export_site(found, Choice(images=3), out)
    return out


def read(site: Path, path: str) -> Any:
    return json.loads((site / path).read_text())


def test_an_export_has_the_numbers_of_the_chosen_images(site: Path, made: Path) -> None:
    store = vitfeat.open(made / "results/features/d/b.zarr")
    ids = read(site, "datasets/d.json")["ids"]
    rows = [store.image_ids.index(name) for name in ids]
    assert rows == [1, 3, 5]
    for name in ("cls", "registers", "spatial", "attention_summary/prefix_query"):
        array = zarr.open_array(site / "features/d/b.zarr" / name, mode="r")
        np.testing.assert_array_equal(array[:], store[name][rows])
        assert array.chunks[:2] == (1, 1)
        assert array.shards is not None
    attention = zarr.open_array(site / "features/d/b.zarr/attention", mode="r")
    np.testing.assert_array_equal(attention[:], store["attention"][[0]])
    details = read(site, "details/features/d/b.json")
    assert details["rows"]["attention"] == [0]
    entropy = np.fromfile(site / "metrics/features/d/b/entropy/1.f32", "<f4")
    np.testing.assert_array_equal(
        entropy.reshape(3, 2), store["attention_summary/entropy"][rows, 1]
    )


def test_an_export_of_some_models_names_no_other(found: Results, tmp_path: Path) -> None:
    export_site(found, Choice(images=2, models=["b"]), tmp_path / "site")
    catalog = read(tmp_path / "site", "catalog.json")
    assert [one["id"] for one in catalog["models"]] == ["b"]
    assert not (tmp_path / "site/features/d/a.zarr").exists()


def test_what_is_not_there_is_refused_in_a_line(found: Results, tmp_path: Path) -> None:
    out = tmp_path / "site"
    with pytest.raises(DataError, match=r"no store of the model 'c'.*there are a, b"):
        export_site(found, Choice(images=2, models=["c"]), out)
    with pytest.raises(DataError, match="no dataset has an image"):
        export_site(found, Choice(images=["none.png"]), out)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(DataError, match="not empty"):
        export_site(found, Choice(images=2), out)


def test_a_single_file_is_of_few_images(
    found: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitfeat.explorer.export.MOST_IMAGES", 3)
    with pytest.raises(DataError, match="up to 3 images, and 4 are chosen"):
        export_file(found, Choice(images=4), tmp_path / "one.html")
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_a_single_file_ends_its_data_or_is_asked_of_elsewhere(
    found: Results, tmp_path: Path
) -> None:
    export_file(found, Choice(images=2), tmp_path / "one.html")
    page = (tmp_path / "one.html").read_text()
    assert page.count("</script>") == 2
    assert "src=" not in page.split("<style>")[0]
    assert "default-src 'none'" in page


def test_the_command_exports(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["explore", str(made / "results"), "--root", f"d={made / 'images'}"]
    assert main([*words, "--single-file", "one.html", "--images", "2"]) == 0
    assert capsys.readouterr().out.startswith("one.html: ")
    assert main([*words, "--export", "site", "--models", "x"]) == 1
    assert "no store of the model 'x'" in capsys.readouterr().err


class Folder(Content):
    """A host of files that serves parts of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, path: str) -> Held:
        file = self.folder / (path or "index.html")
        if not file.is_file():
            raise AbsentError(f"{path}: not there")
        return Held(TYPES.get(file.suffix, "application/octet-stream"), file=file)


@pytest.mark.browser
def test_an_exported_folder_opens_from_any_host_with_ranges(
    browser: Browser, default: Path, root: Path, tmp_path: Path
) -> None:
    from tests.explorer.browser import opened
    from tests.explorer.test_views import assert_drawn, panel

    results = Results.of(default, root / "config.yaml", {})
    choice = Choice(images=8, models=["demo-dino", "demo-mae"], datasets=["digits"])
    export_site(results, choice, tmp_path / "site")
    server = Server(Folder(tmp_path / "site"))
    with (
        server.running() as link,
        opened(browser, link, "image=3&beside=0&shown=demo-mae:2") as page,
    ):
        name = page.locator("h2").inner_text()
        tokens = vitfeat.open(default / "features/digits/demo-mae.zarr")["spatial"][name, 2]
        tokens = np.asarray(tokens, dtype=np.float64)
        unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
        wanted = unit @ unit[4, 4]
        canvas = panel(page, "demo-mae").locator(".map canvas").first
        assert_drawn(canvas, wanted, wanted.min(), 1.0)
        for number in range(1, 7):
            page.keyboard.press(str(number))
            page.wait_for_timeout(300)
        page.wait_for_selector("canvas[data-drawn='8']")


@pytest.mark.browser
def test_a_single_file_opens_by_itself(
    browser: Browser, default: Path, root: Path, tmp_path: Path
) -> None:
    from tests.explorer.browser import opened

    results = Results.of(default, root / "config.yaml", {})
    choice = Choice(images=4, models=["demo-dino", "demo-mae"], datasets=["digits"])
    export_file(results, choice, tmp_path / "one.html")
    with opened(browser, (tmp_path / "one.html").as_uri()) as page:
        page.wait_for_selector("article canvas")
        page.keyboard.press("j")
        for number in range(1, 7):
            page.keyboard.press(str(number))
            page.wait_for_timeout(300)
        page.wait_for_selector("canvas[data-drawn='4']")
        assert page.locator("main .note").count() == 0
