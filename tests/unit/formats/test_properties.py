"""Rows that hypothesis draws: each is read or refused, and nothing of it is ignored."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from typing import Any, get_args

from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.formats.test_public_rows import ROWS
from vlmcollate.conversation import Conversation, TextPart
from vlmcollate.errors import CollateError, UnreadKeyWarning
from vlmcollate.formats import UnreadPolicy, read_example
from vlmcollate.formats.examples import read_simple
from vlmcollate.formats.registry import REGISTERED
from vlmcollate.formats.unread import METADATA

_KEYS = [
    "messages",
    "conversations",
    "conversation",
    "texts",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "query",
    "response",
    "question",
    "answer",
    "prefix",
    "suffix",
    "history",
    "system",
    "tools",
    "images",
    "image",
    "video",
    "role",
    "from",
    "content",
    "value",
    "type",
    "text",
    "weight",
    "train",
    "loss",
    "tool_calls",
    "function_call",
    "arguments",
    "name",
    "source",
    "metadata",
    "output",
    "summary",
    "call_id",
    "refusal",
    "reasoning",
    "bytes",
    "path",
    "media_type",
    "data",
]
_NAMES = [
    *("user", "assistant", "human", "gpt", "tool", "<image>", "[{", "{}", "image", "text"),
    *("function_call", "function_call_output", "reasoning", "thinking", "base64"),
]
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(_NAMES)
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)


@example(value=[{"type": []}], as_json=False, name="auto", policy="auto")
@example(
    value=[{"role": "tool", "content": {"type": []}}], as_json=False, name="auto", policy="auto"
)
@example(value=float("nan"), as_json=False, name="auto", policy="auto")
@example(value={"messages": float("nan")}, as_json=False, name="messages", policy="warn")
@given(
    value=_VALUES,
    as_json=st.booleans(),
    name=st.sampled_from(["auto", *REGISTERED]),
    policy=st.sampled_from(get_args(UnreadPolicy)),
)
def test_any_value_is_a_conversation_or_a_collate_error(value, as_json, name, policy):
    row = json.dumps(value) if as_json else value
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadKeyWarning)
        try:
            found = read_example(row, name, on_unread=policy)
        except CollateError:
            found = None
    assert found is None or isinstance(found, Conversation)
    assert time.perf_counter() - start < 1


_WORDS = st.text(alphabet="bcdfghjk", min_size=6, max_size=6).map(lambda word: f"zq{word}")
_FLAGS = st.sampled_from([False, 0, True, 1, 0.5])


@st.composite
def _rows(draw: Any) -> tuple[dict[str, Any], list[str]]:
    """A row of any format with a word of its own in each field, and further fields."""
    words = draw(st.lists(_WORDS, min_size=8, max_size=8, unique=True))
    w = iter(words)
    shape = draw(st.sampled_from(["messages", "conversations", "prompt", "alpaca", "qa", "texts"]))
    if shape in ("messages", "conversations"):
        role, content = draw(st.sampled_from([("role", "content"), ("from", "value")]))
        turns = [("user", next(w)), ("assistant", next(w))]
        row: dict[str, Any] = {shape: [{role: who, content: said} for who, said in turns]}
        place = draw(st.sampled_from(["row", "message"]))
        target = row if place == "row" else row[shape][draw(st.sampled_from([0, 1]))]
    else:
        row = {
            "prompt": lambda: {"prompt": next(w), "completion": next(w)},
            "alpaca": lambda: {"instruction": next(w), "input": next(w), "output": next(w)},
            "qa": lambda: {"question": next(w), "answer": next(w)},
            "texts": lambda: {"texts": [{"user": next(w), "assistant": next(w)}]},
        }[shape]()
        target = row
    for key in draw(st.lists(st.sampled_from([*_KEYS, "model", "note", "labels"]), max_size=3)):
        if key not in target and key not in METADATA:
            target[key] = draw(st.sampled_from([next(w, "zqlast"), [next(w, "zqlast")]]))
    return row, [word for word in words if word in json.dumps(row)]


@given(_rows())
def test_every_word_of_a_row_shows_or_is_reported(drawn):
    row, words = drawn
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = read_example(row)
        except CollateError:
            return
    seen = [part.text for m in found.messages for part in m.content if isinstance(part, TextPart)]
    seen += [m.role for m in found.messages]  # an unknown one is refused later, by the template
    seen += [json.dumps([m.extra for m in found.messages]), json.dumps(found.tools)]
    seen += [json.dumps(dict(found.template_kwargs)), str([part.source for _, part in found.media])]
    named = " ".join(str(w.message) for w in caught)
    for word in words:
        is_reported = any(
            word in json.dumps(value, default=str) and repr(path.rpartition(".")[2]) in named
            for path, value in found.unread.items()
        )
        assert is_reported or any(word in text for text in seen), (word, row)


@given(message=st.sampled_from([0, 1]), key=st.sampled_from(
    ["train", "training", "trainable", "loss", "loss_mask", "loss_scale", "loss_weight", "weight"]
), flag=_FLAGS)  # fmt: skip
def test_every_flag_is_a_weight_or_an_error(message, key, flag):
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "A cat."},
    ]
    chat[message][key] = flag
    try:
        found = read_example(chat)
    except CollateError:
        return
    expected = float(flag) if message or flag == 0 else 1.0
    assert found.messages[message].weight == expected


@given(_VALUES)
def test_the_fast_way_reads_what_the_others_read(value):
    for row in (value, {"messages": value}):
        simple = read_simple(row)
        if simple is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnreadKeyWarning)
                slow = read_example(row, "messages")
            assert simple == slow
            assert [m.is_string for m in simple.messages] == [m.is_string for m in slow.messages]


def _mutated(value: Any, replacement: Any, at: list[int]) -> Any:
    """Replaces, or adds beside others, a value at a drawn depth."""
    if not at or not isinstance(value, list | dict) or not value:
        return replacement
    if isinstance(value, list):
        index = at[0] % len(value)
        return [
            _mutated(item, replacement, at[1:]) if i == index else item
            for i, item in enumerate(value)
        ]
    keys = [*value, *_KEYS]
    key = keys[at[0] % len(keys)]
    if key not in value:
        return {**value, key: replacement}
    return {**value, key: _mutated(value[key], replacement, at[1:])}


@given(
    row=st.sampled_from(list(ROWS)),
    replacement=_VALUES,
    at=st.lists(st.integers(0, 60), min_size=1, max_size=6),
    name=st.sampled_from(["auto", "auto", *REGISTERED]),
)
def test_a_public_row_with_any_value_inside_is_read_or_refused(row, replacement, at, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadKeyWarning)
        with contextlib.suppress(CollateError):
            read_example(_mutated(ROWS[row][0], replacement, at), name)
