"""The samples of one chat share media: each equals its own chat, and each item is processed once.

The processors are real, and so is what is counted: a subclass of their own image processor counts
the images that it passes on.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from tests.conversations import given_for_family
from tests.media_bytes import video_bytes
from tests.processors import BUILDERS, build, processor_of
from vlmcollate import collator_for
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import CollateError

_OF_ONE_TURN = {"nemotron_parse_stand_in", "paligemma"}
FAMILIES = sorted(BUILDERS.keys() - _OF_ONE_TURN)
TOGETHER = {"llava_onevision"}
"""Families that tile a single image, but not several."""
SIDES = st.sampled_from([32, 48, 64, 90, 170, 300, 500])
CHATS = st.lists(st.tuples(st.integers(0, 3), SIDES, SIDES), min_size=1, max_size=4)
"""The turn, the width and the height of each image."""


def _image(seed: int, width: int, height: int) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return {"type": "image", "image": Image.fromarray(pixels)}


def _video(seed: int, **more: Any) -> dict[str, Any]:
    size = ((64, 48), (160, 120), (96, 200))[seed % 3]
    times = np.arange((8, 12, 20)[seed % 3]) / 4
    return {"type": "video", "video": video_bytes(times, size=size, **more)}


def _audio(seed: int) -> dict[str, Any]:
    noise = np.random.default_rng(seed).normal(0, 0.1, 8000 + 5000 * seed)
    return {"type": "audio", "audio": (noise.astype(np.float32), 16000)}


def _chat(turns: int, items: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for turn in range(turns):
        parts = [part for place, part in items if place == turn]
        question = [*parts, {"type": "text", "text": f"Question {turn}?"}]
        answer = [{"type": "text", "text": f"Answer {turn}."}]
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    return messages


def _equal(a: Any, b: Any) -> bool:
    return (
        a.keys() == b.keys()
        and all(a[key].dtype == b[key].dtype for key in a)
        and all(torch.equal(a[key], b[key]) for key in a)
    )


def _check_each_is_its_own_chat(collator: BaseCollator, messages: list[dict[str, Any]]) -> None:
    split = attrs.evolve(collator, split_turns=True)
    alone = attrs.evolve(collator, train_on="last_turn")
    found = split.encode_all(messages)
    expected = [alone.encode(messages[:end]) for end in range(2, len(messages) + 1, 2)]
    assert len(found) == len(expected)
    for sample, own in zip(found, expected, strict=True):
        assert _equal(sample.tokens, own.tokens)
        assert _equal(sample.media, own.media)
        assert dict(sample.pixel_tables) == dict(own.pixel_tables)
        assert sample.media_ids.tolist() == own.media_ids.tolist()
        assert dict(sample.media_counts) == dict(own.media_counts)


@pytest.mark.parametrize("name", FAMILIES)
@given_for_family(images=CHATS)
def test_each_split_sample_is_that_of_its_own_chat(name, images):
    images = sorted(images)
    items = [(turn, _image(seed, w, h)) for seed, (turn, w, h) in enumerate(images)]
    _check_each_is_its_own_chat(collator_for(processor_of(name)), _chat(4, items))


MIXTURES = {
    "gemma4": ("image", "video", "audio"),
    "gemma3n": ("image", "audio"),
    "inkling": ("image", "audio"),
    "phi4_multimodal": ("image", "audio"),
    "qwen3_omni": ("image", "video", "audio"),
    "qwen2_5_omni": ("image", "video", "audio"),
    "qwen3_vl": ("image", "video"),
    "glm46v": ("image", "video"),
    "internvl": ("image", "video"),
    "llava_onevision": ("image", "video"),
    "smolvlm": ("video",),
}
_MAKE = {"image": lambda seed: _image(seed, 90 + 40 * seed, 150), "video": _video, "audio": _audio}


@pytest.mark.parametrize("name", MIXTURES)
def test_videos_and_audio_are_shared_exactly(name):
    collator, kinds = collator_for(processor_of(name)), MIXTURES[name]
    chats = [_chat(3, [(turn, _MAKE[kind](turn)) for turn in range(3)]) for kind in kinds]
    mixed = [(turn, _MAKE[kinds[turn % len(kinds)]](turn)) for turn in range(3)]
    chats += [_chat(3, mixed), _chat(3, [(0, mixed[-1][1]), (1, mixed[0][1]), (1, mixed[-2][1])])]
    tried = 0
    for messages in chats:
        try:
            collator.encode(messages)
        except CollateError:  # videos of unequal lengths, or kinds that it does not take together
            continue
        _check_each_is_its_own_chat(collator, messages)
        tried += 1
    assert tried >= len(kinds)


@pytest.mark.parametrize("name", ["qwen2_5_omni", "qwen3_omni"])
def test_videos_with_soundtracks_are_shared_exactly(name):
    collator = collator_for(processor_of(name), use_audio_in_video=True)
    videos = [(turn, _video(turn, audio=turn != 1)) for turn in range(3)]
    _check_each_is_its_own_chat(collator, _chat(3, [*videos, (2, _image(0, 90, 60))]))


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
def test_items_with_a_size_of_their_own_are_shared_exactly(name):
    collator = collator_for(processor_of(name))
    limits = {"min_pixels": 10000, "max_pixels": 90000}
    images = [_image(0, 300, 200), {**_image(1, 500, 300), **limits}, _image(2, 90, 150)]
    for order in (images, images[::-1], images[1:]):
        _check_each_is_its_own_chat(collator, _chat(3, list(enumerate(order))))


def _flat(images: Any) -> list[Any]:
    return (
        [x for one in images for x in _flat(one)] if isinstance(images, list | tuple) else [images]
    )


def _counting(processor: Any) -> list[int]:
    """Gives a processor a subclass of its image processor that counts the images of each call."""
    calls: list[int] = []
    kind: Any = type(processor.image_processor)

    class Counting(kind):  # type: ignore[misc]
        def preprocess(self, images, *args, **kwargs):
            calls.append(len(_flat(images)))
            return super().preprocess(images, *args, **kwargs)

    processor.image_processor.__class__ = Counting
    return calls


def _chat_of(number: int, first_seed: int) -> list[dict[str, Any]]:
    sizes = [(64, 48), (300, 200), (90, 250), (170, 64)]
    images = [_image(first_seed + k, *sizes[(first_seed + k) % 4]) for k in range(number)]
    return _chat(number, list(enumerate(images)))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "kimi_vl_stand_in"])
def test_each_image_is_processed_once(name):
    processor_of(name)  # skips what cannot be built
    processor = build(name)
    calls = _counting(processor)
    split = collator_for(processor, split_turns=True)
    split.encode_all(_chat_of(4, 0))  # tries the processor
    calls.clear()
    assert len(split.encode_all(_chat_of(4, 1))) == 4
    assert sum(calls) == (4 if name not in TOGETHER else 1 + 2 + 3 + 4)
