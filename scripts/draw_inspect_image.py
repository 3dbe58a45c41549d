"""Draws the image of the inspect page that the docs show: docs/images/inspect.png.

Needs the `browser` extra, and Chromium at /usr/bin/chromium.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from vlmcollate import collator_for
from vlmcollate.cli.demo_conversations import conversations
from vlmcollate.cli.inspection import InspectedRow
from vlmcollate.cli.inspection_output import write_page
from vlmcollate.testing import tiny_processor

IMAGE = Path(__file__).parent.parent / "docs" / "images" / "inspect.png"


def main() -> None:
    """Writes the image."""
    collator = collator_for(tiny_processor("qwen2_5_vl"))
    chats = conversations(0).values()
    rows = [InspectedRow(number=i, explanation=collator.explain(c)) for i, c in enumerate(chats)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "page.html"
        write_page(file, rows, [], name="shapes.jsonl")
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 850})
        page.goto(file.as_uri())
        page.locator("#sample-0 .k0 .tok").nth(4).hover()
        IMAGE.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=IMAGE)
        browser.close()


if __name__ == "__main__":
    main()
