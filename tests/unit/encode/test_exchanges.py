"""`drop_turns` drops whole exchanges, as few of the oldest as possible, and no instruction."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import attrs
import pytest
import torch
from PIL import Image

from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.conversation import Message
from vlmcollate.encode.exchanges import first_that_fits, without_oldest
from vlmcollate.errors import ConversationError, SampleTooLongError
from vlmcollate.preference import PreferenceCollator
from vlmcollate.testing import tiny_processor

PROCESSOR = tiny_processor()
DOCUMENT = "The treasure is under the old oak tree. " * 3
CALL = [{"type": "function", "function": {"name": "look", "arguments": {"place": "X"}}}]
ROLES = ("user", "assistant", "call", "system", "tool")


def user(*parts):
    content = [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]
    return {"role": "user", "content": content}


def answer(text, **more):
    return {"role": "assistant", "content": text, **more}


def image(size):
    return {"type": "image", "image": Image.new("RGB", (size, size), "teal")}


def limited(limit, **options):
    return collator_for(PROCESSOR, max_length=limit, on_overlong="drop_turns", **options)


def written(sample):
    return PROCESSOR.tokenizer.decode(sample.input_ids)


def of_roles(roles):
    return [
        Message(role="assistant", content=(), extra={"tool_calls": CALL})
        if role == "call"
        else Message(role=role, content=())
        for role in roles
    ]


@pytest.mark.parametrize("length", range(1, 7))
def test_no_exchange_is_halved_for_any_order_of_roles(length):
    for roles in itertools.product(ROLES, repeat=length):
        messages = of_roles(roles)
        before = set(range(length))
        for choice in without_oldest(messages):
            kept = set(choice)
            assert kept < before
            dropped = before - kept
            before = kept
            assert length - 1 in kept
            assert not any(roles[i] == "system" for i in dropped)
            assert any(roles[i] == "user" for i in dropped)
            for i in sorted(kept - {0}):
                begins = roles[i] == "user" and roles[i - 1] == "assistant"
                assert begins or roles[i] == "system" or i - 1 in kept


@pytest.mark.parametrize(
    "question",
    [[user(DOCUMENT), user("Where is it?")], [user(image(280)), user("What is it?")]],
    ids=["document", "image"],
)
def test_a_question_in_two_messages_is_not_halved(question):
    chat = [*question, answer("Under the oak.")]
    with pytest.raises(SampleTooLongError):
        limited(25).encode(chat)
    with pytest.raises(SampleTooLongError):
        limited(25).prompt(question)
    row = {"prompt": question, "chosen": [answer("Yes.")], "rejected": [answer("No.")]}
    with pytest.raises(SampleTooLongError):
        PreferenceCollator(limited(25)).encode(row)
    with pytest.raises(SampleTooLongError):
        limited(25, split_turns=True).encode_all([*chat, user("Sure?"), answer("Yes.")])
    found = written(limited(25).encode([*chat, user("Ok?"), answer("Ok.")]))
    assert "is it?" not in found
    assert "Ok?" in found


def test_results_stay_with_their_call():
    allow: Any = {"on_template_omission": "allow"}
    called = [user("Look."), answer("", tool_calls=CALL), {"role": "tool", "content": "r"}]
    chat = [*called, user("And?"), answer("Done.")]
    whole = collator_for(PROCESSOR, **allow).encode(chat)
    with pytest.raises(SampleTooLongError):  # what stands behind a result is no question of its own
        limited(len(whole) - 1, **allow).encode(chat)
    chat = [user(DOCUMENT), answer("Ok."), *called, answer("Done.")]
    whole = collator_for(PROCESSOR, **allow).encode(chat)
    shorter = written(limited(len(whole) - 1, **allow).encode(chat))
    assert "treasure" not in shorter
    assert "Look." in shorter


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_are_kept_where_they_stand(role):
    told = {"role": role, "content": "Answer in French."}
    chat = [user(DOCUMENT), answer("Hi."), told, user("Ok?"), answer("Oui.")]
    chats = [chat, [*chat, user("No?"), answer("Non.")]]
    plain = collator_for(PROCESSOR)
    for chat, left in ((chats[0], [2, 3, 4]), (chats[1], [2, 5, 6])):
        expected = plain.encode([chat[i] for i in left])
        found = limited(len(expected)).encode(chat)
        assert torch.equal(found.input_ids, expected.input_ids)


def test_a_prompt_loses_whole_exchanges_of_both_sides():
    system = {"role": "system", "content": "Be brief."}
    old = [user(DOCUMENT), user("Where?"), answer("There.")]
    sides = {"chosen": [answer("Yes.")], "rejected": [answer("No, no.")]}
    expected = PreferenceCollator(collator_for(PROCESSOR)).encode(
        {"prompt": [system, user("Ok?")], **sides}
    )
    shorter = PreferenceCollator(limited(len(expected.rejected)))
    found = shorter.encode({"prompt": [*old, system, user("Ok?")], **sides})
    for side in ("chosen", "rejected"):
        assert torch.equal(getattr(found, side).input_ids, getattr(expected, side).input_ids)


def _exchange(number):
    media = {3: [image(60)], 5: [image(100), image(60)]}.get(number, [])
    question = user(*media, f"Question {number}? " * (number % 4 + 1))
    return [question, answer(f"Answer {number}. " * (number % 3 + 1), weight=number % 2 + 0.5)]


@pytest.mark.parametrize("model", ["qwen2_5_vl", "smolvlm", "llava_onevision"])
def test_each_limit_gives_the_longest_rest_that_fits(model):
    exchanges = [_exchange(number) for number in range(8)]
    plain = collator_for(build(model))
    rests = [plain.encode(list(itertools.chain(*exchanges[k:]))) for k in range(8)]
    chat = list(itertools.chain(*exchanges))
    lengths = sorted({len(rest) for rest in rests})
    for limit in sorted({length + d for length in lengths for d in (-1, 0)}):
        collator = attrs.evolve(plain, max_length=limit, on_overlong="drop_turns")
        expected = next((rest for rest in rests if len(rest) <= limit), None)
        if expected is None:
            with pytest.raises(SampleTooLongError):
                collator.encode(chat)
            continue
        found = collator.encode(chat)
        assert torch.equal(found.input_ids, expected.input_ids)
        assert all(torch.equal(found.pixels(key), expected.pixels(key)) for key in expected.media)


@pytest.mark.parametrize(
    ("policy", "others"),
    [
        ("raise", "'truncate', 'drop_turns' or 'drop'"),
        ("truncate", "'drop_turns' or 'drop'"),
        ("drop_turns", "'truncate' or 'drop'"),
        ("drop", "'truncate' or 'drop_turns'"),
    ],
)
def test_what_is_too_long_names_the_other_policies(policy, others):
    collator = collator_for(PROCESSOR, max_length=30, on_overlong=policy)
    chat = [user("Question? " * 40), answer("Answer. " * 40)]
    with pytest.raises(SampleTooLongError, match=f"or set on_overlong to {others}$"):
        collator.encode(chat)
    named = others.replace("'truncate', ", "").replace("'truncate' or ", "")
    with pytest.raises(SampleTooLongError, match=f"or set on_overlong to {named}$"):
        collator.prompt(chat)


def test_a_long_chat_is_searched_by_halves():
    for wanted in range(1, 402):
        tried: list[int] = []

        def attempt(choice, wanted=wanted, tried=tried):
            tried.append(choice)
            return choice if choice >= wanted else None

        found = first_that_fits(range(401), attempt, lambda _: 0)
        assert found == (wanted if wanted < 401 else None)
        assert len(tried) <= 18


def test_a_choice_that_fails_counts_only_before_those_that_fit():
    def attempt(failing, choice):
        if choice in failing:
            raise ConversationError(f"{choice}")
        return choice if choice >= 5 else None

    for failing in itertools.combinations(range(9), 3):
        found = _outcome(attempt, failing)
        assert found == 5 if min(failing) > 5 else found in {5, *failing} - {6, 7, 8}


def _outcome(attempt, failing):
    try:
        return first_that_fits(range(9), partial(attempt, failing), lambda _: 0)
    except ConversationError as error:
        return int(str(error))
