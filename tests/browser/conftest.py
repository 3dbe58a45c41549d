"""A real Chromium that has no network."""

from __future__ import annotations

import gc
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
        gc.collect()  # workers of a loader that were forked since hold the pipes of the driver
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Opened]]:
    contexts: list[Any] = []

    def opened(file: Path, *, width: int = 1280, scheme: str = "light") -> Opened:
        context = chromium.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": 800}
        )
        contexts.append(context)
        found = Opened(context.new_page())
        found.page.on("console", lambda m: found.errors.append(m.text))
        found.page.on("pageerror", lambda e: found.errors.append(str(e)))
        found.page.on("request", lambda r: found.requests.append(r.url))
        found.page.goto(file.as_uri())
        return found

    yield opened
    for context in contexts:
        context.close()
