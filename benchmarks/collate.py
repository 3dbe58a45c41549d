"""How long collating takes beside what it cannot do without, as ratios in one process.

    python -m benchmarks.collate

Needs the test assets (scripts/fetch_test_assets.py). Each row is the median of several rounds in
which both sides take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import (
    logging,
)

from benchmarks.pixels import MEASURES, qwen3_vl
from benchmarks.timing import Row, compare
from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.extend import TurnMarkers
from vlmcollate.labels.text_search import find_pattern


def chats(turns: int, *, image: bool) -> list[list[dict[str, Any]]]:
    """Eight conversations of about 300 tokens a turn, half of which are the answer."""
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    picture = {"type": "image", "image": Image.fromarray(noise)}
    made = []
    for i in range(8):
        chat: list[dict[str, Any]] = []
        for turn in range(turns):
            text = {
                "type": "text",
                "text": f"Item {i}, part {turn}: " + "describe what you see " * 25,
            }
            content = [picture, text] if image and not turn else [text]
            answer = [
                {"type": "text", "text": f"Part {turn} shows " + "a red door in a wall " * 25}
            ]
            chat += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        made.append(chat)
    return made


def collating(name: str, processor: Any, rounds: int) -> list[Row]:
    """`collate(examples)` against the bare calls of the processor, one a sample."""
    rows: list[Row] = []
    collate = collator_for(processor)
    for turns in (1, 8):
        batch = chats(turns, image=True)
        texts = [processor.apply_chat_template(chat) for chat in batch]
        images = [[chat[0]["content"][0]["image"]] for chat in batch]

        def bare(texts: Any = texts, images: Any = images) -> None:
            # kept until the end, as a batch keeps them
            _ = [
                processor(text=[text], images=pictures, return_tensors="pt")
                for text, pictures in zip(texts, images, strict=True)
            ]

        times = compare(bare, partial(collate, batch), rounds)
        rows.append((f"{name}: 8 x one 640x480 image, {turns} turn(s) / bare calls", *times, 1.0))
    for turns, limit in ((1, 1.4), (8, 1.15)):
        batch = chats(turns, image=False)

        def render(batch: Any = batch) -> None:
            for chat in batch:
                processor.tokenizer(processor.apply_chat_template(chat))

        times = compare(render, partial(collate, batch), 3 * rounds)
        rows.append((f"{name}: 8 texts, {turns} turn(s) / template + tokenizer", *times, limit))
    return rows


def scanning(rounds: int) -> list[Row]:
    """The marker scan and the text search against two compares and a fill over the same ids."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(100, 150_000, (8, 32768)))
    for start in range(0, 32768 - 512, 512):
        ids[:, start : start + 3] = torch.tensor([1, 2, 3])
        ids[:, start + 300] = 4
    markers = TurnMarkers(openers=((1, 2, 3),), stops=(4,), unfinished=((1, 2),))
    flat = ids.numpy()
    answers = [flat[0, at + 3 : at + 300].copy() for at in range(0, 32768 - 512, 512)]

    def base() -> None:
        mask = np.zeros(flat.shape, dtype=bool)
        mask[:] = (flat == 1) | (flat == 4)

    def search() -> None:
        for row in flat:
            find_pattern(row, answers[0])

    return [
        (
            "marker scan (8, 32768) / two compares and a fill",
            *compare(base, lambda: markers.scan(ids), rounds),
            10.0,
        ),
        ("text search (8, 32768) / two compares and a fill", *compare(base, search, rounds), 20.0),
    ]


def importing(rounds: int) -> Row:
    """Every public name of vlmcollate, on top of torch and what it takes of transformers."""
    code = (
        "import time, torch, transformers, torchvision; start = time.perf_counter(); "
        "from transformers import ProcessorMixin, PreTrainedTokenizerFast; "
        "base = time.perf_counter(); from vlmcollate import *; "
        "print(time.perf_counter() - base)"
    )
    taken = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(rounds)]
    return (
        "from vlmcollate import *, beyond torch and transformers (s)",
        0.0,
        statistics.median(taken),
        0.1,
    )


def main() -> None:
    """Runs everything and prints a table."""
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    rounds = int(os.environ.get("ROUNDS", "15"))
    jobs: list[Callable[[], list[Row]]] = [
        lambda: collating("Qwen2.5-VL", build("qwen2_5_vl"), rounds),
        lambda: collating("Qwen3-VL", qwen3_vl(), rounds),
        *(partial(list, measure(rounds)) for measure in MEASURES),
        lambda: scanning(rounds),
        lambda: [importing(3)],
    ]
    rows = [row for job in track(jobs, description="Measuring") for row in job()]
    table = Table("what", "base ms", "ours ms", "ratio", "limit")
    for what, base, ours, limit in rows:
        ratio = ours / base if base else ours
        style = "green" if ratio <= limit else "red"
        numbers = (f"{1000 * base:.2f}", f"{1000 * ours:.2f}", f"[{style}]{ratio:.2f}", f"{limit}")
        table.add_row(what, *numbers)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
