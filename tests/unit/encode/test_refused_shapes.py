"""A shape that a processor's code does not take is an error of the sample; a bug is not."""

from __future__ import annotations

import types

import numpy as np
import PIL.Image
import pytest
import torch

from tests.processors import build
from tests.processors.cases import CASES
from vlmcollate import RobustCollator, collator_for
from vlmcollate.errors import MediaError
from vlmcollate.models.default import DefaultCollator

MINIMAX = CASES["MiniMaxM3VLProcessor"]
"""Its processor takes frames whose sides are multiples of 28, and fails on others in torch."""


def _turn(*size):
    frames = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    question = [{"type": "video", "video": frames}, {"type": "text", "text": "What moves?"}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": "A door."}]


GOOD, BAD = _turn(4, 56, 84), _turn(5, 70, 90)


def test_it_is_an_error_of_the_sample():
    collator = collator_for(MINIMAX.processor())
    expected = r"content\[0\]: MiniMaxM3VLProcessor refuses the media.*: shape '\[.*; resize it"
    with pytest.raises(MediaError, match=r"sample 1, messages\[0\]\." + expected):
        collator([GOOD, BAD])
    with pytest.raises(MediaError, match=r"messages\[2\]\." + expected):
        collator.encode([*GOOD, *BAD])
    skipping = RobustCollator(collator=collator, on_error="skip")
    assert skipping([GOOD, BAD])["n_failed_samples"] == 1


def test_other_turns_are_served():
    collator = collator_for(MINIMAX.processor(), split_turns=True)
    served = collator.turn_encoders([*GOOD, *BAD])[0]().media
    expected = collator_for(MINIMAX.processor()).encode(GOOD).media
    assert torch.equal(served["pixel_values_videos"], expected["pixel_values_videos"])


def test_a_copy_of_the_processor_for_bytes_refuses_as_the_processor(monkeypatch):
    """Qwen's code takes every shape; what torch raises for one is added to it here."""
    kind = type(build("qwen2_5_vl").video_processor)
    plain = kind._preprocess

    def particular(self, videos, **options):
        if videos[0].shape[-1] == 90:
            torch.einsum("i,i->i", torch.zeros(3), torch.zeros(2))
        return plain(self, videos, **options)

    monkeypatch.setattr(kind, "_preprocess", particular)
    collator = collator_for(build("qwen2_5_vl"))
    assert collator.encode(GOOD).pixel_tables
    with pytest.raises(MediaError, match=r"content\[0\]: Qwen2_5_VLProcessor refuses the media"):
        collator.encode(BAD)


class _Buggy(DefaultCollator):
    """Has a bug of its own, which raises what torch raises for shapes."""

    def process_media(self, rendering, media):
        torch.zeros(3).view(2)


class _CallsWrongly(DefaultCollator):
    """Gives the video processor frames that it takes in no sample."""

    def process_media(self, rendering, media):
        frames = torch.zeros(2, 3, 30, 30, dtype=torch.uint8)
        return self.processor.video_processor([frames], do_resize=False)


@pytest.mark.parametrize("kind", [_Buggy, _CallsWrongly])
def test_a_bug_of_a_subclass_passes_through(kind):
    with pytest.raises(RuntimeError, match=r"^shape '\[") as caught:
        kind(processor=MINIMAX.processor()).encode(GOOD)
    assert type(caught.value) is RuntimeError


def test_a_lack_of_memory_passes_through(monkeypatch):
    """Plain media takes less memory."""
    kind = type(build("qwen2_5_vl").video_processor)
    plain = kind._preprocess

    def full(self, videos, **options):
        if videos[0].shape[-1] == 90:
            torch.empty(1 << 50, dtype=torch.uint8)
        return plain(self, videos, **options)

    monkeypatch.setattr(kind, "_preprocess", full)
    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        collator_for(build("qwen2_5_vl")).encode(BAD)
    assert type(caught.value) is RuntimeError


@pytest.mark.parametrize(
    "text", ["Invalid buffer size: 12.77 GiB", "can NOT allocate a block with size larger than 4GB"]
)
def test_a_lack_of_memory_of_another_device_passes_through(monkeypatch, text):
    """The texts are those of devices that are not here; a torch function raises them instead."""
    kind = type(build("qwen2_5_vl").video_processor)
    plain = kind._preprocess

    def full(self, videos, **options):
        if videos[0].shape[-1] == 90:
            torch.unflatten(torch.zeros(6), 0, (7,))
        return plain(self, videos, **options)

    def refusing(*given, **options):
        raise RuntimeError(text)

    refusing = types.FunctionType(refusing.__code__, vars(torch), closure=refusing.__closure__)
    monkeypatch.setattr(kind, "_preprocess", full)
    monkeypatch.setattr(torch, "unflatten", refusing)
    with pytest.raises(RuntimeError, match=text):
        collator_for(build("qwen2_5_vl")).encode(BAD)


def test_a_bug_of_a_users_processor_passes_through():
    class Buggy(type(build("qwen2_5_vl").image_processor)):  # type: ignore[misc]
        def preprocess(self, images, *given, **options):
            if images[0].size[0] != images[0].size[1]:
                torch.zeros(3).view(2)
            return super().preprocess(images, *given, **options)

    processor = build("qwen2_5_vl")
    processor.image_processor.__class__ = Buggy
    image = {"type": "image", "image": PIL.Image.new("RGB", (64, 32))}
    row = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "A door."}]
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        RobustCollator(collator=collator_for(processor), on_error="skip")([row])
