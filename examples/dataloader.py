"""A plain training loop: torch's DataLoader, with samples of like length in a batch.

For a real model, load the processor and the model with `from_pretrained`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from examples.chats import chats
from vlmcollate import collator_for
from vlmcollate.data import LengthGroupedSampler, token_counts
from vlmcollate.testing import tiny_model, tiny_processor


def main(start_method: str | None = None, workers: int = 0, epochs: int = 8) -> list[float]:
    """Trains, and returns the loss of each step."""
    processor = tiny_processor()
    model, collate, dataset = tiny_model(processor), collator_for(processor), chats()
    sampler = LengthGroupedSampler(lengths=token_counts(dataset, collate), batch_size=4)
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]  # a list is a map-style dataset
        batch_size=4,
        sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context=start_method,
    )
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(epochs):
        for batch in loader:
            batch.pop("n_images_per_sample")  # for whoever cuts batches; not for the model
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main("spawn", workers=2))
