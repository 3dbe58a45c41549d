"""Traces a message's words through a chat template.

Every string from the caller is wrapped in a pair of private-use characters before the template is
rendered. Their positions in the rendering show the origin of its text.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, MediaKind, MediaPart, Message

_PRIVATE_USE = re.compile("[\U000f0000-\U0010fffd]")
_ESCAPED = re.compile(r"\\udb[89a-f][0-9a-f]\\ud[c-f][0-9a-f]{2}", re.IGNORECASE)
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""The keys of a message that hold its reasoning."""
Silence = str | tuple[()] | None
"""What a template takes for the content of calls without any: text, or `()` for an empty list."""
_SPLIT = re.compile(f"({_PRIVATE_USE.pattern})")


@attrs.frozen
class Span:
    """Characters from `start` up to `end` of the prompt that belong to a message."""

    start: int
    end: int
    message: int


@attrs.frozen
class Place:
    """A marked string: its message (-1 for tools), path, words, content part and message key."""

    message: int
    where: str
    core: str
    part: int | None
    key: str = ""


@attrs.frozen
class Slot(Span):
    """The words of a marked string in the prompt."""

    number: int = 0


@attrs.frozen(eq=False)
class MarkedText:
    """A rendering whose marks were read and removed."""

    text: str
    slots: list[Slot]
    marks: Marks

    @property
    def own_text(self) -> str:
        """The template's own text, with a private-use character in place of each string."""
        ends = [0, *(slot.end for slot in self.slots)]
        starts = [*(slot.start for slot in self.slots), len(self.text)]
        return "\U000f0000".join(self.text[a:b] for a, b in zip(ends, starts, strict=True))

    def of(self, message: int) -> list[Slot]:
        """Returns the slots of a message, in order of appearance."""
        return self._by_message.get(message, [])

    def find(self, number: int) -> Slot | None:
        """Returns the first slot of a marked string, or `None` if it was omitted."""
        return self._by_number.get(number)

    def first_after(self, message: int) -> Slot | None:
        """Returns the first slot of any later message."""
        return self._first_after.get(message)

    def last_before(self, message: int) -> Slot | None:
        """Returns the last slot of any earlier message."""
        return self._last_before.get(message)

    def is_given(self, start: int, end: int) -> bool:
        """Returns whether any of the characters comes from the caller."""
        at = bisect_left(self._ends, start + 1)  # slots do not overlap
        return start < end and at < len(self.slots) and self.slots[at].start < end

    def is_left_out(self, k: int) -> bool:
        """Returns whether the template omitted all the text of a message."""
        return k not in self._by_message and k in self._said

    @cached_property
    def _by_message(self) -> dict[int, list[Slot]]:
        found: dict[int, list[Slot]] = {}
        for slot in self.slots:
            found.setdefault(slot.message, []).append(slot)
        return found

    @cached_property
    def _by_number(self) -> dict[int, Slot]:
        return {slot.number: slot for slot in reversed(self.slots)}

    @cached_property
    def _said(self) -> frozenset[int]:
        return frozenset(place.message for place in self.marks.places)

    @cached_property
    def _ends(self) -> list[int]:
        return [slot.end for slot in self.slots]

    @cached_property
    def _first_after(self) -> dict[int, Slot]:
        found: dict[int, Slot] = {}
        latest = -1
        for slot in self.slots:
            found.update(dict.fromkeys(range(latest, slot.message), slot))
            latest = max(latest, slot.message)
        return found

    @cached_property
    def _last_before(self) -> dict[int, Slot]:
        found: dict[int, Slot] = {}
        earliest = len(self.marks.conversation.messages)
        for slot in reversed(self.slots):
            found.update(dict.fromkeys(range(slot.message + 1, earliest + 1), slot))
            earliest = min(earliest, slot.message)
        return found


class Marks:
    """Wraps the caller's strings in private-use characters, and reads them back.

    The same strings in the same order get the same marks, so a rendering of the first messages can
    be compared with that of all messages.

    Args:
        conversation: The conversation.
        control: A pattern of the control tokens.
        literals: A pattern of the strings, such as `</think>`, that stay unmarked in an assistant's
            text, since the template searches the text for them; `None` if all strings are marked.
    """

    def __init__(
        self,
        conversation: Conversation,
        control: re.Pattern[str],
        literals: re.Pattern[str] | None = None,
    ) -> None:
        self.conversation = conversation
        self.control = control
        self.literals = literals
        self.places: list[Place] = []
        text = _all_text(conversation)
        self._used = frozenset(() if text.isascii() else _PRIVATE_USE.findall(text))
        self._free = (c for c in map(chr, range(0xF0000, 0x10FFFE)) if c not in self._used)
        self._opens: dict[str, int] = {}
        self._closes: dict[str, int] = {}

    def renewed(self) -> Marks:
        """Returns the same marks for another rendering."""
        return Marks(self.conversation, self.control, self.literals)

    def wrap(
        self, text: str, message: int, where: str, part: int | None = None, key: str = ""
    ) -> str:
        """Marks a string inside its outer whitespace, so that it can be trimmed."""
        is_answer = message >= 0 and self.conversation.messages[message].is_assistant
        if is_answer and self.literals is not None and self.literals.search(text):
            pieces = re.split(f"({self.literals.pattern})", text)
            return "".join(
                piece if i % 2 else self._wrap(piece, message, where, part, key)
                for i, piece in enumerate(pieces)
            )
        return self._wrap(text, message, where, part, key)

    def _wrap(self, text: str, message: int, where: str, part: int | None, key: str) -> str:
        core = text.strip()
        if not core:
            return text
        start = 0 if core == text else text.index(core)
        open_, close = next(self._free), next(self._free)
        self._opens[open_] = self._closes[close] = len(self.places)
        self.places.append(Place(message, where, core, part, key))
        return f"{text[:start]}{open_}{core}{close}{text[start + len(core) :]}"

    def guard(self, value: Any) -> Any:
        """Marks the strings of tools and variables that contain a control token."""
        guarded = partial(self.guarded, message=-1, where="")
        return map_strings(value, guarded, guarded)

    def guarded(self, text: str, message: int, where: str, key: str = "") -> str:
        """Marks a string if it contains a control token."""
        return self.wrap(text, message, where, key=key) if self.control.search(text) else text

    def _unescape(self, match: re.Match[str]) -> str:
        """Returns a mark that JSON escaped, or any other escaped character as it is."""
        char: str = json.loads(f'"{match.group()}"')
        return char if char in self._opens or char in self._closes else match.group()

    def read(self, text: str) -> MarkedText | None:
        """Removes and locates the marks; returns `None` if they are not in pairs."""
        if "\\ud" in text:  # JSON in ASCII, which escapes the marks
            text = _ESCAPED.sub(self._unescape, text)
        texts = _SPLIT.split(text)  # texts and marks by turns
        pieces = texts[:1]
        slots: list[Slot] = []
        length = len(texts[0])
        opened: tuple[int, int] | None = None
        for mark, piece in zip(texts[1::2], texts[2::2], strict=True):
            if mark in self._used:
                pieces.append(mark)
                length += 1
            elif mark in self._opens and opened is None:
                opened = self._opens[mark], length
            elif opened is not None and self._closes.get(mark) == opened[0]:
                slots.append(Slot(opened[1], length, self.places[opened[0]].message, opened[0]))
                opened = None
            else:
                return None
            pieces.append(piece)
            length += len(piece)
        return None if opened is not None else MarkedText("".join(pieces), slots, self)


def _all_text(conversation: Conversation) -> str:
    texts: list[str] = []

    def keep(text: str) -> str:
        texts.append(text)
        return text

    for message in conversation.messages:
        texts += [part.text for part in message.content if not isinstance(part, MediaPart)]
        map_strings(message.extra, keep, keep)
    map_strings(conversation.tools, keep, keep)
    map_strings(conversation.template_kwargs, keep, keep)
    return "".join(texts)


def template_inputs(
    conversation: Conversation,
    marks: Marks | None = None,
    *,
    as_text: Collection[str] = (),
    as_parts: Collection[str] = (),
    placeholders: Mapping[MediaKind, str] | None = None,
    answer_end: str = "",
    silence: Silence = (),
) -> tuple[list[dict[str, Any]], Any]:
    """Returns messages and tools in the form that the chat template accepts.

    Args:
        conversation: The conversation.
        marks: The marks for its strings, or `None`.
        as_text: The roles whose content the template takes as a string only.
        as_parts: The roles whose content the template takes as a list only. The content of the
            others keeps the form that it has in the example.
        placeholders: The placeholders of media in such a string; `None` leaves media to the
            template.
        answer_end: The text to add to every answer, as if the template did.
        silence: The content of calls without any in the example.
    """
    tools: Any = conversation.tools if marks is None else marks.guard(conversation.tools)
    chat = [_for_template(m, i, marks) for i, m in enumerate(conversation.messages)]
    for message in chat if answer_end else ():
        if message["role"] == "assistant":
            _end(message["content"], answer_end)
    for i, given in enumerate(conversation.messages):
        if given.role in as_text:
            chat[i] = _as_text(chat[i], placeholders)
        elif given.is_string and given.role not in as_parts:
            chat[i] = _as_text(chat[i], None)
        is_silent = "tool_calls" in given.extra and not (given.content or chat[i]["content"])
        if is_silent and not (given.is_string and given.role not in as_parts):
            del chat[i]["content"]
            chat[i] |= {} if silence is None else {"content": [] if silence == () else silence}
    return chat, tools


def _end(parts: list[dict[str, Any]], answer_end: str) -> None:
    """Ends an answer after its last words, since templates may separate parts."""
    if parts and parts[-1]["type"] == "text":
        parts[-1]["text"] += answer_end
    else:
        parts.append({"type": "text", "text": answer_end})


def _as_text(
    message: dict[str, Any], placeholders: Mapping[MediaKind, str] | None
) -> dict[str, Any]:
    """Returns the message with string content, if a string can hold all of it."""
    parts = message["content"]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return {**message, "content": parts[0]["text"]}
    if placeholders is None and any(part["type"] != "text" for part in parts):
        return message
    texts = (p["text"] if p["type"] == "text" else (placeholders or {})[p["type"]] for p in parts)
    return {**message, "content": "".join(texts)}


def _for_template(message: Message, index: int, marks: Marks | None) -> dict[str, Any]:
    """Returns a plain copy of the message, with media as empty parts."""

    def mark(text: str, where: str, part: int | None = None, key: str = "") -> str:
        if marks is None:
            return text
        return marks.wrap(text, index, f"messages[{index}].{where}", part, key)

    content: list[dict[str, Any]] = []
    for i, part in enumerate(message.content):
        if isinstance(part, MediaPart):
            content.append({"type": part.kind, part.kind: part.kind})
        else:
            content.append({"type": "text", "text": mark(part.text, f"content[{i}]", i)})
    extra: dict[str, Any] = {}
    for key, value in message.extra.items():
        if marks is None:
            extra[key] = map_strings(value, str, str)
        elif key == "tool_calls" or key in REASONING_KEYS:
            guarded = partial(
                marks.guarded, message=index, where=f"messages[{index}].{key}", key=key
            )
            extra[key] = map_strings(
                value, partial(mark, where=key, key=key), guarded, ("type", "id")
            )
        else:
            extra[key] = marks.guard(value)
    return {"role": message.role, "content": content, **extra}


def map_strings(
    value: Any,
    change: Callable[[str], str],
    change_key: Callable[[str], str],
    fixed: Sequence[str] = (),
) -> Any:
    """Copies a JSON-like value and changes every string in it.

    Args:
        value: The value.
        change: The function for a string.
        change_key: The function for a key, and for a string under one of the `fixed` keys.
        fixed: The keys whose values a template may compare with literals.

    Returns:
        The changed copy; tuples become lists.
    """
    kind = type(value)
    if kind is str:
        return change(value)
    if kind is dict or (kind not in _SCALARS and isinstance(value, Mapping)):
        return _map_items(value, change, change_key, fixed)
    if kind is list or isinstance(value, list | tuple):
        return [map_strings(item, change, change_key, fixed) for item in value]
    return change(value) if isinstance(value, str) else value


_SCALARS = frozenset({int, float, bool, type(None), list, tuple})


def _map_items(
    value: Mapping[Any, Any],
    change: Callable[[str], str],
    change_key: Callable[[str], str],
    fixed: Sequence[str],
) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, item in value.items():
        changed = change_key(key) if isinstance(key, str) else key
        change_item = change_key if key in fixed else change
        if type(item) is str:
            found[changed] = change_item(item)
        else:
            found[changed] = map_strings(item, change_item, change_key, fixed)
    return found
