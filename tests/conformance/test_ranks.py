"""Two ranks over gloo: bad samples or no media on one of them stop neither."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from vlmcollate import RobustCollator, collator_for
from vlmcollate.testing import tiny_model, tiny_processor

STEPS = 3


def chat(*, picture: bool) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [{"type": "text", "text": "What is it?"}]
    if picture:
        content.insert(0, {"type": "image", "image": Image.new("RGB", (56, 56), "teal")})
    return [{"role": "user", "content": content}, {"role": "assistant", "content": "A square."}]


def train(rank: int, port: int, on_error: Any, failed: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    processor = tiny_processor()
    collator = collator_for(processor, dummy_media="batch", require_labels=False)
    robust = RobustCollator(collator=collator, on_error=on_error)
    # every weight has to get a gradient on every rank, or the ranks wait for one another
    model = DistributedDataParallel(tiny_model(processor), find_unused_parameters=False)
    for _ in range(STEPS):
        good = [chat(picture=rank == 0), chat(picture=False)]
        beside = good if on_error == "skip" else []  # which leaves nothing good
        batch = robust(good if rank == 0 else [*beside, 7, "bad"])
        failed[rank] += int(batch.pop("n_failed_samples"))
        inputs = {key: value for key, value in batch.items() if not key.startswith("n_")}
        model(**inputs).loss.backward()
    dist.destroy_process_group()


@pytest.mark.parametrize("on_error", ["skip", "dummy_sample"])
def test_both_ranks_finish(on_error):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    failed = torch.zeros(2, dtype=torch.int64).share_memory_()
    start_processes(train, (port, on_error, failed), nprocs=2, start_method="forkserver")
    assert failed.tolist() == [0, 2 * STEPS]
