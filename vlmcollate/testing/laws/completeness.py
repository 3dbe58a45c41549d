"""Laws of words, flags and columns in an example, none of which may be ignored in silence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import attrs
import torch
from hypothesis import strategies as st

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import CollateError
from vlmcollate.formats.weights import SPELLINGS
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.laws.failure_messages import failure, media_of, text_of
from vlmcollate.testing.laws.for_all import Chat, Trial, forall
from vlmcollate.testing.laws.subject import Subject

_REMEDY = (
    "let `read` call vlmcollate.formats.read_example with the collator's `format` and `on_unread`, "
    "and keep all that it returns"
)
_LETTERS = "bcdfghjkmpvw"
_WORD = "zqvicuna"
Row = dict[str, Any]


def check_no_word_is_ignored(collator: BaseCollator, trial: Trial) -> None:
    """Every word of an example is in the prompt, an error or a warning."""
    subject = _strict(collator)

    def check(drawn: tuple[str, str]) -> None:
        place, word = drawn
        messages = subject.chat("Yes")
        sample, reports = _encode(subject, _PLACES[place](messages, word))
        if sample is None or word in _decode(subject, sample):
            return
        key = place.rpartition(" ")[2]
        if not any(word in report or key in report for report in reports):
            raise failure(
                f"the word {word!r} under {place} is in neither the prompt, an error nor a warning",
                _REMEDY,
                messages=messages,
                sample=sample,
                collator=subject.collator,
            )

    words = st.text(_LETTERS, min_size=6, max_size=6).map(lambda letters: f"zq{letters}")
    drawn = st.tuples(st.sampled_from(list(_PLACES)), words)
    forall(trial, drawn, check, also=[(place, _WORD) for place in _PLACES])


def check_no_flag_is_ignored(collator: BaseCollator, trial: Trial) -> None:
    """A flag of an answer changes its labels as it states, or is reported."""
    subject = _strict(collator)
    messages = subject.chat("Yes")
    plain = _weights(subject.collator.encode(messages))

    def check(drawn: tuple[str, str, object]) -> None:
        place, key, value = drawn
        example = _FLAGGED[place](messages, key, value)
        sample, reports = _encode(subject, example)
        if sample is None or any(key in report for report in reports):
            return
        weight = 1.0 if value is None else float(value)  # type: ignore[arg-type]  # a number
        found = _weights(sample)
        expected = plain * weight if place == "an answer" else plain
        is_kept = torch.equal(found, expected)
        if is_kept == (place == "a part of an answer" and weight != 1):
            raise failure(
                f"{key!r}: {value!r} of {place} does not weight its tokens by {weight:g}",
                _REMEDY,
                messages=example["messages"],
                sample=sample,
                collator=subject.collator,
            )
        if place == "the columns" and value is not None:
            raise failure(
                f"{key!r}: {value!r} beside the messages is neither an error nor a warning",
                _REMEDY,
                messages=messages,
            )

    drawn = st.tuples(
        st.sampled_from(list(_FLAGGED)),
        st.sampled_from(SPELLINGS),
        st.sampled_from([True, 1, 0.25, False, 0, None]),
    )
    also = list(product(["an answer"], SPELLINGS, (False, 0, None)))
    also += list(product(["a part of an answer", "the columns"], SPELLINGS, (0, None)))
    forall(trial, drawn, check, also=also)


def _strict(collator: BaseCollator) -> Subject:
    """The collator, which reports what it ignores and encodes what does not train."""
    given = Subject.of(collator)
    options: dict[str, Any] = {
        "on_unread": "auto",
        "on_template_omission": "warn",
        "require_labels": False,
        "train_on": "all_turns",
    }
    return attrs.evolve(given, collator=attrs.evolve(given.collator, **options))


def _encode(subject: Subject, example: Any) -> tuple[EncodedSample | None, list[str]]:
    """The sample, or `None` if the collator refuses the example, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            sample = subject.collator.encode(example)
        except CollateError:
            return None, []
    return sample, [str(warning.message) for warning in caught]


def _decode(subject: Subject, sample: EncodedSample) -> str:
    """The text of a sample without spaces."""
    ids = sample.input_ids[sample.media_ids < 0].tolist()
    return "".join(subject.tokenizer.decode(ids).split())


def _weights(sample: EncodedSample) -> torch.Tensor:
    """(L,) float32: the weight of each token."""
    is_trained = (sample.labels != IGNORE_INDEX).float()
    return is_trained * sample.tokens.get("loss_weights", torch.ones_like(is_trained))


def _in_row(key: str, make: Callable[[str], Any] = str) -> Callable[[Chat, str], Row]:
    """Puts a word into a column beside the messages."""
    return lambda messages, word: {"messages": messages, key: make(word)}


def _in_message(
    index: int, key: str, make: Callable[[str], Any] = str
) -> Callable[[Chat, str], Row]:
    """Puts a word into a field of a message."""

    def write(messages: Chat, word: str) -> Row:
        changed = list(messages)
        changed[index] = {**changed[index], key: make(word)}
        return {"messages": changed}

    return write


def _in_part(index: int, key: str) -> Callable[[Chat, str], Row]:
    """Puts a word into a text part of a message."""

    def write(messages: Chat, word: str) -> Row:
        given = messages[index]
        part = {"type": "text", "text": text_of(given), key: word}
        changed = list(messages)
        changed[index] = {**given, "content": [*media_of(given), part]}
        return {"messages": changed}

    return write


def _with_flag(messages: Chat, key: str, value: object) -> Row:
    return {"messages": [*messages[:-1], {**messages[-1], key: value}]}


def _with_flag_of_part(messages: Chat, key: str, value: object) -> Row:
    (*asked, answer) = messages
    part = {"type": "text", "text": text_of(answer), key: value}
    return {"messages": [*asked, {**answer, "content": [part]}]}


_FLAGGED: dict[str, Callable[[Chat, str, object], Row]] = {
    "an answer": _with_flag,
    "a part of an answer": _with_flag_of_part,
    "the columns": lambda messages, key, value: {"messages": messages, key: value},
}
"""The places of a flag."""


def _asked(word: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": word}]


def _call(word: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "find", "arguments": {"place": word}}}]


def _schema(word: str) -> list[dict[str, Any]]:
    nothing = {"type": "object", "properties": {}}
    function = {"name": "find", "description": word, "parameters": nothing}
    return [{"type": "function", "function": function}]


def _pair(question: str, answer: str) -> Callable[[Chat, str], Row]:
    """Puts a word into a column of another format."""

    def write(messages: Chat, word: str) -> Row:
        images = [part["image"] for message in messages for part in media_of(message)]
        return {question: f"What is {word}?", answer: "Yes", "images": images}

    return write


_ANSWER, _USER = -1, -2
_PLACES: dict[str, Callable[[Chat, str], Row]] = {
    "the text of a user message": _in_part(_USER, "text"),
    "the text of an answer": _in_part(_ANSWER, "text"),
    "the unknown key of a user message: zqnote": _in_message(_USER, "zqnote"),
    "the unknown key of an answer: zqnote": _in_message(_ANSWER, "zqnote"),
    "the name of a user: name": _in_message(_USER, "name"),
    "the unknown key of a part: zqnote": _in_part(_ANSWER, "zqnote"),
    "the reasoning of an answer: reasoning_content": _in_message(_ANSWER, "reasoning_content"),
    "the calls of an answer: tool_calls": _in_message(_ANSWER, "tool_calls", _call),
    "the refusal of an answer: refusal": _in_message(_ANSWER, "refusal"),
    "an unknown column: zqnote": _in_row("zqnote"),
    "the column of a system prompt: system": _in_row("system"),
    "the column of tools: tools": _in_row("tools", _schema),
    "a column of other answers: rejected": _in_row("rejected", _asked),
    "messages in metadata": _in_row("metadata", _asked),
    "the template variables: chat_template_kwargs": _in_row(
        "chat_template_kwargs", lambda word: {"zqvariable": word}
    ),
    "a question and an answer": _pair("question", "answer"),
    "a query and a response": _pair("query", "response"),
    "an instruction and an output": _pair("instruction", "output"),
    "a prompt and a completion": _pair("prompt", "completion"),
}
"""Each place in an example, the last word of which is the key to report, if it has one."""
