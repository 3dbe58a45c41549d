"""How fast rows are prepared and read, and what two processes, checksums and Ray's actors add.

    python -m benchmarks.prepare

Needs the test assets. The time of starting a process, which imports torch, is left out: it is the
time between the first shard and the last that counts. Runs take turns; each row is the median.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from logging import ERROR
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import ANY, patch

import attrs
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import logging

from tests.processors import build
from vlmcollate import BaseCollator, collator_for
from vlmcollate.data import PreparedDataset, Progress, prepare_dataset, prepared, shards

ROWS, PER_SHARD = 480, 20


def dataset(side: int = 448) -> list[Any]:
    """Chats about a square image each."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    image = {"type": "image", "image": file.getvalue()}
    question = [image, {"type": "text", "text": "What is this?"}]
    return [
        [{"role": "user", "content": question}, {"role": "assistant", "content": "Noise. " * 20}]
    ] * ROWS


def rows_a_second(rows: list[Any], collator: BaseCollator, processes: int) -> float:
    """The rate between the first shard of each process and the last shard of all."""
    marks: list[tuple[float, int]] = []

    def mark(progress: Progress) -> None:
        marks.append((time.perf_counter(), progress.done))

    with tempfile.TemporaryDirectory() as folder:
        prepare_dataset(
            rows,
            Path(folder),
            collator=collator,
            num_proc=processes,
            rows_per_shard=PER_SHARD,
            on_progress=mark,
        )
    apart = processes * PER_SHARD
    start, before = next(mark for mark in marks if mark[1] >= 2 * apart)
    end, after = [mark for mark in marks if mark[1] <= ROWS - apart][-1]
    return (after - before) / (end - start)


def seconds_beyond_encoding(rows: list[Any], collator: BaseCollator) -> tuple[float, float, float]:
    """What two processes and two Ray actors take as a whole, and Ray's start among it."""
    import ray

    from vlmcollate.data.ray import prepare_dataset as prepare_with_ray

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        prepare_dataset(
            rows, Path(folder, "a"), collator=collator, num_proc=2, rows_per_shard=PER_SHARD
        )
        plain = time.perf_counter() - start
        start = time.perf_counter()
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=ERROR)
        began = time.perf_counter() - start
        prepare_with_ray(
            rows, Path(folder, "b"), collator=collator, num_actors=2, rows_per_shard=PER_SHARD
        )
        actors = time.perf_counter() - start
        ray.shutdown()
    return plain, actors, began


def rows_read_a_second(rows: list[Any], collator: BaseCollator) -> tuple[float, float]:
    """The rate of reading prepared rows, as it is and without a look at their checksums."""
    rates: tuple[list[float], list[float]] = [], []
    with tempfile.TemporaryDirectory() as folder:
        prepare_dataset(rows, Path(folder), collator=collator, rows_per_shard=len(rows))
        dataset = PreparedDataset(folder, collator)
        order = np.random.default_rng(0).permutation(len(rows)).tolist()
        for _ in range(int(os.environ.get("ROUNDS", "3"))):
            for found, patched in zip(rates, (False, True), strict=True):
                with ExitStack() as stack:
                    if patched:
                        stack.enter_context(patch.object(shards, "fast_checksum", return_value=ANY))
                    start = time.perf_counter()
                    for index in order:
                        dataset[index]
                    found.append(len(order) / (time.perf_counter() - start))
    return median(rates[0]), median(rates[1])


def text_rows(number: int) -> list[Any]:
    """Chats of about 200 tokens, none of which is the same."""
    random = np.random.default_rng(0)
    words = [f"word{place}" for place in range(500)]
    return [
        [
            {"role": "user", "content": " ".join(random.choice(words, 8))},
            {"role": "assistant", "content": " ".join(random.choice(words, 40))},
        ]
        for _ in range(number)
    ]


def seconds(call: Callable[[], object]) -> float:
    """The CPU time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def encode_each(rows: list[Any], collator: BaseCollator) -> None:
    """Encodes rows and keeps none of them."""
    for row in rows:
        collator.encode(row)


@attrs.frozen(kw_only=True)
class Rates:
    """What rows take, in CPU time and on disk.

    Attributes:
        encoded: Rows encoded a second.
        prepared: Rows prepared a second.
        multiple: The rate of preparing, as a multiple of encoding.
        cached: Rows read a second at random, with a cache that holds all groups.
        uncached: Rows read a second at random, without a cache.
        bytes_a_row: The bytes of a row on disk.
        bytes_a_token: The bytes of a token on disk.
    """

    encoded: float
    prepared: float
    multiple: float
    cached: float
    uncached: float
    bytes_a_row: float
    bytes_a_token: float


def rates_of(rows: list[Any], collator: BaseCollator) -> Rates:
    """Encodes, prepares and reads rows; each number is the median of the rounds."""
    found = [_one_round(rows, collator) for _ in range(int(os.environ.get("ROUNDS", "3")))]
    return Rates(**{name: median(one[name] for one in found) for name in found[0]})


def _one_round(rows: list[Any], collator: BaseCollator) -> dict[str, float]:
    number, order = len(rows), np.random.default_rng(0).permutation(len(rows)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        live = seconds(lambda: encode_each(rows, collator))
        writing = seconds(lambda: prepare_dataset(rows, Path(folder), collator=collator))
        size = sum(file.stat().st_size for file in Path(folder).glob("*.arrow"))
        cached = PreparedDataset(folder, collator)
        with patch.object(prepared, "_CACHED_GROUPS", 0):
            uncached = PreparedDataset(folder, collator)
        return {
            "encoded": number / live,
            "prepared": number / writing,
            "multiple": live / writing,
            "cached": number / seconds(lambda: [cached[index] for index in order]),
            "uncached": number / seconds(lambda: [uncached[index] for index in order]),
            "bytes_a_row": size / number,
            "bytes_a_token": size / cached.manifest.tokens,
        }


def seconds_to_start() -> float:
    """The CPU time of the first run of a process beyond that of its one row."""
    row, collator = text_rows(1), collator_for(build("qwen2_5_vl"))
    collator.encode(row[0])
    with tempfile.TemporaryDirectory() as folder:
        return seconds(lambda: prepare_dataset(row, Path(folder), collator=collator))


def ratio_to_copy(rows: list[Any], collator: BaseCollator) -> float:
    """The time of reading rows with an image, as a multiple of copying their bytes."""
    with tempfile.TemporaryDirectory() as folder:
        prepare_dataset(rows, Path(folder), collator=collator)
        dataset = PreparedDataset(folder, collator)
        pixels = [dataset[index].media["pixel_values"] for index in range(len(rows))]
        ratios = []
        for _ in range(9):
            copying = seconds(lambda: [tensor.clone() for tensor in pixels])
            reading = seconds(lambda: [dataset[index] for index in range(len(rows))])
            ratios.append(reading / copying)
    return median(ratios)


def add_rates(table: Table, name: str, rates: Rates, *, reading: bool = True) -> None:
    """Adds a row for each number."""
    table.add_row(f"{name}: encode", f"{rates.encoded:,.0f}/s", "")
    table.add_row(f"{name}: prepare", f"{rates.prepared:,.0f}/s", "")
    table.add_row("  of the rate of encoding", f"{rates.multiple:.2f}", "at least 0.8")
    table.add_row(f"{name}: on disk", f"{rates.bytes_a_row:,.0f} bytes a row", "")
    if reading:
        table.add_row("", f"{rates.bytes_a_token:.2f} bytes a token", "")
        for what, rate in (("all cached", rates.cached), ("no cache", rates.uncached)):
            table.add_row(f"{name}: read at random, {what}", f"{rate:,.0f}/s", "at least 5,000/s")
            table.add_row("  of the rate of encoding", f"{rate / rates.encoded:.1f}", "")


def main() -> None:
    """Measures and prints."""
    logging.set_verbosity_error()
    torch.set_num_threads(1)  # as each process of a pool has it
    start = seconds_to_start()
    rows, collator = dataset(), collator_for(build("qwen2_5_vl"))
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(int(os.environ.get("ROUNDS", "3"))):
        for processes in rates:
            rates[processes].append(rows_a_second(rows, collator, processes))
    one, two = (median(rates[processes]) for processes in rates)
    table = Table("what", "1 process", "2 processes", "ratio", "at least")
    table.add_row(
        f"prepare {ROWS} chats with an image",
        f"{one:.0f}/s",
        f"{two:.0f}/s",
        f"{two / one:.2f}",
        "1.7",
    )
    Console().print(table)
    table = Table("read", "with checksums", "without", "ratio")
    chats = [[{**turn, "content": "Noise. " * 40} for turn in row] for row in rows]
    for name, what in (("chats with an image", rows[:200]), ("chats of text", chats)):
        checked, unchecked = rows_read_a_second(what, collator)
        ratio = f"{checked / unchecked:.2f}"
        table.add_row(name, f"{checked:.0f}/s", f"{unchecked:.0f}/s", ratio)
    Console().print(table)
    table = Table("CPU time", "found", "goal")
    table.add_row("start of a run", f"{start:.2f} s", "")
    for number in (2000, 10_000):
        add_rates(table, f"{number:,} rows of text", rates_of(text_rows(number), collator))
    add_rates(table, f"{ROWS} rows with an image", rates_of(rows, collator), reading=False)
    for side, number in ((448, 40), (560, 25), (1344, 8)):  # the second has the pixels of 640 x 480
        multiple = ratio_to_copy(dataset(side)[:number], collator)
        name = f"image of {side} x {side}: read, of the time of copying"
        table.add_row(name, f"{multiple:.2f}", "at most 1.3")
    Console(width=100).print(table)
    if find_spec("ray") is None:
        return
    table = Table("chats", "2 processes", "2 Ray actors", "of which Ray starts")
    for number in (ROWS // 4, ROWS):
        plain, actors, began = seconds_beyond_encoding(rows[:number], collator)
        table.add_row(f"{number}", f"{plain:.1f} s", f"{actors:.1f} s", f"{began:.1f} s")
    Console().print(table)


if __name__ == "__main__":
    main()
