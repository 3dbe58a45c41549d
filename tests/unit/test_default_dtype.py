"""The default dtype of torch, which a training script may set, changes no batch."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.objectives import ClassificationCollator
from vlmcollate.padding import BlockCausalMask
from vlmcollate.pixels import PixelBytes
from vlmcollate.preference import RewardCollator

Call = Callable[[], dict[str, Any]]


@pytest.fixture(params=[torch.bfloat16, torch.float64])
def default_dtype(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """A function that sets the default dtype for the rest of a test."""
    before = torch.get_default_dtype()
    yield lambda: torch.set_default_dtype(request.param)
    torch.set_default_dtype(before)


def chat(*, weight: float | None = None) -> list[dict[str, Any]]:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    question = [{"type": "image", "image": Image.fromarray(pixels)}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "This."}]}
    return [
        {"role": "user", "content": [*question, {"type": "text", "text": "What?"}]},
        answer if weight is None else {**answer, "weight": weight},
    ]


def in_pixels(family: str, pixels: Any) -> Call:
    collate = collator_for(build(family), pixels=pixels)
    return lambda: collate([chat(), chat()])


def from_a_worker() -> Call:
    """The table of the pixels is pickled."""
    collate = collator_for(build("internvl"))
    return lambda: collate.stack([pickle.loads(pickle.dumps(collate.encode(chat())))])


def weighted() -> Call:
    collate = collator_for(build("internvl"))
    return lambda: collate([chat(weight=0.3)])


def masked() -> Call:
    collate = collator_for(build("qwen2_5_vl"), padding=BlockCausalMask(additive=True))
    return lambda: collate([chat(weight=0.3)])


def rewarded() -> Call:
    collate = RewardCollator(collator_for(build("internvl")))
    row = {"prompt": "A?", "chosen": "B", "rejected": "C", "margin": 0.1}
    return lambda: collate([row])


def numbered() -> Call:
    collate = ClassificationCollator(collator_for(build("internvl")), problem_type="regression")
    return lambda: collate([{"prompt": "A?", "label": 0.1}])


MAKERS: dict[str, Callable[[], Call]] = {
    **{
        f"{family} {pixels}": partial(in_pixels, family, pixels)
        for family in ("internvl", "qwen2_5_vl", "pixtral")
        for pixels in ("float32", "bfloat16", "uint8")
    },
    **{make.__name__: make for make in (from_a_worker, weighted, masked, rewarded, numbered)},
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_batch_is_the_same(default_dtype: Callable[[], None], name: str) -> None:
    call = MAKERS[name]()
    expected = call()
    default_dtype()
    found = call()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        ours = found[key]
        if isinstance(value, PixelBytes):
            ours, value = ours.finished(), value.finished()
        assert ours.dtype == value.dtype, key
        assert torch.equal(ours, value), key


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_the_pixels_are_those_of_the_processor(
    default_dtype: Callable[[], None], family: str
) -> None:
    default_dtype()  # in which a processor calculates its mean
    processor, messages = build(family), chat()
    image = messages[0]["content"][0]["image"]
    expected = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
    assert torch.equal(collator_for(processor)([messages])["pixel_values"], expected)
