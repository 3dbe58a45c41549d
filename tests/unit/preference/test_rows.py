"""Every published form of a pair is read, and what is no pair is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image

from vlmcollate import ConfigError, SampleError, collator_for
from vlmcollate.errors import ConversationError, SampleTooLongError
from vlmcollate.preference import KTOCollator, PreferenceCollator, RewardCollator
from vlmcollate.testing import tiny_processor

PROCESSOR = tiny_processor()
COLLATOR = collator_for(PROCESSOR, on_unread="raise")
PAIRS = PreferenceCollator(COLLATOR)
IMAGE = Image.new("RGB", (60, 40), "teal")


def user(text):
    return {"role": "user", "content": text}


def answer(text):
    return {"role": "assistant", "content": text}


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def trained(sample):
    ids = sample.labels[sample.labels != -100]
    return PROCESSOR.tokenizer.decode(ids).removesuffix("<|im_end|>")


def both(row):
    found = PAIRS.encode(row)
    return trained(found.chosen), trained(found.rejected)


FORMS: dict[str, dict[str, Any]] = {
    "strings": {"prompt": "Hi?", "chosen": "Yes", "rejected": "No"},
    "messages": {"prompt": [user("Hi?")], "chosen": [answer("Yes")], "rejected": [answer("No")]},
    "one message a side": {
        "prompt": [user("Hi?")],
        "chosen": answer("Yes"),
        "rejected": answer("No"),
    },
    "a prompt of messages and strings": {
        "prompt": [user("Hi?")],
        "chosen": "Yes",
        "rejected": "No",
    },
    "whole conversations": {
        "chosen": [user("Hi?"), answer("Yes")],
        "rejected": [user("Hi?"), answer("No")],
    },
    "whole conversations that repeat the prompt": {
        "prompt": "Hi?",
        "chosen": [user("Hi?"), answer("Yes")],
        "rejected": [user("Hi?"), answer("No")],
        "messages": [user("Hi?"), answer("Yes")],
    },
    "whole conversations beside a prompt of messages": {
        "prompt": [user("Hi?")],
        "chosen": [user("Hi?"), answer("Yes")],
        "rejected": [user("Hi?"), answer("No")],
    },
    "another answer": {"messages": [user("Hi?"), answer("Yes")], "rejected_response": "No"},
    "another answer of messages": {
        "messages": [user("Hi?"), answer("Yes")],
        "rejected_response": [answer("No")],
    },
    "another answer in one message": {
        "conversations": [human("Hi?"), gpt("Yes")],
        "rejected_response": gpt("No"),
    },
    "another answer, as Alpaca": {
        "instruction": "Hi?",
        "input": "",
        "output": "Yes",
        "rejected_response": "No",
    },
    "another answer to a question": {"question": "Hi?", "answer": "Yes", "rejected_response": "No"},
    "another answer in JSON": {
        "query": "Hi?",
        "response": "Yes",
        "rejected_response": json.dumps([answer("No")]),
    },
    "another conversation beside a question": {
        "query": "Hi?",
        "response": "Yes",
        "rejected_messages": [user("Hi?"), answer("No")],
    },
    "another conversation": {
        "messages": [user("Hi?"), answer("Yes")],
        "rejected_messages": [user("Hi?"), answer("No")],
    },
    "query and response": {"query": "Hi?", "response": "Yes", "rejected_response": "No"},
    "ranking, as ShareGPT": {
        "conversations": [human("Hi?")],
        "chosen": gpt("Yes"),
        "rejected": gpt("No"),
    },
    "ranking, as Alpaca": {"instruction": "Hi?", "input": "", "chosen": "Yes", "rejected": "No"},
    "a question": {"question": "Hi?", "chosen": "Yes", "rejected": "No"},
    "rows of any format": {
        "chosen": {"question": "Hi?", "answer": "Yes"},
        "rejected": {"question": "Hi?", "answer": "No"},
    },
    "JSON": {
        "chosen": json.dumps([user("Hi?"), answer("Yes")]),
        "rejected": json.dumps([user("Hi?"), answer("No")]),
    },
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read(name):
    assert both(FORMS[name]) == ("Yes", "No")


@pytest.mark.parametrize("name", FORMS)
def test_rows_of_arrow_are_read_alike(name):
    (row,) = pa.Table.from_pylist([FORMS[name]]).to_pylist()
    assert both(row) == ("Yes", "No")


BESIDE = [
    *("messages", "another answer", "another answer, as Alpaca", "another answer in one message"),
    *("a question", "ranking, as ShareGPT", "ranking, as Alpaca"),
    "another conversation beside a question",
]


@pytest.mark.parametrize("name", BESIDE)
def test_columns_beside_the_sides_hold_for_both(name):
    absent: dict[str, Any] = {"rejected_images": [], "rejected_tools": None}
    row = {**FORMS[name], "images": [IMAGE], "system": "Be brief.", **absent}
    if "rejected_messages" in row:
        row["rejected_images"] = row["images"]
    found = PAIRS.encode(row)
    for sample in (found.chosen, found.rejected):
        assert dict(sample.media_counts) == {"image": 1}
        assert "Be brief." in PROCESSOR.tokenizer.decode(sample.input_ids)


def test_several_turns_and_answers_in_common_do_not_train():
    common = [user("Hi?"), answer("Yes"), user("Why?")]
    row = {
        "prompt": common[:1],
        "chosen": [*common[1:], answer("So.")],
        "rejected": [*common[1:], answer("?")],
    }
    assert both(row) == ("So.", "?")


def test_a_rejected_answer_follows_the_last_question_instead_of_all_that_does():
    called = [user("Hi?"), answer("Call."), {"role": "tool", "content": "3"}, answer("Three.")]
    other = [answer("Miscall."), {"role": "tool", "content": "4"}, answer("Four.")]
    stop = "<|im_end|>"
    row = {"messages": called, "rejected_response": other}
    assert both(row) == (f"Call.{stop}Three.", f"Miscall.{stop}Four.")
    assert both({**row, "rejected_response": "No."}) == (f"Call.{stop}Three.", "No.")


def test_a_question_keeps_its_input_beside_answers_of_messages():
    row = {"instruction": "Add", "input": "1 + 1", "chosen": answer("2"), "rejected": answer("3")}
    text = PROCESSOR.tokenizer.decode(PAIRS.encode(row).chosen.input_ids)
    assert "Add\n1 + 1" in text


def test_answers_that_are_cut_before_they_differ_are_too_long():
    row = {"prompt": "Hi?", "chosen": "One beginning, A", "rejected": "One beginning, B"}
    most = len(COLLATOR.prompt([user("Hi?")])) + 3
    short = collator_for(PROCESSOR, max_length=most, on_overlong="truncate")
    with pytest.raises(SampleTooLongError, match="before they differ"):
        PreferenceCollator(short).encode(row)


def test_one_answer_to_two_images():
    row = {
        "messages": [user("<image>What?"), answer("A door.")],
        "images": [IMAGE],
        "rejected_images": [Image.new("RGB", (120, 90), "red")],
    }
    found = PAIRS.encode(row)
    assert (trained(found.chosen), trained(found.rejected)) == ("A door.", "A door.")
    assert len(found.chosen) < len(found.rejected)


BAD = {
    "no rejected side": (
        {"prompt": "Hi?", "chosen": "Yes"},
        "has no 'rejected' side: found a dict with ['chosen', 'prompt']",
    ),
    "no sides": ([user("Hi?"), answer("Yes")], "has no 'chosen' side"),
    "an empty side": (
        {"prompt": "Hi?", "chosen": "Yes", "rejected": ""},
        "rejected: is empty: found",
    ),
    "an empty list": ({"prompt": "Hi?", "chosen": [], "rejected": "No"}, "chosen: is empty: found"),
    "an empty answer": (
        {"messages": [user("Hi?"), answer("Yes")], "rejected_response": ""},
        "rejected_response: is empty",
    ),
    "no prompt": ({"chosen": "Yes", "rejected": "No"}, "chosen: has no prompt"),
    "transcripts": (
        {"chosen": "\n\nHuman: Hi?", "rejected": "\n\nHuman: Hi?"},
        "split a transcript into messages",
    ),
    "the same answer": (
        {"prompt": "Hi?", "chosen": "Yes", "rejected": "Yes"},
        "rejected: is the same as the chosen side",
    ),
    "other prompts": (
        {"chosen": [user("Hi?"), answer("Yes")], "rejected": [user("Ho?"), answer("No")]},
        "rejected: has no prompt in common with the chosen side: found 'Ho?' (user)",
    ),
    "an image in one answer": (
        {"prompt": "Hi?", "chosen": "Yes <image>", "rejected": "No", "images": [IMAGE]},
        "found 'Hi?' (user, with 1 media item(s)) as its first message, expected 'Hi?' (user)",
    ),
    "other later questions": (
        {
            "chosen": [user("Hi?"), answer("Yes"), user("So?"), answer("Yes")],
            "rejected": [user("Hi?"), answer("Yes"), user("And?"), answer("Yes")],
        },
        "chosen: has another prompt than the other side: found 'So?' (user) as its message 2",
    ),
    "a side that is the prompt": (
        {"chosen": [user("Hi?"), answer("Yes")], "rejected": [user("Hi?")]},
        "rejected: has no answer of its own",
    ),
    "a side that ends with a question": (
        {
            "chosen": [user("Hi?"), answer("Yes"), user("So?")],
            "rejected": [user("Hi?"), answer("No")],
        },
        "chosen: ends with a message of the 'user' role",
    ),
    "a number": (
        {"prompt": "Hi?", "chosen": "Yes", "rejected": 7},
        "rejected: expected a string, a message, a list of messages or a row, found int",
    ),
    "sides in two forms": (
        {"chosen": [user("Hi?"), answer("Yes")], "rejected": {"question": "Hi?", "answer": "No"}},
        "rejected: has sides in two forms",
    ),
    "two rejected sides": (
        {"prompt": "Hi?", "chosen": "Yes", "rejected": "No", "rejected_response": "Nay"},
        "rejected_response: has two readings",
    ),
    "two conversations beside an answer": (
        {
            "messages": [user("Hi?"), answer("Yes")],
            "rejected_messages": [user("Hi?"), answer("No")],
            "rejected_response": "No",
        },
        "keep one",
    ),
    "an answer beside nothing": (
        {"prompt": "Hi?", "rejected_response": "No"},
        "has no chosen side",
    ),
    "a conversation without its answer": (
        {"messages": [user("Hi?")], "rejected_response": "No"},
        "messages: ends without an answer",
    ),
    "other tools of the rejected side": (
        {
            "messages": [user("Hi?"), answer("Yes")],
            "rejected_response": "No",
            "rejected_tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        },
        "rejected: the two sides have different tools",
    ),
    "messages beside an input": (
        {
            "instruction": "Add",
            "input": "1 + 1",
            "output": "2",
            "rejected_response": [answer("Three."), answer("Four.")],
        },
        "rejected: has an answer of messages beside 'input'",
    ),
    "another conversation beside whole ones": (
        {
            "chosen": [user("Hi?"), answer("Yes")],
            "rejected": [user("Hi?"), answer("No")],
            "messages": [user("Ho?"), answer("Yes")],
        },
        "messages: has a conversation of its own",
    ),
    "a wrong part": (
        {
            "prompt": "Hi?",
            "chosen": [{"role": "assistant", "content": [{"type": "text"}]}],
            "rejected": "No",
        },
        "chosen[0].content[0].text: expected a string",
    ),
    "an answer that does not train": (
        {"prompt": "Hi?", "chosen": "Yes", "rejected": [{**answer("No"), "weight": 0}]},
        "rejected: nothing is trained",
    ),
    "a broken image in an answer": (
        {
            "prompt": "Draw.",
            "chosen": "No",
            "rejected": [{"role": "assistant", "content": [{"type": "image", "image": b"xx"}]}],
        },
        "rejected[0].content[0]: the encoded image has none of the allowed formats",
    ),
    "another prompt of messages": (
        {
            "prompt": [user("Ho?")],
            "chosen": [user("Hi?"), answer("Yes")],
            "rejected": [user("Hi?"), answer("No")],
        },
        "prompt: has a conversation of its own beside 'chosen'",
    ),
    "other media": (
        {
            "chosen": {"messages": [user("<image>Hi?"), answer("Yes")], "images": [IMAGE]},
            "rejected": {"messages": [user("Hi?"), answer("No")]},
        },
        "has no prompt in common",
    ),
    "a question that the conversations do not hold": (
        {
            "prompt": "Ho?",
            "chosen": [user("Hi?"), answer("Yes")],
            "rejected": [user("Hi?"), answer("No")],
        },
        "prompt: differs from the prompt of 'chosen' and 'rejected'",
    ),
    "other tools": (
        {
            "chosen": {"question": "Hi?", "answer": "Yes"},
            "rejected": {
                "question": "Hi?",
                "answer": "No",
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            },
        },
        "rejected: the two sides have different tools",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_pair_is_refused(name):
    row, words = BAD[name]
    with pytest.raises(SampleError) as caught:
        PAIRS.encode(row)
    assert words in str(caught.value)


def test_the_error_of_a_batch_names_the_row():
    with pytest.raises(ConversationError, match=r"^sample 1, rejected: is empty"):
        PAIRS([FORMS["strings"], {**FORMS["strings"], "rejected": []}])


@pytest.mark.parametrize("measure", ["score", "rating", "reward"])
@pytest.mark.parametrize("spelling", ["{measure}_{side}", "{side}_{measure}", "{side}-{measure}"])
def test_margins_come_from_the_row_or_from_its_scores(measure, spelling):
    collate, row = RewardCollator(COLLATOR), FORMS["strings"]
    better, worse = (spelling.format(measure=measure, side=side) for side in ("chosen", "rejected"))
    batch = collate([{**row, "margin": 0.5}, {**row, better: 8, worse: 6.5}])
    assert torch.equal(batch["margin"], torch.tensor([0.5, 1.5]))
    assert "margin" not in collate([{**row, better: None, worse: None}])
    with pytest.raises(ConversationError, match=f"{worse}: is missing beside the {measure} of"):
        collate([{**row, better: 2.0}])


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (
            {"margin": 1, "chosen_score": 2, "rejected_score": 1},
            "has 'margin' and 'chosen_score'",
        ),
        (
            {"score_chosen": 2, "score_rejected": 1, "chosen_rating": 2, "rejected_rating": 1},
            "chosen_rating: has 'score_chosen' and 'chosen_rating'; keep one",
        ),
        (
            {"score_chosen": 2, "chosen_score": 3, "score_rejected": 1},
            "chosen_score: has 'score_ch",
        ),
        ({"margin": "large"}, "margin: expected a finite number, found"),
        ({"chosen_rating": float("inf"), "rejected_rating": 1}, "chosen_rating: expected a finite"),
    ],
)
def test_a_margin_that_is_unclear_is_refused(numbers, words):
    with pytest.raises(ConversationError, match=words):
        RewardCollator(COLLATOR).encode({**FORMS["strings"], **numbers})


def test_all_rows_of_a_batch_have_a_margin_or_none():
    row = FORMS["strings"]
    with pytest.raises(ConfigError, match="pair 1 of the batch has no 'margin'"):
        RewardCollator(COLLATOR)([{**row, "margin": 0.5}, row])


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user("Hi?"), answer("Yes")], "label": True},
        {"conversations": [human("Hi?"), gpt("Yes")], "kto_tag": True},
        {"instruction": "Hi?", "input": "", "output": "Yes", "kto_tag": 1},
    ],
)
def test_rows_for_kto_need_no_column_of_their_prompt(row):
    found = KTOCollator(COLLATOR).encode(row)
    assert found.is_desirable
    assert trained(found.sample) == "Yes"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Hi?", "completion": "Yes"}, "has no label"),
        ({"prompt": "Hi?", "completion": "Yes", "label": "good"}, "label: expected a bool"),
        ({"prompt": "Hi?", "completion": "Yes", "label": True, "kto_tag": False}, "keep one"),
        ({"completion": "Yes", "label": True}, "is not a conversation"),
        ({"messages": [user("Hi?")], "label": True}, "has no answer to a question"),
        ({"messages": [answer("Hi")], "label": True}, "has no answer to a question"),
    ],
)
def test_what_is_no_answer_for_kto_is_refused(row, words):
    with pytest.raises(SampleError, match=words):
        KTOCollator(COLLATOR).encode(row)
