"""Draws the image of the mask view that the README shows: docs/images/mask.svg."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from vlmcollate import collator_for
from vlmcollate.cli.demo_conversations import conversations
from vlmcollate.cli.demo_output import print_masks
from vlmcollate.testing import tiny_processor

IMAGE = Path(__file__).parent.parent / "docs" / "images" / "mask.svg"


FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
"""Without the fonts, which would be requested from another host."""


def main() -> None:
    """Writes the image."""
    processor = tiny_processor("qwen2_5_vl")
    collate = collator_for(processor)
    samples = {title: collate.encode(example) for title, example in conversations(0).items()}
    console = Console(record=True, width=84, file=io.StringIO(), force_terminal=True)
    print_masks(console, samples, processor)
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    console.save_svg(
        str(IMAGE), title="vlmcollate demo", theme=MONOKAI, code_format=FORMAT, unique_id="mask"
    )


if __name__ == "__main__":
    main()
