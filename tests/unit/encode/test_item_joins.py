"""What single items' outputs are joined to is what the processor makes of all, or it is called."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import MediaError
from vlmcollate.media import MediaRequest, ProcessedMedia, process_together
from vlmcollate.models.gemma3 import Gemma3Collator
from vlmcollate.models.qwen2_vl import Qwen2VLCollator

SIZES = ((64, 48), (200, 120), (90, 150), (120, 120), (64, 64), (100, 48))


def _chat(number: int, sizes: tuple[tuple[int, int], ...] = SIZES) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for place, (width, height) in enumerate(sizes[:number]):
        pixels = np.random.default_rng(place).integers(0, 256, (height, width, 3), np.uint8)
        parts = [{"type": "image", "image": Image.fromarray(pixels)}, {"type": "text", "text": "?"}]
        messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": "Yes."}]
    return messages


def _check_own_chats(collator: BaseCollator, messages: list[dict[str, Any]]) -> None:
    alone = attrs.evolve(collator, split_turns=False, train_on="last_turn")
    split = collator if collator.split_turns else attrs.evolve(collator, split_turns=True)
    found = split.encode_all(messages)
    assert len(found) == len(messages) // 2
    for turn, sample in enumerate(found):
        own = alone.encode(messages[: 2 * turn + 2])
        assert torch.equal(sample.input_ids, own.input_ids)
        assert sample.media.keys() == own.media.keys()
        assert all(torch.equal(sample.media[key], own.media[key]) for key in own.media)


def _numbers_images(request: MediaRequest) -> ProcessedMedia:
    """Writes the position of each image behind it."""
    found = process_together(request)
    texts = tuple(f"{text}#{place}" for place, text in enumerate(found.replacements))
    return attrs.evolve(found, replacements=texts)


def _darkens_later_images(request: MediaRequest) -> ProcessedMedia:
    """Depends on the position of an image in its pixels alone."""
    found = process_together(request)
    pixels = found.tensors["pixel_values"].clone()
    pixels[1:] -= 1
    return attrs.evolve(found, tensors={**found.tensors, "pixel_values": pixels})


def _shrinks_several_images(request: MediaRequest) -> ProcessedMedia:
    """Depends on the number of images, from five on."""
    found = process_together(request)
    pixels = found.tensors["pixel_values"]
    pixels = pixels // 2 if len(request.items) > 4 else pixels
    return attrs.evolve(found, tensors={**found.tensors, "pixel_values": pixels})


@pytest.mark.parametrize(
    "process", [_numbers_images, _darkens_later_images, _shrinks_several_images]
)
def test_processing_that_depends_on_other_items_gets_them_all(process):
    class Dependent(Gemma3Collator):
        family = attrs.evolve(Gemma3Collator.family, process=process)

    _check_own_chats(Dependent(processor=build("gemma3")), _chat(6))


@attrs.frozen(kw_only=True, eq=False)
class ReadsTheText(Qwen2VLCollator):
    """Makes the images dark of a prompt with two of them in one message."""

    def process_media(self, rendering, media):
        found = super().process_media(rendering, media)
        pixels = found.tensors["pixel_values"]
        if rendering.text.count("user") > 1:
            pixels = pixels / 2
        return attrs.evolve(found, tensors={**found.tensors, "pixel_values": pixels})


def test_a_stage_of_ones_own_gets_the_whole_prompt():
    _check_own_chats(ReadsTheText(processor=build("qwen2_vl")), _chat(3))


def test_settings_that_change_are_tried_again():
    processor = build("smolvlm")
    split = collator_for(processor, split_turns=True)
    _check_own_chats(split, _chat(3))
    processor.image_processor.do_image_splitting = False
    _check_own_chats(split, _chat(3))
    processor.image_processor.do_resize = False
    square = ((64, 64), (64, 64), (64, 64))
    _check_own_chats(split, _chat(3, square))
    assert len(split._known_item_joins) == 6  # two and three images, with three settings


def test_padding_is_that_of_a_turns_own_images():
    split = collator_for(build("phi4_multimodal"), split_turns=True)
    samples = split.encode_all(_chat(3, ((64, 64), (200, 64), (900, 300))))
    tiles = [sample.media["image_pixel_values"].shape[1] for sample in samples]
    assert tiles[0] == tiles[1] < tiles[2]


def test_a_processor_that_takes_few_images_serves_the_turns_before():
    processor = build("gemma3")
    kind: Any = type(processor)

    class TakesFive(kind):  # type: ignore[misc]
        def __call__(self, images=None, **more):
            if sum(map(len, images or ())) > 5:
                raise ValueError("at most 5 images")
            return super().__call__(images=images, **more)

    processor.__class__ = TakesFive
    encoders = collator_for(processor, split_turns=True).turn_encoders(_chat(6))
    assert [encode().media_counts["image"] for encode in encoders[:5]] == [1, 2, 3, 4, 5]
    with pytest.raises(MediaError, match="refuses 6 media items in one sample: at most 5 images"):
        encoders[5]()


def test_an_image_that_is_refused_is_named_as_in_its_own_chat():
    messages = _chat(3, ((64, 64), (900, 4), (64, 64)))  # an aspect ratio above 200
    split = collator_for(build("qwen2_vl"), split_turns=True)
    first, second, third = split.turn_encoders(messages)
    assert first().media_counts == {"image": 1}
    for encode, end in ((second, 4), (third, 6)):
        with pytest.raises(MediaError) as own:
            collator_for(split.processor).encode(messages[:end])
        with pytest.raises(MediaError) as found:
            encode()
        assert str(found.value) == str(own.value)


@pytest.mark.parametrize("name", ["qwen2_vl", "smolvlm"])
def test_samples_share_the_memory_of_concatenated_media(name):
    samples = collator_for(build(name), split_turns=True).encode_all(_chat(4))
    places = {s.media["pixel_values"].untyped_storage().data_ptr() for s in samples[1:]}
    assert len(places) == 1


def test_videos_that_differ_are_refused_in_a_split_chat_as_in_their_own():
    """InternVL stacks the videos of a sample, and the collator would concatenate their frames."""
    messages: list[dict[str, Any]] = []
    for count in (8, 4):
        frames = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), np.uint8)
        parts = [{"type": "video", "video": frames, "fps": 2.0}, {"type": "text", "text": "?"}]
        messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": "Yes."}]
    collator = collator_for(build("internvl"))
    for encoder in (collator.encode, attrs.evolve(collator, split_turns=True).encode_all):
        with pytest.raises(MediaError, match="refuses the media"):
            encoder(messages)
    alike = [*messages[:2], *messages[:2]]
    _check_own_chats(collator, alike)
