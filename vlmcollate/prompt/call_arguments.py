"""The arguments of tool calls in the form that a chat template takes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs

from vlmcollate.conversation import Conversation, Message
from vlmcollate.errors import stack_level
from vlmcollate.prompt.marks import Marks
from vlmcollate.prompt.templates import WORD, written_call

_Form = Literal["dict", "json", "printed"]
_FORMS: dict[str, _Form] = {}
_JSON = f'{{"{WORD}": 1}}'


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
    return attrs.evolve(conversation, messages=tuple(map(_with_json, conversation.messages)))


def _form_of(processor: Any, template: str) -> _Form:
    """Returns the form that a template takes; `"printed"` if it writes dicts as Python does."""
    if template not in _FORMS:
        as_dict = written_call(processor, {WORD: 1})
        is_printed = f"{{'{WORD}'" in as_dict  # a dict that is joined with text
        is_dict = WORD in as_dict and not is_printed
        if is_dict or _JSON not in written_call(processor, _JSON):
            _FORMS[template] = "dict"
        else:
            _FORMS[template] = "printed" if is_printed else "json"
    return _FORMS[template]


def _with_json(message: Message) -> Message:
    """Returns the message with the arguments of its calls as JSON strings."""
    calls = message.extra.get("tool_calls")
    if not isinstance(calls, list):
        return message
    changed = []
    for call in calls:
        function = dict(call["function"])
        arguments = function["arguments"]
        if not isinstance(arguments, str):
            text = getattr(arguments, "text", None) or json.dumps(arguments, ensure_ascii=False)
            function["arguments"] = text
        changed.append({**call, "function": function})
    return attrs.evolve(message, extra={**message.extra, "tool_calls": changed})


def _report_dicts(conversation: Conversation) -> None:
    place = next(_dicts(conversation), None)
    if place is not None:
        warnings.warn(
            f"{place} is a dict, which the chat template would write as Python does, with single "
            "quotes, so it gets JSON; give the arguments as a JSON string to choose their spelling",
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
