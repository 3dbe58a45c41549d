"""How much the private memory of a DataLoader worker grows over many batches.

    python -m benchmarks.memory

BATCHES says how many; the growth counts from a tenth of them on, and should stay below 10%.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader, Dataset

from vlmcollate import collator_for
from vlmcollate.testing import tiny_processor


class Chats(Dataset[Any]):
    """Chats about noise, each another."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Any:
        random = np.random.default_rng(index)
        height, width = random.integers(28, 400, 2)
        picture = Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8))
        content = [{"type": "image", "image": picture}, {"type": "text", "text": f"No. {index}?"}]
        answer = "Noise. " * int(random.integers(1, 60))
        return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def private_kib(pid: int) -> int:
    """The memory that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def growth(batches: int) -> tuple[int, int]:
    """The private memory after a tenth of the batches, and the most after that, in KiB."""
    loader: Any = DataLoader(
        Chats(4 * batches),
        batch_size=4,
        num_workers=1,
        collate_fn=collator_for(tiny_processor()),
        multiprocessing_context="spawn",  # a forked worker shares pages until it touches them
    )
    iterator = iter(loader)
    # torch has no public name for the workers
    pid, early, late = iterator._workers[0].pid, 0, 0
    for number, _ in enumerate(iterator):
        if number == batches // 10:
            early = private_kib(pid)
        if number > batches // 2 and number % 50 == 0 and number < batches - 4:
            late = max(late, private_kib(pid))
    return early, late


def main() -> None:
    """Measures and prints."""
    batches = int(os.environ.get("BATCHES", "5000"))
    early, late = growth(batches)
    Console().print(
        f"{batches} batches: {early / 1024:.0f} MiB after {batches // 10}, at most "
        f"{late / 1024:.0f} MiB in the second half ({late / early - 1:+.1%}, limit +10%)"
    )


if __name__ == "__main__":
    main()
