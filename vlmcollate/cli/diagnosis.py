"""What a processor's chat template does with the chats that people train on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from vlmcollate.errors import CollateError

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator

_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Looks the weather up.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    }
]
_CALL = {
    "type": "function",
    "id": "call00000",
    "function": {"name": "weather", "arguments": {"place": "Bern"}},
}


def _said(role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}


_ASKED, _ANSWERED = _said("user", "How warm is it?"), _said("assistant", "It is mild.")
_MORE = [_said("user", "And tomorrow?"), _said("assistant", "It will rain.")]
_RESULT = _said("tool", "7 degrees", name="weather", tool_call_id="call00000")
CHATS: dict[str, dict[str, Any]] = {
    "one answer": {"messages": [_ASKED, _ANSWERED]},
    "several answers": {"messages": [_ASKED, _ANSWERED, *_MORE]},
    "a system message": {"messages": [_said("system", "Be brief."), _ASKED, _ANSWERED, *_MORE]},
    "an answer first": {"messages": [_said("assistant", "Hello."), *_MORE]},
    "reasoning": {"messages": [_ASKED, {**_ANSWERED, "reasoning_content": "Spring."}]},
    "a tool call": {
        "messages": [_ASKED, _said("assistant", "", tool_calls=[_CALL]), _RESULT, _ANSWERED],
        "tools": _TOOLS,
    },
    "text before a tool call": {
        "messages": [
            *(_ASKED, _said("assistant", "Let me see.", tool_calls=[_CALL]), _RESULT, _ANSWERED),
        ],
        "tools": _TOOLS,
    },
}
"""The kinds of chat that are tried."""


@attrs.frozen(kw_only=True)
class Finding:
    """What a chat template does with one kind of chat.

    Attributes:
        chat: The kind of chat.
        is_exact: Whether its labels are exact; if not, it is refused.
        trained: The text that trains, one string a turn.
        notes: What to know about it, with the way on.
    """

    chat: str
    is_exact: bool
    trained: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Diagnosis:
    """What a chat template does, in words.

    Attributes:
        processor: The name of the processor's class.
        turn_end: What ends a turn.
        switches: The variables by which the template turns thinking on and off.
        findings: One for each kind of chat.
    """

    processor: str
    turn_end: str
    switches: tuple[str, ...]
    findings: tuple[Finding, ...]


def diagnose(collator: BaseCollator) -> Diagnosis:
    """Tries a collator's chat template with the kinds of chat that people train on.

    Args:
        collator: The collator, whose options take part; what the template omits becomes a note.
    """
    from vlmcollate.prompt.templates import chat_template_of, switches_of

    collator = attrs.evolve(collator, on_template_omission="allow", on_unread="allow")
    names = (name for s in switches_of(chat_template_of(collator.processor)) for name in s)
    return Diagnosis(
        processor=type(collator.processor).__name__,
        turn_end=_turn_end(collator),
        switches=tuple(dict.fromkeys(names)),
        findings=tuple(_findings(collator)),
    )


def _turn_end(collator: BaseCollator) -> str:
    renderer = collator.renderer
    if renderer.answer_end:
        return f"no token of the template; {renderer.answer_end!r} is written and trained"
    if renderer.ends_with_words:
        return "words alone; the answers train without an end"
    if renderer.turn_ends.are_open:
        return 'words alone; set unclosed_turns to "append_eos" or "content_only"'
    ends = ", ".join(map(repr, renderer.turn_ends.tokens or renderer.stop_tokens))
    if renderer.last_turn_end:
        last = renderer.last_turn_end
        return f"{ends}, which begins the next turn; {last!r} is written behind the last answer"
    return f"{ends}, which trains"


def _findings(collator: BaseCollator) -> Iterator[Finding]:
    for chat, example in CHATS.items():
        try:
            explanation = collator.explain(example)
        except CollateError as error:
            yield Finding(chat=chat, is_exact=False, notes=(str(error),))
            continue
        trained = tuple(run.text for run in explanation.runs if run.kind == "trained")
        yield Finding(chat=chat, is_exact=True, trained=trained, notes=explanation.warnings)
