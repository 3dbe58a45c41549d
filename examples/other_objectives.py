"""Objectives beside supervised answers: classes, embeddings, documents, several completions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import Gemma3ForSequenceClassification

from examples.chats import COLOURS
from vlmcollate import BlockCausalMask, EncodedSample, collator_for
from vlmcollate.objectives import (
    ClassificationCollator,
    CompletionsCollator,
    DocumentCollator,
    EmbeddingCollator,
)
from vlmcollate.testing import tiny_model, tiny_processor

IMAGES = {colour: Image.new("RGB", (56, 56), colour) for colour in COLOURS}


def train(
    model: Any, loader: Any, loss_of: Callable[[dict[str, Any]], Any], lr: float = 5e-3
) -> list[float]:
    """Takes a step for each batch, and returns the losses."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=lr), []
    for batch in loader:
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def inputs_of(batch: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what a model does not take."""
    ignored = ("group_ids", "document_ids", "branch_ids")
    return {key: value for key, value in batch.items() if key not in ignored}


def classify(steps: int = 6) -> list[float]:
    """Which colour is it? The head of a classifier answers."""
    processor = tiny_processor("gemma3")
    config = tiny_model(processor).config
    config.label2id = {colour: number for number, colour in enumerate(COLOURS)}
    config.id2label = dict(enumerate(COLOURS))
    torch.manual_seed(0)
    model = Gemma3ForSequenceClassification(config)
    collator = collator_for(processor, model_config=config)
    collate = ClassificationCollator(collator, label2id=config.label2id)
    rows = [
        {"images": [image], "prompt": "Which colour?", "label": colour}
        for colour, image in IMAGES.items()
    ]
    loader: DataLoader[Any] = DataLoader(rows * steps, batch_size=len(rows), collate_fn=collate)  # type: ignore[arg-type]  # a list is map-style
    return train(model, loader, lambda batch: model(**batch).loss, lr=1e-3)


def embed(steps: int = 6) -> list[float]:
    """The embedding of a colour's name is near that of its image, and far from the others."""
    processor = tiny_processor()
    model = tiny_model(processor).model
    collate = EmbeddingCollator(collator_for(processor))
    rows = [{"anchor": colour, "positive": image} for colour, image in IMAGES.items()]

    def info_nce(batch: dict[str, Any]) -> Tensor:
        states = model(**inputs_of(batch)).last_hidden_state
        last = batch["attention_mask"].cumsum(1).argmax(1)
        states = states[torch.arange(len(last)), last]
        states = torch.nn.functional.normalize(states, dim=-1)
        scores = states[: len(rows)] @ states[len(rows) :].T / 0.1
        return torch.nn.functional.cross_entropy(scores, torch.arange(len(rows)))

    loader: DataLoader[Any] = DataLoader(rows * steps, batch_size=len(rows), collate_fn=collate)  # type: ignore[arg-type]  # a list is map-style
    return train(model, loader, info_nce, lr=5e-4)


class Packs(IterableDataset[EncodedSample]):
    """Packs of documents, each of which shows a colour and names it."""

    def __init__(self, collate: DocumentCollator, number: int) -> None:
        self.collate, self.number = collate, number

    def __iter__(self) -> Iterator[EncodedSample]:
        rows = [
            {"texts": [None, f"This is {colour}, and it is a colour."], "images": [image, None]}
            for colour, image in IMAGES.items()
        ]
        return self.collate.packs(rows * self.number)


def pretrain(number: int = 9) -> list[float]:
    """Text and images without roles, packed to 32 tokens."""
    processor = tiny_processor()
    model = tiny_model(processor)
    collator = collator_for(processor, max_length=32, padding=BlockCausalMask(), counts=False)
    packs = Packs(DocumentCollator(collator), number)
    loader = DataLoader(packs, batch_size=4, collate_fn=collator.stack)
    return train(model, loader, lambda batch: model(**inputs_of(batch)).loss)


def complete(steps: int = 5) -> list[float]:
    """Two answers to each prompt, which stands once in their row."""
    processor = tiny_processor()
    model = tiny_model(processor)
    collator = collator_for(processor, padding=BlockCausalMask(), counts=False)
    collate = CompletionsCollator(collator, layout="shared_prefix")
    rows = [
        {
            "images": [image],
            "prompt": [{"role": "user", "content": "Which colour?"}],
            "completions": [f"It is {colour}.", f"{colour.title()}."],
        }
        for colour, image in IMAGES.items()
    ]
    loader: DataLoader[Any] = DataLoader(rows * steps, batch_size=len(rows), collate_fn=collate)  # type: ignore[arg-type]  # a list is map-style
    return train(model, loader, lambda batch: model(**inputs_of(batch)).loss)


OBJECTIVES = (classify, embed, pretrain, complete)

if __name__ == "__main__":
    for objective in OBJECTIVES:
        print(objective.__name__, objective())
