"""What a large prepared corpus takes: opening its shards, its lengths, and planning its packs.

    python -m benchmarks.corpus

MILLIONS sets the millions of lengths, by default 100; their limits are in proportion. Planning as
many takes about 45 s and 6 GB of memory. The shards are copies of one that is prepared, under the
names and the manifest of a whole run, in a temporary folder of 1.7 GB. The times are CPU times,
and memory is what the process holds beyond what it held before. Needs Linux, for /proc.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from rich.console import Console
from rich.table import Table

from vlmcollate import BaseCollator, collator_for, plan_packs
from vlmcollate.data import Manifest, PreparedDataset, prepare_dataset
from vlmcollate.data.manifest import shard_name
from vlmcollate.data.shards import Shard
from vlmcollate.testing import tiny_processor

_SHARDS, _ROWS = 10_000, 1000
_MAX_LENGTH = 8192
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@attrs.frozen
class Found:
    """A number that was measured.

    Attributes:
        what: What was measured.
        number: The number.
        unit: Its unit.
        limit: The maximum, or `None` if none is wanted.
    """

    what: str
    number: float
    unit: str
    limit: float | None = None

    @property
    def exceeds(self) -> bool:
        """Whether the number is above the limit."""
        return self.limit is not None and self.number > self.limit

    def cells(self) -> tuple[str, str, str]:
        """Returns the cells of a row."""
        limit = "" if self.limit is None else f"{self.limit:,.4g} {self.unit}"
        style = "red" if self.exceeds else "green" if limit else "default"
        return self.what, f"[{style}]{self.number:,.4g} {self.unit}", limit


def held(name: str = "VmRSS") -> float:
    """The bytes that this process holds; with "VmHWM", the most since `_CLEAR` was written."""
    return 1024 * float(_STATUS.read_text().split(f"{name}:")[1].split()[0])


def measure(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its CPU seconds, and the most bytes that it holds at once."""
    _CLEAR.write_text("5")
    before, start = held(), time.process_time()
    result = call()
    return result, time.process_time() - start, held("VmHWM") - before


def make_folder(folder: Path, collator: BaseCollator) -> None:
    """Prepares one shard, and copies it until there are 10,000."""
    draw = np.random.default_rng(0)
    words = [f"word{place}" for place in range(500)]
    texts = [" ".join(draw.choice(words, draw.integers(1, 40))) for _ in range(_ROWS)]
    question = {"role": "user", "content": "Hi"}
    rows = [[question, {"role": "assistant", "content": text}] for text in texts]
    one = prepare_dataset(rows, folder, collator=collator)
    first = folder / shard_name(0)
    for number in range(1, _SHARDS):
        shutil.copyfile(first, folder / shard_name(number))
    plan = {name: getattr(one, name) for name in ("fingerprint", "source", "options")}
    Manifest.of(repeat(Shard.of(first).facts, _SHARDS), plan).save(folder)


def opening() -> tuple[list[Found], Any]:
    """A prepared folder of 10,000 shards, and the type of its lengths."""
    collator = collator_for(tiny_processor())
    with tempfile.TemporaryDirectory() as name:
        make_folder(Path(name), collator)
        dataset, seconds, held_bytes = measure(lambda: PreparedDataset(name, collator))
        if len(dataset[len(dataset) - 1]) != dataset.lengths[-1]:
            raise RuntimeError("the last row has another length")
    what = f"open {_SHARDS:,} shards of {_ROWS:,} rows"
    found = [
        Found(what, seconds, "s", 2),
        Found(f"{what}: memory", held_bytes / 1e6, "MB", 500),
        Found("  of it the lengths", dataset.lengths.nbytes / 1e6, "MB"),
    ]
    return found, dataset.lengths.dtype


def planning(millions: float, dtype: Any) -> list[Found]:
    """Lengths as a dataset keeps them, planned into packs of 8,192 tokens."""
    number = round(millions * 1e6)
    drawn = np.random.default_rng(0).lognormal(6.5, 1, number)
    lengths = drawn.clip(1, _MAX_LENGTH).astype(dtype)
    del drawn
    plan, seconds, held_bytes = measure(lambda: plan_packs(lengths, max_length=_MAX_LENGTH))
    what = f"plan packs for {number:,} rows"
    return [
        Found(f"lengths of {number:,} rows", lengths.nbytes / 1e6, "MB", 4 * millions),
        Found(what, seconds, "s", 0.6 * millions),
        Found(f"{what}: memory", held_bytes / 1e6, "MB"),
        Found(f"{what}: memory of a row", held_bytes / number, "bytes"),
        Found(f"{what}: fill", 100 * plan.fill, "%"),
    ]


def main() -> int:
    """Prints a row per number; exits 1 above a limit."""
    found, dtype = opening()
    found += planning(float(os.environ.get("MILLIONS", "100")), dtype)
    table = Table("what", "found", "at most")
    for number in found:
        table.add_row(*number.cells())
    Console(width=100).print(table)
    return int(any(number.exceeds for number in found))


if __name__ == "__main__":
    sys.exit(main())
