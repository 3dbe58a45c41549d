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
import time
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
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen3VLProcessor,
    logging,
)

from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.extend import TurnMarkers
from vlmcollate.labels.text_search import find_pattern
from vlmcollate.pixels import PIXEL_FORMATS

Row = tuple[str, float, float, float]


def compare(base: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """The median seconds of this thread in two calls that take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (base, ours) * 2:
        call()
    for _ in range(rounds):
        for call, taken in zip((base, ours), times, strict=True):
            start = time.thread_time()  # a busy machine does not count
            call()
            taken.append(time.thread_time() - start)
    return statistics.median(times[0]), statistics.median(times[1])


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


def qwen3_vl() -> Any:
    """Qwen3-VL with the pixel limits of its checkpoints."""
    small = build("qwen3_vl")
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, min_pixels=65536, max_pixels=16777216),
        video_processor=small.video_processor,
        tokenizer=small.tokenizer,
        chat_template=small.chat_template,
    )


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
    for turns in (1, 8):
        batch = chats(turns, image=False)

        def render(batch: Any = batch) -> None:
            for chat in batch:
                processor.tokenizer(processor.apply_chat_template(chat))

        times = compare(render, partial(collate, batch), 3 * rounds)
        rows.append((f"{name}: 8 texts, {turns} turn(s) / template + tokenizer", *times, 2.0))
    return rows


def qwen2_5_vl(max_pixels: int) -> Any:
    """Qwen2.5-VL with another limit of pixels."""
    small = build("qwen2_5_vl")
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=3136, max_pixels=max_pixels),
        video_processor=small.video_processor,
        tokenizer=small.tokenizer,
        chat_template=small.chat_template,
    )


def gemma3() -> Any:
    """Gemma 3 with the image size of its checkpoints."""
    processor = build("gemma3")
    processor.image_processor.size = {"height": 896, "width": 896}
    return processor


def images(rounds: int) -> list[Row]:
    """`collate(examples)` of 8 decoded images against calls whose outputs are discarded."""
    rows: list[Row] = []
    for name, processor, size, limits in (
        ("Qwen2.5-VL", qwen2_5_vl(12845056), (640, 480), (0.85, 0.75, 0.55)),
        ("Qwen3-VL", qwen3_vl(), (640, 480), (0.9, 0.75, 0.5)),
        ("Qwen2.5-VL, at most 1 MP", qwen2_5_vl(1003520), (1600, 1200), (0.75, 0.7, 0.45)),
        ("Qwen3-VL", qwen3_vl(), (1600, 1200), (0.6, 0.5, 0.28)),
        ("Gemma 3", gemma3(), (1600, 1200), (0.9, 0.85, 0.75)),
    ):
        noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        image = {"type": "image", "image": Image.fromarray(noise)}
        batch = [
            [
                {"role": "user", "content": [image, {"type": "text", "text": f"What is {i}?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "A door."}]},
            ]
            for i in range(8)
        ]

        def bare(processor: Any = processor, batch: Any = batch) -> None:
            for chat in batch:
                processor.apply_chat_template(
                    [chat], tokenize=True, return_dict=True, return_tensors="pt"
                )

        for kind, limit in zip(PIXEL_FORMATS, limits, strict=True):
            collate = collator_for(processor, pixels=kind)
            times = compare(bare, partial(collate, batch), rounds)
            shown = f"{size[0]}x{size[1]}, {kind}"
            rows.append((f"{name}: 8 x {shown} / calls, discarded", *times, limit))
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
        lambda: images(rounds),
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
