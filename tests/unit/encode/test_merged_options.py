"""Options that are merged once are those that the processor merges at each call."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.encode.merged_options import merged_options, merges_as_usual

pytestmark = pytest.mark.skipif(
    not merges_as_usual(hf.InternVLProcessor),
    reason="this transformers merges options by another method",
)
CALL = {
    "images_kwargs": {"return_tensors": "pt"},
    "add_special_tokens": False,
    "return_text_replacement_offsets": True,
}


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A processor that counts in `merges` how often it merges options."""
    made = build("internvl")
    plain = type(made)._merge_kwargs

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        self.merges += 1
        return plain(self, *arguments, **options)

    made.merges = 0
    monkeypatch.setattr(made, "_merge_kwargs", counted.__get__(made), raising=False)
    return made


def merged(processor: Any, **options: Any) -> Any:
    """The merged options, which have to be the processor's own."""
    arguments = {"tokenizer_init_kwargs": processor.tokenizer.init_kwargs, **CALL, **options}
    found = merged_options(processor, **arguments)
    before = processor.merges
    assert found == processor._merge_kwargs(**arguments)
    processor.merges = before
    return found


def test_options_are_merged_once(processor: Any) -> None:
    first = merged(processor)
    first["images_kwargs"].clear()  # as a processor may
    again = merged(processor)
    assert again["images_kwargs"]["crop_to_patches"] is True
    assert processor.merges == 1


def test_every_change_is_seen(processor: Any) -> None:
    merged(processor)
    assert merged(processor, images_kwargs={"max_patches": 3})["images_kwargs"]["max_patches"] == 3
    processor.images_kwargs = {"crop_to_patches": False}
    assert merged(processor)["images_kwargs"]["crop_to_patches"] is False
    processor.images_kwargs["min_patches"] = 2
    assert merged(processor)["images_kwargs"]["min_patches"] == 2
    side = "left" if processor.tokenizer.padding_side == "right" else "right"
    processor.tokenizer.init_kwargs["padding_side"] = side
    processor.tokenizer.padding_side = side
    assert merged(processor)["text_kwargs"]["padding_side"] == side
    assert merged(processor, max_length=7)["text_kwargs"]["max_length"] == 7
    assert merged(processor, max_length=True)["text_kwargs"]["max_length"] is True


@pytest.mark.parametrize(
    "value",
    [np.float64(0.5), np.arange(3), torch.arange(3), float("nan"), object()],
    ids=["scalar", "array", "tensor", "nan", "object"],
)
def test_other_values_than_plain_ones_are_merged_at_each_call(processor: Any, value: Any) -> None:
    """The options of audio, since this processor takes none, are not validated."""
    for _ in range(2):
        found = merged_options(
            processor, audio_kwargs={"unknown": value}
        )  # which are not validated
        kept = found["audio_kwargs"]["unknown"]
        assert type(kept) is type(value)
    assert processor.merges == 2


def test_an_option_that_the_processor_refuses_is_refused_at_each_call(processor: Any) -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="max_patches"):
            merged_options(processor, images_kwargs={"max_patches": "many"})
    assert processor.merges == 2


def test_many_calls_take_limited_memory(processor: Any) -> None:
    from vlmcollate.encode import merged_options as module

    for length in range(100):
        merged(processor, max_length=length)
    assert len(module._KNOWN.get_or_make(processor, dict)) <= 32


def test_a_processor_that_merges_by_itself_is_left_alone() -> None:
    kind: Any = type(build("internvl"))

    class Own(kind):  # type: ignore[misc]  # a class of any type
        def _merge_kwargs(self, *arguments: Any, **options: Any) -> Any:
            return super()._merge_kwargs(*arguments, **options)

    assert merges_as_usual(kind)
    assert not merges_as_usual(Own)
    assert not merges_as_usual(object)


def test_a_change_between_samples_is_seen() -> None:
    processor = build("internvl")
    processor.image_processor.max_patches = 4
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8))
    question = [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": "This."}]
    collate = collator_for(processor)
    tiles = len(collate([chat])["pixel_values"])
    processor.images_kwargs = {"crop_to_patches": False}
    assert len(collate([chat])["pixel_values"]) == 1 < tiles
    fresh = collator_for(copy.deepcopy(processor))
    assert torch.equal(collate([chat])["pixel_values"], fresh([chat])["pixel_values"])
