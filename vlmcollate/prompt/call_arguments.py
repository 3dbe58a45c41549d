"""The arguments of tool calls in the form that a chat template takes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import attrs

from vlmcollate.conversation import Conversation, Message
from vlmcollate.errors import stack_level
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.prompt.marks import Marks
from vlmcollate.prompt.templates import WORD, written_call

_Form = Literal["dict", "json", "printed"]
_FORMS: dict[str, _Form] = {}
_ARGUMENTS = {WORD: 1}


def in_form_for(
    processor: Any, template: str, conversation: Conversation, marks: Marks | None
) -> Conversation:
    """Returns a conversation with the arguments of calls in the form that a template takes.

    Args:
        processor: A processor with the template.
        template: The template.
        conversation: The conversation.
        marks: The marks for its strings; without any, as in a probe, nothing is reported.
    """
    form = _form_of(processor, template)
    if form == "dict":
        return conversation
    if form == "printed" and marks is not None:
        _report_dicts(conversation)
    spell = str if form == "printed" else partial(json.dumps, ensure_ascii=False)
    messages = tuple(_with_text(message, spell) for message in conversation.messages)
    return attrs.evolve(conversation, messages=messages)


def prints_dicts(processor: Any) -> bool:
    """Returns whether a processor's chat template writes a dict of arguments as Python does."""
    return _form_of(processor, chat_template_of(processor)) == "printed"


def _form_of(processor: Any, template: str) -> _Form:
    """Returns the form that a template takes; `"printed"` if it writes dicts as Python does."""
    if template not in _FORMS:
        as_dict = written_call(processor, _ARGUMENTS)
        as_json, printed = json.dumps(_ARGUMENTS), str(_ARGUMENTS)
        if not as_dict and not written_call(processor, as_json):
            return "dict"  # the template takes no calls, or lacks a variable
        if printed in as_dict and written_call(processor, printed) == as_dict:
            _FORMS[template] = "printed"  # such as a dict that is joined with text
        elif WORD in as_dict or as_json not in written_call(processor, as_json):
            _FORMS[template] = "dict"
        else:
            _FORMS[template] = "json"
    return _FORMS[template]


def _with_text(message: Message, spell: Callable[[Any], str]) -> Message:
    """Returns the message with the arguments of its calls as text, as they were given if they were.

    Args:
        message: The message.
        spell: Converts arguments that were given as a dict.
    """
    calls = message.extra.get("tool_calls")
    if not isinstance(calls, list):
        return message
    changed = []
    for call in calls:
        function = dict(call["function"])
        arguments = function["arguments"]
        if not isinstance(arguments, str):
            function["arguments"] = getattr(arguments, "text", None) or spell(arguments)
        changed.append({**call, "function": function})
    return attrs.evolve(message, extra={**message.extra, "tool_calls": changed})


def _report_dicts(conversation: Conversation) -> None:
    place = next(_dicts(conversation), None)
    if place is not None:
        warnings.warn(
            f"{place} is a dict, which the chat template writes as Python does, with single "
            "quotes, and the model learns to write it so; give the arguments as a JSON string, "
            "such as json.dumps(arguments), for JSON",
            stacklevel=stack_level(),
        )


def _dicts(conversation: Conversation) -> Iterator[str]:
    """Yields the places of arguments that were dicts in the example."""
    for i, message in enumerate(conversation.messages):
        calls = message.extra.get("tool_calls")
        for j, call in enumerate(calls if isinstance(calls, list) else ()):
            arguments = call["function"]["arguments"]
            if isinstance(arguments, Mapping) and not hasattr(arguments, "text"):
                yield f"messages[{i}].tool_calls[{j}].function.arguments"
