"""Images that go straight to the methods of a processor's call come out as by the call."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from tests.processors import build
from vlmcollate import collator_for

pytestmark = pytest.mark.skipif(
    not hasattr(hf.ProcessorMixin, "replace_image_token"),
    reason="the calls of this transformers have no such methods",
)
FAMILIES = ("internvl", "gemma3", "llava", "paligemma")


def chat(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """A chat with images of some heights and widths."""
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    question = [{"type": "image", "image": image} for image in images]
    return [
        {"role": "user", "content": [*question, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "This."}]},
    ]


def counted(processor: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that grows with each call of a processor's class, which merges its options."""
    calls: list[Any] = []
    kind = type(processor)
    plain = kind._merge_kwargs

    def merge(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(options)
        return plain(self, *arguments, **options)

    monkeypatch.setattr(kind, "_merge_kwargs", merge)
    return calls


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_is_made_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = build(family)
    collate = collator_for(processor)
    row = [chat((90, 200))]
    collate(row)
    (path,) = collate._pixel_plans.values()
    assert path.shortcuts.direct_calls
    calls = counted(processor, monkeypatch)
    collate(row)
    assert not calls


@pytest.mark.parametrize("family", ["internvl", "gemma3", "aya_vision", "llava_onevision"])
def test_the_output_is_that_of_the_call(family: str) -> None:
    processor = build(family)
    collate = collator_for(processor)
    for sizes in [(90, 200)], [(300, 40), (64, 64)], [(1200, 800)]:
        messages = chat(*sizes)
        images = [part["image"] for part in messages[0]["content"][:-1]]
        text = processor.apply_chat_template(messages)
        own = processor(text=[text], images=[images], add_special_tokens=False, return_tensors="pt")
        batch = collate([messages])
        assert torch.equal(batch["input_ids"], own["input_ids"])
        assert torch.equal(batch["pixel_values"], own["pixel_values"])


_takes_images_kwargs = pytest.mark.skipif(
    not hasattr(hf.InternVLProcessor, "images_kwargs"),
    reason="the processors of this transformers have no such options",
)


def _without_tiles(processor: Any) -> None:
    processor.images_kwargs = {"crop_to_patches": False}


def _with_few_tiles(processor: Any) -> None:
    processor.image_processor.max_patches = 1


def _with_longer_images(processor: Any) -> None:
    processor.image_seq_length = 7


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_without_tiles, marks=_takes_images_kwargs),
        _with_few_tiles,
        _with_longer_images,
    ],
)
def test_a_change_between_samples_is_seen(change: Callable[[Any], None]) -> None:
    processor = build("internvl")
    processor.image_processor.max_patches = 4
    row = [chat((90, 200))]
    collate = collator_for(processor)
    before = collate(row)
    change(processor)
    after, fresh = collate(row), collator_for(copy.deepcopy(processor))(row)
    assert before["input_ids"].shape != after["input_ids"].shape
    assert torch.equal(after["input_ids"], fresh["input_ids"])
    assert torch.equal(after["pixel_values"], fresh["pixel_values"])


def test_a_processor_with_a_call_of_its_own_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = build("internvl")

    class Brighter(type(processor)):  # type: ignore[misc]  # a class of any type
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            output = super().__call__(*arguments, **options)
            output["pixel_values"] = output["pixel_values"].flip(-1)
            return output

    plain = collator_for(processor)
    processor = copy.copy(processor)
    processor.__class__ = Brighter
    row = [chat((90, 200))]
    flipped = collator_for(processor)(row)["pixel_values"]
    assert torch.equal(flipped, plain(row)["pixel_values"].flip(-1))
