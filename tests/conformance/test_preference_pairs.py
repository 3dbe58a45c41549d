"""The two sides of a pair are encoded as each alone, and their common media once."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import NIGHTLY
from tests.processors.cases import CASES, SERVED, collator_of, in_turns, message
from vlmcollate.encode import stages
from vlmcollate.errors import CollateError
from vlmcollate.preference import KTOCollator, PreferenceCollator

WITH_FIFTY = ("Qwen2_5_VLProcessor", "SmolVLMProcessor", "Gemma3Processor")
"""Families that are unlike each other, on which 50 pairs are tried in every profile."""
TRIED = [*WITH_FIFTY, *(name for name in in_turns(SERVED, 2) if name not in WITH_FIFTY)]
WORDS = ("yes", "A cat.", "No", "12", "它是一只猫", "naïve", "👩‍👧 ok", "a  b", "ab\n\nc", " x ")


def text_of(random):
    return " ".join(random.choice(WORDS, random.integers(1, 5)))


def random_pair(random, takes_images):
    """Returns a prompt, and two answers to it."""
    prompt = []
    for turn in range(random.integers(1, 4)):
        if turn:
            prompt.append(message("assistant", text_of(random)))
        images = []
        if takes_images and not turn and random.random() < 0.7:
            size = (*random.integers(30, 200, 2), 3)
            pixels = random.integers(0, 256, size, np.uint8)
            images = [{"type": "image", "image": Image.fromarray(pixels)}]
        prompt.append(message("user", text_of(random), *images))
    return prompt, text_of(random), f"Not {text_of(random)}"


def rows_of(prompt, chosen, rejected):
    """Returns the pair in each form that a dataset may have."""
    sides = [[message("assistant", text)] for text in (chosen, rejected)]
    return [
        {"prompt": prompt, "chosen": sides[0], "rejected": sides[1]},
        {"chosen": [*prompt, *sides[0]], "rejected": [*prompt, *sides[1]]},
        {"messages": [*prompt, *sides[0]], "rejected_response": rejected},
        {"messages": prompt, "chosen": sides[0][0], "rejected": sides[1][0]},
        {side: {"messages": [*prompt, *sides[k]]} for k, side in enumerate(("chosen", "rejected"))},
    ]


def alone(prompt, answer):
    """Returns the conversation of one side, of which only its answer trains."""
    untrained = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in prompt]
    return [*untrained, message("assistant", answer)]


def assert_same(a, b):
    assert a.tokens.keys() == b.tokens.keys()
    assert a.media.keys() == b.media.keys()
    assert all(torch.equal(a.tokens[key], b.tokens[key]) for key in a.tokens)
    assert all(torch.equal(a.pixels(key), b.pixels(key)) for key in a.media)
    assert torch.equal(a.message_ids, b.message_ids)
    assert torch.equal(a.media_ids, b.media_ids)
    assert dict(a.media_counts) == dict(b.media_counts)


@pytest.mark.parametrize("name", TRIED)
def test_each_side_is_encoded_as_alone(name):
    case, collator, random = CASES[name], collator_of(name), np.random.default_rng(0)
    pairs, kto = PreferenceCollator(collator), KTOCollator(collator)
    takes_images = "image" in case.kinds and "image" not in case.error
    tried = 0
    for _ in range(50 if NIGHTLY or name in WITH_FIFTY else 4):
        prompt, *answers = random_pair(random, takes_images)
        try:
            expected = [collator.encode(alone(prompt, answer)) for answer in answers]
        except CollateError:  # a model of one turn, or one that needs an image
            continue
        forms = rows_of(prompt, *answers)
        found = pairs.encode(forms[random.integers(len(forms))])
        assert_same(found.chosen, expected[0])
        assert_same(found.rejected, expected[1])
        row = {"prompt": prompt, "completion": [message("assistant", answers[0])], "label": True}
        assert_same(kto.encode(row).sample, expected[0])
        tried += 1
    if not tried:
        pytest.skip("no conversation has the form that this model takes")


@pytest.mark.parametrize("name", WITH_FIFTY)
@pytest.mark.parametrize("form", range(5))
def test_the_media_of_a_prompt_is_decoded_and_processed_once(name, form, monkeypatch):
    collator, calls = collator_of(name), []

    def counted(function, *, of):
        @functools.wraps(function)  # with its module, by which bytes are kept
        def call(*args, **kwargs):
            calls.append(of)
            return function(*args, **kwargs)

        return call

    random = np.random.default_rng(1)
    prompt, *answers = random_pair(random, takes_images=False)
    image = {"type": "image", "image": Image.new("RGB", (80, 60), "teal")}
    prompt[0]["content"].insert(0, image)
    pairs = PreferenceCollator(collator)
    row = rows_of(prompt, *answers)[form]
    pairs.encode(row)  # the template is probed
    kind = type(collator)
    monkeypatch.setattr(kind, "process_media", counted(kind.process_media, of="processed"))
    load = vars(stages)["load_media"]
    monkeypatch.setattr(stages, "load_media", counted(load, of="decoded"))
    found = pairs.encode(row)
    assert calls == ["decoded", "processed"]
    memory = [
        {v.data_ptr() for v in side.media.values()} for side in (found.chosen, found.rejected)
    ]
    assert memory[0] & memory[1]


@pytest.mark.parametrize("name", ["Qwen2_5OmniProcessor"])
def test_audio_and_videos_are_shared_as_images_are(name):
    collator = collator_of(name)
    audio = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    parts: list[dict[str, Any]] = [
        {"type": "audio", "audio": audio, "sampling_rate": 16000},
        {"type": "video", "video": np.zeros((4, 56, 56, 3), np.uint8)},
    ]
    prompt, *answers = [message("user", "What?", *parts)], "A bell.", "No."
    found = PreferenceCollator(collator).encode(rows_of(prompt, *answers)[0])
    assert_same(found.chosen, collator.encode(alone(prompt, answers[0])))
    assert_same(found.rejected, collator.encode(alone(prompt, answers[1])))
    assert dict(found.chosen.media_counts) == {"audio": 1, "video": 1}
    assert all(
        v.data_ptr() == found.rejected.media[k].data_ptr() for k, v in found.chosen.media.items()
    )
