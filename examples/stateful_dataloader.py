"""Stopping in the middle of an epoch and going on: torchdata's StatefulDataLoader.

The state is in the sampler; a collator has none.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchdata.stateful_dataloader import StatefulDataLoader

from examples.chats import chats
from vlmcollate import collator_for
from vlmcollate.data import LengthGroupedSampler, token_counts
from vlmcollate.testing import tiny_processor


def loader(workers: int) -> Any:
    """Makes the loader anew, as a restarted job does."""
    collate, dataset = collator_for(tiny_processor()), chats(24)
    sampler = LengthGroupedSampler(lengths=token_counts(dataset, collate), batch_size=4, seed=1)
    return StatefulDataLoader(
        dataset, batch_size=4, sampler=sampler, collate_fn=collate, num_workers=workers
    )


def main(stop_after: int = 2, workers: int = 0) -> tuple[list[dict[str, Tensor]], Any]:
    """Stops after some batches, and returns the rest of the epoch from a new loader."""
    first = loader(workers)
    batches = iter(first)
    for _ in range(stop_after):
        next(batches)
    state = first.state_dict()  # save this beside the model
    second = loader(workers)
    second.load_state_dict(state)
    return list(second), state


if __name__ == "__main__":
    print(len(main()[0]), "batches were left")
