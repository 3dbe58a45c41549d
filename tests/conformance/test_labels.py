"""On every family's real processor, exactly the answers and their end tokens are trained."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
from hypothesis import strategies as st

from tests.conversations import HOSTILE, conversations, expected_answers, given_for_family
from tests.decoding import normal, trained_texts
from tests.processors import processor_of
from tests.processors.families import FAMILIES
from vlmcollate import (
    CollateError,
    GenerationTagLabels,
    TemplateMarkerLabels,
    TextSearchLabels,
    collator_for,
)
from vlmcollate.errors import ConversationError, LabelError

pytestmark = pytest.mark.parametrize("name", FAMILIES)


@given_for_family(messages=conversations())
def test_exactly_the_answers_train(name, messages):
    processor = processor_of(name)
    sample = collator_for(processor, on_template_omission="raise").encode(messages)

    found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)

    expected = expected_answers(FAMILIES[name], messages)
    assert list(map(normal, found)) == list(map(normal, expected))


@given_for_family(messages=conversations())
def test_strategies_that_serve_agree(name, messages):
    processor = processor_of(name)
    exact = collator_for(processor).encode(messages)
    for strategy in (TemplateMarkerLabels(), TextSearchLabels(), GenerationTagLabels()):
        try:
            other = collator_for(processor, labels=strategy).encode(messages)
        except LabelError:
            continue
        assert other.labels.tolist() == exact.labels.tolist(), strategy
        assert other.message_ids.tolist() == exact.message_ids.tolist(), strategy


def test_markers_serve_every_family(name):
    messages = [
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "content": "This one"},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes"},
    ]
    processor = processor_of(name)
    by_marker = collator_for(processor, labels=TemplateMarkerLabels()).encode(messages)
    by_search = collator_for(processor, labels=TextSearchLabels()).encode(messages)
    before, stop = FAMILIES[name].before, FAMILIES[name].stop
    expected = [f"{before}This one{stop}", f"{before}Yes{stop}"]
    for sample in (by_marker, by_search):
        assert trained_texts(processor.tokenizer, sample.input_ids, sample.labels) == expected


@given_for_family(hostile=st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=4).map("".join))
def test_user_text_writes_no_control_token(name, hostile):
    processor = processor_of(name)
    collator = collator_for(processor)
    tokenizer = processor.tokenizer

    def control_tokens(text):
        sample = collator.encode(
            [
                {"role": "system", "content": text},
                {"role": "user", "content": [{"type": "text", "text": f"a{text}b"}]},
                {"role": "assistant", "content": "fine"},
            ]
        )
        ids = sample.input_ids.tolist()
        added = tokenizer.added_tokens_decoder  # Gemma keeps runs of newlines among them
        return Counter(i for i in ids if i in added and str(added[i]).strip()), ids

    found, ids = control_tokens(hostile)
    harmless, _ = control_tokens("hello")
    assert found == harmless
    assert normal(f"a{hostile}b") in normal(tokenizer.decode(ids))


@given_for_family(first=st.integers(1, 8))
def test_a_control_token_split_over_two_parts_stays_text(name, first):
    processor = processor_of(name)
    stop = FAMILIES[name].stop
    sample = collator_for(processor).encode(
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "x" + stop[:first]},
                    {"type": "text", "text": stop[first:] + "x"},
                ],
            },
            {"role": "assistant", "content": "ok"},
        ]
    )
    stop_id = processor.tokenizer.convert_tokens_to_ids(stop)
    plain = collator_for(processor).encode(
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "ok"}]
    )
    assert (sample.input_ids == stop_id).sum() == (plain.input_ids == stop_id).sum()


def test_control_text_can_be_refused(name):
    collator = collator_for(processor_of(name), special_tokens_in_text="error")
    messages = [
        {"role": "user", "content": f"say {FAMILIES[name].stop} please"},
        {"role": "assistant", "content": "no"},
    ]
    with pytest.raises(ConversationError, match="spells the control token") as raised:
        collator.encode(messages)
    assert raised.value.where == "messages[0]"


@given_for_family(messages=conversations(hostile=True))
def test_what_is_not_right_is_a_clear_error(name, messages):
    """Hostile answers, too, either train as they are rendered or are refused."""
    messages[-1]["content"] = messages[0]["content"][-1:]  # an answer that may be hostile
    if messages[-1]["content"][0]["type"] != "text":
        return
    processor = processor_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sample = collator_for(processor).encode(messages)
        except CollateError:
            return
    found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    assert all(text.endswith(FAMILIES[name].stop) for text in found)
    assert len(found) == sum(m["role"] == "assistant" for m in messages)
