"""Real tiny models of further families take the batch, and learn what its labels say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from tests.measuring import PARTS
from tests.models.by_processor import MODELS
from tests.processors.cases import CASES
from vlmcollate import collator_for

TAKES_SOUND = ("Qwen2_5OmniProcessor", "Qwen3OmniMoeProcessor")


def chat(*parts: dict[str, Any], answer: str = "Yes") -> list[dict[str, Any]]:
    content = [*parts, {"type": "text", "text": "What?"}]
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return [{"role": "user", "content": content}, reply]


def picture(width: int, height: int) -> dict[str, Any]:
    return {"type": "image", "image": Image.new("RGB", (width, height), "teal")}


def check(name: str, chats: list[list[dict[str, Any]]]) -> None:
    case = CASES[name]
    try:
        processor = case.processor()
        torch.manual_seed(0)
        model = MODELS[name](processor)
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this transformers has no {name} or its model: {error}")
    batch = collator_for(processor, **case.options)(chats)
    inputs = {key: value for key, value in batch.items() if not key.startswith("n_")}
    output = model.eval()(**inputs)
    output.loss.backward()
    wanted = batch["labels"][:, 1:]
    trained = wanted != -100  # of a long video, few tokens
    expected = torch.nn.functional.cross_entropy(
        output.logits[:, :-1][trained].float(), wanted[trained]
    )
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_pictures_of_any_number_train(name):
    several = [picture(60, 90), picture(120, 70)]
    check(name, [chat(picture(90, 60)), chat(*several, answer="No, two of them.")])


@pytest.mark.parametrize("name", TAKES_SOUND)
def test_sounds_and_videos_train(name):
    check(name, [chat(PARTS["audio"]), chat(PARTS["video"], PARTS["audio"], answer="Both")])
