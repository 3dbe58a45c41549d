"""Packing: several conversations in a row of the batch, which do not see each other."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from examples.chats import chats
from vlmcollate import BlockCausalMask, collator_for, plan_packs
from vlmcollate.data import EncodedDataset
from vlmcollate.testing import tiny_model, tiny_processor


def main(epochs: int = 8, max_length: int = 160) -> list[float]:
    """Trains, and returns the loss of each step."""
    processor = tiny_processor()
    model = tiny_model(processor)
    # with FlashAttention: padding=FlattenedDocuments(), and a batch of one pack
    collator = collator_for(processor, padding=BlockCausalMask())
    dataset = EncodedDataset(chats(), collator)
    samples = [dataset[i] for i in range(len(dataset))]
    plan = plan_packs([len(sample) for sample in samples], max_length=max_length)
    packs = [collator.pack([samples[i] for i in pack]) for pack in plan]
    loader: DataLoader[Any] = DataLoader(packs, batch_size=2, collate_fn=collator.stack)  # type: ignore[arg-type]  # a list is map-style
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(epochs):
        for batch in loader:
            for key in ("n_images_per_sample", "document_ids"):
                batch.pop(key, None)
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())
