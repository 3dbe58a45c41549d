"""Rows and messages that are read in one step, against the formats that read all others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmcollate import plain_values
from vlmcollate.conversation import Conversation
from vlmcollate.errors import CollateError, UnreadKeyWarning
from vlmcollate.formats import examples, messages, read_example
from vlmcollate.formats.examples import read_simple

_TEXTS = st.text(max_size=6) | st.sampled_from(["", " a ", "<image>", "\ud800", "é", "[1]", "{}"])
_ODD: st.SearchStrategy[Any] = st.sampled_from([None, 3, float("nan"), True, b"a", [], {}, ("a",)])
_VALUES = st.recursive(
    _TEXTS | _ODD | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
_ARGUMENTS = st.dictionaries(_TEXTS, _VALUES, max_size=3) | _TEXTS | _ODD
_FUNCTIONS = st.fixed_dictionaries(
    {"name": _TEXTS | _ODD, "arguments": _ARGUMENTS}, optional={"strict": st.booleans()}
)
_CALLS = st.fixed_dictionaries(
    {"function": _FUNCTIONS}, optional={"type": _TEXTS | _ODD, "id": _TEXTS | _ODD}
)
_CONTENTS = (
    _TEXTS | _ODD | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": _TEXTS}))
)
_MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool", "gpt", "developer"]),
        "content": _CONTENTS,
    },
    optional={
        "tool_calls": st.lists(_CALLS, max_size=2) | _ODD,
        "tool_call_id": _TEXTS | _ODD,
        **dict.fromkeys(("reasoning_content", "reasoning", "name"), _TEXTS | _ODD),
        **dict.fromkeys(("weight", "thinking", "note"), _ODD),
    },
)
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"required": ["a"]}}}
_ROWS = st.fixed_dictionaries(
    {"messages": st.lists(_MESSAGES, max_size=4)},
    optional={"tools": st.lists(st.just(_TOOL) | _ODD, max_size=2) | _ODD, "id": _TEXTS},
)


def _refuse(value: object, levels: int = 0) -> Any:
    raise plain_values.NotBuiltinError


@contextmanager
def _without_the_fast_ways() -> Iterator[None]:
    """Lets the formats read everything."""
    with (
        mock.patch.object(plain_values, "copy_builtins", _refuse),
        mock.patch.object(messages, "simple_message", return_value=None),
        mock.patch.object(examples, "read_simple", return_value=None),
    ):
        yield


def _read(row: object) -> Any:
    """Everything of the conversation that a row is, or the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadKeyWarning)
        try:
            found = read_example(row)
        except CollateError as error:
            return str(error)
    return _shown(found)


def _shown(found: Conversation) -> Any:
    strings = [message.is_string for message in found.messages]
    keys = [list(message.extra) for message in found.messages]
    calls = [repr(message.extra.get("tool_calls")) for message in found.messages]
    return attrs.asdict(found), strings, keys, calls, found.format


@given(_ROWS)
def test_the_fast_ways_read_as_the_formats_do(row):
    with _without_the_fast_ways():
        slow = _read(row)
    assert _read(row) == slow
    assert _read({**row, "id": "a"}) == slow  # which only messages are read fast of


@given(_VALUES)
def test_builtin_values_are_copied_as_all_others(value):
    try:
        copy = plain_values.copy_builtins(value)
    except plain_values.NotBuiltinError:
        return
    with _without_the_fast_ways():
        assert repr(plain_values.plain(value, "")) == repr(copy)


def test_copies_share_nothing_with_the_value():
    value = {"a": [{"b": [1]}]}
    copy = plain_values.copy_builtins(value)
    value["a"][0]["b"].append(2)
    assert copy == {"a": [{"b": [1]}]}


def test_a_value_that_holds_itself_is_left_to_the_slow_way():
    value: list[Any] = []
    value.append(value)
    with pytest.raises(plain_values.NotBuiltinError):
        plain_values.copy_builtins(value)


_ASKED = {"role": "user", "content": "Where?"}
_CALL = {"type": "function", "id": "a", "function": {"name": "f", "arguments": {"x": [1, "é"]}}}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "Here.", "reasoning_content": " I think "},
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "assistant", "content": "So.", "tool_calls": [_CALL, _CALL], "name": "a"},
        {"role": "tool", "content": "3", "tool_call_id": "a"},
        {"content": "Here.", "role": "assistant", "tool_calls": None, "thinking": "Hm."},
    ],
)
def test_usual_chats_of_agents_are_read_in_one_step(message):
    row = {"messages": [_ASKED, message], "tools": [_TOOL]}
    found = read_simple(row)
    assert found is not None
    with _without_the_fast_ways():
        assert _read(row) == _shown(found)
