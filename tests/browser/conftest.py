"""A real Chromium that has no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

CHROMIUM = Path("/usr/bin/chromium")


@attrs.define
class Opened:
    """A page that is open, and what went on beside it."""

    page: Any
    errors: list[str] = attrs.field(factory=list)
    requests: list[str] = attrs.field(factory=list)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed; run `apt-get install chromium`")
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed; it is in the extra `browser`"
    )
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


def _new_tab(browser: Any) -> Opened:
    made = Opened(browser.new_context(offline=True).new_page())
    made.page.on("console", lambda m: made.errors.append(m.text))
    made.page.on("pageerror", lambda e: made.errors.append(str(e)))
    made.page.on("request", lambda r: made.requests.append(r.url))
    return made


@pytest.fixture(scope="session")
def free_tabs(chromium: Any) -> list[Opened]:
    """Tabs that no test uses any more; a new one takes most of a second."""
    return []


@pytest.fixture
def open_page(chromium: Any, free_tabs: list[Opened]) -> Iterator[Callable[..., Opened]]:
    used: list[Opened] = []

    def opened(file: Path, *, width: int = 1280, scheme: str = "light") -> Opened:
        tab = free_tabs.pop() if free_tabs else _new_tab(chromium)
        used.append(tab)
        tab.page.set_viewport_size({"width": width, "height": 800})
        tab.page.emulate_media(color_scheme=scheme)
        tab.errors.clear()
        tab.requests.clear()
        tab.page.goto(file.as_uri())
        return tab

    yield opened
    for tab in used:
        tab.page.evaluate("localStorage.clear()")
        tab.page.mouse.move(0, 0)
        tab.page.goto("about:blank")
    free_tabs += used
