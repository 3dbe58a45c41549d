"""What looking costs: explaining beside encoding, and the page of 100 samples with pictures.

    python -m benchmarks.inspect

Needs the test assets. Encoding and explaining take turns in one process; the ratio is the median of
the rounds' ratios.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from tests.processors import processor_of
from vlmcollate import collator_for
from vlmcollate.cli.inspection import InspectedRow
from vlmcollate.cli.inspection_output import print_rows, write_page

_SAMPLES = 100


def picture(seed: int) -> Image.Image:
    """A picture as detailed as a photograph: smooth shapes with some noise."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
    smooth = np.asarray(rough.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + rng.normal(0, 8, smooth.shape).astype(np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def chat(seed: int) -> list[dict[str, Any]]:
    """Three turns about two pictures, of about a thousand tokens."""
    words = "The picture shows a narrow street with a red door, and above it a lamp. "
    messages: list[dict[str, Any]] = []
    for turn in range(3):
        shown = [{"type": "image", "image": picture(2 * seed + turn)}] if turn < 2 else []
        content = [*shown, {"type": "text", "text": "What is there to see, and where? " * 4}]
        messages += [
            {"role": "user", "content": content},
            {"role": "assistant", "content": words * 6},
        ]
    return messages


def seconds(call: Any) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    rounds = int(os.environ.get("ROUNDS", "9"))
    collator = collator_for(processor_of("qwen2_5_vl"))
    chats = [chat(i) for i in range(_SAMPLES)]
    collator.explain(chats[0])
    ratios = []
    for i in range(rounds):
        encoding = seconds(lambda i=i: collator.encode(chats[i]))
        ratios.append(seconds(lambda i=i: collator.explain(chats[i])) / encoding)

    start = time.perf_counter()
    rows = [InspectedRow(number=i, explanation=collator.explain(c)) for i, c in enumerate(chats)]
    explaining = time.perf_counter() - start
    tokens = [len(row.explanation.sample) for row in rows if row.explanation is not None]
    of_processor = sum(
        row.explanation.seconds["process"] for row in rows if row.explanation is not None
    )
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    printing = seconds(lambda: print_rows(console, rows, []))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        writing = seconds(lambda: write_page(file, rows, [], name="benchmark"))
        size = file.stat().st_size / 1e6

    table = Table("what", "found", "limit")
    table.add_row("explain beside encode", f"{statistics.median(ratios):.2f} x", "")
    about = f"{_SAMPLES} samples of {statistics.mean(tokens):,.0f} tokens, two pictures each"
    table.add_row(f"explain {about}", f"{explaining:.2f} s", "")
    table.add_row("  of it the processor", f"{of_processor:.2f} s", "")
    table.add_row("print them", f"{printing:.2f} s", "")
    table.add_row("write their page", f"{writing:.2f} s", "")
    whole = explaining + max(printing, writing)
    table.add_row("all, beyond loading the processor", f"{whole:.2f} s", "5 s")
    table.add_row("the page", f"{size:.2f} MB", "5 MB")
    Console().print(table)


if __name__ == "__main__":
    main()
