"""Each sample of a split conversation is that of the chat that ends with its turn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.processors.cases import CASES, SERVED, collator_of, in_turns
from vlmcollate.errors import CollateError

_SIZES = [(64, 48), (300, 120), (90, 200)]


def _image(place):
    width, height = _SIZES[place % 3]
    pixels = np.random.default_rng(place).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def _chat(media):
    messages = []
    for turn, items in enumerate(media):
        parts = [{"type": kind, kind: item} for kind, item in items]
        parts.append({"type": "text", "text": f"Question {turn}?"})
        answer = [{"type": "text", "text": f"Answer {turn}."}]
        messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    return messages


def _same(a, b):
    return (
        a.tokens.keys() == b.tokens.keys()
        and a.media.keys() == b.media.keys()
        and all(torch.equal(a.tokens[key], b.tokens[key]) for key in a.tokens)
        and all(torch.equal(a.pixels(key), b.pixels(key)) for key in a.media)
        and torch.equal(a.message_ids, b.message_ids)
        and torch.equal(a.media_ids, b.media_ids)
        and dict(a.media_counts) == dict(b.media_counts)
    )


@pytest.mark.parametrize("name", in_turns(SERVED, 1))
def test_each_turn_is_encoded_as_its_own_chat(name):
    case = CASES[name]
    whole = collator_of(name, train_on="last_turn")
    split = collator_of(name, split_turns=True)
    chats = [_chat([[], [], []])]
    if "image" in case.kinds and "image" not in case.error:
        images = [("image", _image(place)) for place in range(3)]
        chats += [_chat([images[:1], [], []]), _chat([images[:1], images[1:2], images[2:]])]
    tried = 0
    for chat in chats:
        try:
            expected = [whole.encode(chat[:end]) for end in (2, 4, 6)]
        except CollateError:  # a model of one turn or of one image
            continue
        found = split.encode_all(chat)
        assert len(found) == 3
        assert all(map(_same, found, expected))
        tried += 1
    if not tried:
        pytest.skip("the model takes one turn")
