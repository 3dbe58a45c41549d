"""A real tiny model of each family takes the batch, and its loss is that of the labelled tokens."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from PIL import Image

from tests.models.by_family import tiny_model
from tests.processors import processor_of
from tests.processors.families import FAMILIES
from vlmcollate import collator_for


def chat(*colours, answer="A red door."):
    images = [{"type": "image", "image": Image.new("RGB", (48, 40), c)} for c in colours]
    return [
        {"role": "user", "content": [*images, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": answer},
    ]


@lru_cache(maxsize=1)
def _model(name):
    return tiny_model(name, processor_of(name))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "chats",
    [
        [chat("red"), chat("blue", "green", answer="Two of them, side by side.")],
        [chat("red"), chat(answer="Nothing at all.")],
        [chat(answer="Text alone.")],
    ],
    ids=["images", "image and text", "text"],
)
def test_loss_is_that_of_the_labelled_tokens(name, chats):
    processor = processor_of(name)
    model = _model(name)
    model.zero_grad()
    batch = collator_for(processor)(chats)

    output = model(**batch)
    output.loss.backward()

    losses = []
    for row, labels in enumerate(batch["labels"].tolist()):
        for place, label in enumerate(labels):
            if label != -100:
                scores = output.logits[row, place - 1].double().log_softmax(-1)
                losses.append(-scores[label])
    assert torch.isfinite(output.loss)
    assert output.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
