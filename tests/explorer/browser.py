"""Chromium on the embedded default's results, or on small ones, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Of Debian; pages are of this machine alone, and CI runs as root.
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
OPTIONS = ["--no-sandbox", "--disable-dev-shm-usage"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium without a screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


class Watched:
    """A page that notes errors and what it asks of other hosts."""

    def __init__(self, page: Page, link: str) -> None:
        self.page = page
        self.link = link
        self.errors: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._asked)
        page.on("response", self._answered)

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _asked(self, request: Any) -> None:
        own = request.url.startswith((self.link, "data:", "blob:"))
        if not own:
            self.errors.append(f"asked of elsewhere: {request.url}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400:
            self.errors.append(f"{response.status} {response.url}")


@contextmanager
def opened(browser: Browser, link: str, hash: str = "", **how: Any) -> Iterator[Page]:
    """Open a page, and fail where it has an error or asks another host for anything."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **how})
    page = context.new_page()
    page.set_default_timeout(20_000)
    watched = Watched(page, link.split("#")[0].rsplit("/", 1)[0])
    page.goto(f"{link}#{hash}")
    page.wait_for_selector(".grid [role=option], .note")
    try:
        yield page
    finally:
        context.close()
    assert watched.errors == []


def results_of_the_default(root: Path) -> Path:
    """Return the results that `make all` has made, or where the environment says."""
    folder = Path(os.environ.get("VITFEAT_EXPLORED", root / "results"))
    if not (folder / "cka" / "all.csv").is_file():
        pytest.skip("needs the embedded default's results: make all")
    return folder
