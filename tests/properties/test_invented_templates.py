"""Masks of chats in templates that are built from known parts are right, or refused."""

from __future__ import annotations

import warnings
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.invented_templates import HEADERS, InventedTemplate, bracketed, chats, templates
from vlmcollate import collator_for
from vlmcollate.errors import CollateError

ASKED = {"role": "user", "content": "Quokka?"}
ANSWERED = {"role": "assistant", "content": "Numbat one"}


def marked(collator, chat):
    """The decoded tokens of a chat, with brackets around those that train."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample = collator.encode(chat)
    tokens = zip(sample.input_ids.tolist(), (sample.labels != -100).tolist(), strict=True)
    runs = groupby(tokens, key=lambda pair: pair[1])
    decode = collator.processor.tokenizer.decode
    return bracketed([(decode([i for i, _ in run]), trains) for trains, run in runs])


@pytest.mark.parametrize("headers", HEADERS)
@given(data=st.data())
def test_a_mask_is_right_or_refused_whatever_came_before(headers, data):
    template = data.draw(templates(headers))
    collator = collator_for(template.processor())
    for chat in data.draw(st.lists(chats(), min_size=1, max_size=6)):
        if not any(message.get("weight", 1) for message in chat if "assistant" in message["role"]):
            continue
        try:
            found = marked(collator, chat)
        except CollateError:
            continue
        assert found == template.marked(chat), chat


@pytest.mark.parametrize("asks", ["if asked", "behind questions", "always", "never"])
@pytest.mark.parametrize("headers", HEADERS)
def test_plain_chats_are_served(headers, asks):
    if headers in ("tokens", "two tokens", "answers only") and asks == "never":
        pytest.skip("no name of a role shows the header of answers")
    end = "" if headers == "answers only" else "<|z|>"
    template = InventedTemplate(headers=HEADERS[headers], question_end=end, asks=asks)
    collator = collator_for(template.processor())
    for chat in ([ASKED, ANSWERED], [ANSWERED, ASKED, ANSWERED], [ASKED, ANSWERED] * 3):
        assert marked(collator, chat) == template.marked(chat)
