"""What packing costs: planning, joining, masks, positions, and padding to a length.

    python -m benchmarks.packing

Needs the test assets. Both sides take turns in one process; each row is the median of the rounds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from tests.processors import processor_of
from vlmcollate import BlockCausalMask, PadToLength, collator_for, plan_packs


def medians(rounds: int, *calls: Callable[[], Any]) -> list[float]:
    """The median seconds of calls that take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(rounds):
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    rounds = int(os.environ.get("ROUNDS", "9"))
    table = Table("what", "beside", "ours", "found", "limit")

    def ratio(what: str, beside: str, bare: float, ours: float, limit: float) -> None:
        found = f"{ours / bare:.2f} x"
        table.add_row(
            what, f"{beside}: {1e3 * bare:.2f} ms", f"{1e3 * ours:.2f} ms", found, f"{limit} x"
        )

    lengths = np.clip(np.random.default_rng(0).lognormal(6.5, 1, 1_000_000), 1, 8192).astype(int)
    start = time.perf_counter()
    plan = plan_packs(lengths, max_length=8192)
    seconds = time.perf_counter() - start
    table.add_row(
        "plan 1,000,000 lengths", "", f"{seconds:.2f} s", f"fill {plan.fill:.2%}", "3 s, 99.5%"
    )

    collator = collator_for(processor_of("qwen2_5_vl"), padding=BlockCausalMask())
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (448, 448, 3), np.uint8))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it? " * 60}]
    chat = [{"role": "user", "content": content}, {"role": "assistant", "content": "Noise. " * 40}]
    samples = [collator.encode(chat) for _ in range(16)]

    def concatenate() -> Any:
        keys = ("input_ids", "attention_mask", "labels", "mm_token_type_ids")
        tokens = [torch.cat([s.tokens[key] for s in samples]) for key in keys]
        more = [
            torch.cat([getattr(s, key) for s in samples]) for key in ("message_ids", "media_ids")
        ]
        media = [torch.cat([s.media[key] for s in samples]) for key in samples[0].media]
        return tokens, more, media

    bare, ours = medians(rounds, concatenate, lambda: collator.pack(samples))
    ratio("join 16 samples", "concatenation", bare, ours, 2)

    ids = torch.arange(8192) // 512 + 1
    row = {"document_ids": ids, "position_ids": ids, "input_ids": ids, "labels": ids}
    row["attention_mask"] = ids
    mask = BlockCausalMask()

    def fill_blocks() -> Any:
        out = torch.zeros(1, 1, 8192, 8192, dtype=torch.bool)
        for start in range(0, 8192, 512):
            block = torch.ones(512, 512, dtype=torch.bool).tril_()
            out[0, 0, start : start + 512, start : start + 512] = block
        return out

    bare, ours = medians(rounds, fill_blocks, lambda: mask([row], {}))
    ratio("block-causal mask of 8,192", "one fill of the blocks", bare, ours, 1.5)

    pack = collator.pack(samples * 4)  # about 32k tokens
    (positions,) = medians(rounds, lambda: [collator.position_ids(s) for s in samples * 4])
    table.add_row(f"positions of {len(pack):,} tokens", "", f"{1e3 * positions:.2f} ms", "", "5 ms")

    rows = [{"input_ids": torch.arange(n), "labels": torch.arange(n)} for n in range(4033, 4097)]
    padding = PadToLength(length=4096)

    def preallocated() -> Any:
        out = {k: torch.full((64, 4096), f) for k, f in (("input_ids", 0), ("labels", -100))}
        for i, tokens in enumerate(rows):
            for key, target in out.items():
                target[i, : len(tokens[key])] = tokens[key]
        return out

    bare, ours = medians(rounds, preallocated, lambda: padding(rows, {"labels": -100}))
    ratio("PadToLength on 64 x 4,096", "writing into tensors", bare, ours, 1.3)
    Console().print(table)


if __name__ == "__main__":
    main()
