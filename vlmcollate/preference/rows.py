"""How a row with two answers becomes two rows, each in a format that one answer has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch

from vlmcollate.errors import ConversationError
from vlmcollate.formats.base import row_of
from vlmcollate.formats.builtin import MESSAGE_LIST
from vlmcollate.formats.fields import as_list, is_hollow, parsed, present_fields
from vlmcollate.formats.media_columns import ALL_COLUMNS
from vlmcollate.formats.pairs import ANSWERS
from vlmcollate.formats.roles import ROLES
from vlmcollate.formats.unread import OBJECTS
from vlmcollate.plain_values import describe, show_all, unwrap

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")

_ANSWER_COLUMNS = ("response", *ANSWERS.values())
_LISTS = ("messages", "conversation", "chat", "conversations")
_REJECTED = ("rejected_response", "rejected_messages")
"""What stands beside a whole conversation, whose last answer was chosen."""
_REJECTED_COLUMNS = {f"rejected_{key}": key for key in (*ALL_COLUMNS, "tools", "system", OBJECTS)}
"""The columns of the rejected side alone, and those whose place they take there."""


@attrs.frozen(kw_only=True)
class SideRow:
    """The row of one side.

    Attributes:
        side: The side.
        row: The row in a format of `vlmcollate.formats`.
        column: The column of the row that holds what the dataset has for this side, or "" if the
            side is a row itself.
        has_own_media: Whether the dataset has media of its own for this side.
        stated: The questions beside two whole conversations, which these have to hold, by column.
    """

    side: Side
    row: Mapping[str, Any]
    column: str
    has_own_media: bool = False
    stated: Mapping[str, str] = attrs.field(factory=dict)

    def place(self, where: str | None) -> str:
        """Returns the path in the dataset's row of a path in `row`."""
        if where is not None and where.startswith(self.side):
            return where
        if where is not None and self.column and where.startswith(self.column):
            return self.side + where[len(self.column) :]
        return self.side if where is None else f"{self.side}, {where}"


def side_rows(row: Mapping[str, Any]) -> tuple[SideRow, SideRow]:
    """Returns the rows of the chosen and the rejected side.

    Args:
        row: The fields of an example; see `row_of`.

    Raises:
        ConversationError: The row has no two sides, or a side is empty or without a prompt.
    """
    if "rejected_messages" not in row:  # which may have no media
        row = {k: v for k, v in row.items() if k not in _REJECTED_COLUMNS or not is_hollow(v)}
    given = [key for key in (*_REJECTED, *_REJECTED_COLUMNS) if key in row]
    if given:
        return _with_rejected_columns(row, given)
    values = {side: _side(row, side) for side in SIDES}
    rest = {key: value for key, value in row.items() if key not in SIDES}
    kinds = {side: _kind(value, side) for side, value in values.items()}
    if kinds["chosen"] != kinds["rejected"]:
        found = " and ".join(f"{side!r} as {kind}" for side, kind in kinds.items())
        raise ConversationError(
            f"has sides in two forms: found {found}; write both in one form", where="rejected"
        )
    kind = kinds["chosen"]
    if kind == "a row":
        rows = [
            SideRow(side=side, row={**rest, **values[side]}, column="", has_own_media=True)
            for side in SIDES
        ]
    elif kind == "a conversation":
        rest = _without_repeated_messages(rest, values["chosen"])
        questions = {key: unwrap(rest[key]) for key in ANSWERS if key in rest}
        stated = {key: text for key, text in questions.items() if _is_text(text)}
        beside = {key: value for key, value in rest.items() if key not in stated}
        rows = [
            SideRow(
                side=side,
                row={**beside, "messages": values[side]},
                column="messages",
                stated=stated,
            )
            for side in SIDES
        ]
    else:
        rows = [_answered(rest, values[side], side) for side in SIDES]
    return rows[0], rows[1]


def _side(row: Mapping[str, Any], side: Side) -> Any:
    value = row.get(side)
    if isinstance(value, str) and MESSAGE_LIST.match(value):
        value = parsed(value, side, "[")
    value = unwrap(value)
    if value is None and side not in row:
        raise ConversationError(
            f"has no {side!r} side: found a dict with {show_all(row)}, expected 'chosen' and "
            "'rejected', or 'rejected_response' beside 'messages'; rename the columns"
        )
    if is_hollow(value):
        raise ConversationError(
            f"is empty: found {describe(value)}, expected an answer, or a conversation that ends "
            "with one; drop the row",
            where=side,
        )
    return [value] if isinstance(value, Mapping) and _role(value) is not None else value


def _role(message: Any) -> str | None:
    message = unwrap(message)
    if not isinstance(message, Mapping):
        return None
    role = unwrap(message.get("role", message.get("from")))
    return ROLES.get(role, role) if isinstance(role, str) else None


def _kind(value: Any, side: Side) -> str:
    """Returns what the value of a side is, in words."""
    if isinstance(value, str):
        return "an answer"
    if isinstance(value, Mapping):
        return "a row"
    if isinstance(value, list | tuple):
        is_answer = _role(value[0]) in ("assistant", None)
        return "an answer" if is_answer else "a conversation"
    raise ConversationError(
        f"expected a string, a message, a list of messages or a row, found {describe(value)}",
        where=side,
    )


def _answered(rest: Mapping[str, Any], answer: Any, side: Side) -> SideRow:
    """Returns the row of a question with one of its two answers."""
    questions = [key for key in (*ANSWERS, *_LISTS) if key in rest]
    if not questions:
        hint = ""
        if isinstance(answer, str) and answer.lstrip().startswith(("Human:", "User:")):
            hint = "; split a transcript into messages with roles"
        raise ConversationError(
            f"has no prompt: found a dict with {show_all(rest)}, expected 'prompt' or 'messages' "
            f"beside it, or whole conversations on both sides{hint}",
            where=side,
        )
    question = questions[0]
    if question != "prompt" and isinstance(unwrap(rest[question]), str):
        answer = _as_text(answer)  # so that `input` and `history` belong to the question
    if isinstance(answer, str) and question in ANSWERS:
        column = ANSWERS[question]
        return SideRow(side=side, row={**rest, column: answer}, column=column)
    beside = [key for key in ("input", "history") if not is_hollow(rest.get(key))]
    if beside and question in ANSWERS:
        raise ConversationError(
            f"has an answer of messages beside {beside[0]!r}, which belongs to a question and an "
            "answer in strings; write the question as messages under 'prompt'",
            where=side,
        )
    others = {key: value for key, value in rest.items() if key != question}
    return SideRow(
        side=side,
        row={**others, "prompt": rest[question], "completion": answer},
        column="completion",
    )


def _as_text(answer: Any) -> Any:
    """Returns the text of an answer that is a single message of nothing else."""
    message = unwrap(answer[0]) if isinstance(answer, list) and len(answer) == 1 else None
    if not isinstance(message, Mapping):
        return answer
    fields = present_fields(message)
    for role, content in (("role", "content"), ("from", "value")):
        if fields.keys() == {role, content} and isinstance(fields[content], str):
            return fields[content]
    return answer


def _without_repeated_messages(rest: Mapping[str, Any], chosen: Any) -> dict[str, Any]:
    """Returns the columns beside two conversations without a list that repeats the chosen one."""
    kept = dict(rest)
    for key in (*_LISTS, "prompt"):
        if key not in kept or (key == "prompt" and _is_text(kept[key])):
            continue
        listed = as_list(kept.pop(key), key)
        if not same_value(listed, list(chosen)[: len(listed)]):
            raise ConversationError(
                f"has a conversation of its own beside 'chosen' and 'rejected', which hold whole "
                f"ones; remove {key!r}, or leave only the answers in 'chosen' and 'rejected'",
                where=key,
            )
    return kept


def _with_rejected_columns(row: Mapping[str, Any], given: Sequence[str]) -> tuple[SideRow, SideRow]:
    """Returns the sides of a row that holds the chosen one, with columns of the rejected one."""
    _check_rejected_columns(row, given)
    chosen = {key: value for key, value in row.items() if key not in given}
    own = {_REJECTED_COLUMNS[key]: row[key] for key in given if key in _REJECTED_COLUMNS}
    if "rejected_messages" in given:
        sides = _with_another_conversation(chosen, row["rejected_messages"])
    elif any(key in chosen for key in _LISTS):
        sides = _with_another_ending(chosen, row.get("rejected_response"))
    else:
        sides = _with_another_answer(chosen, row.get("rejected_response"))
    rejected = attrs.evolve(
        sides[1], row={**sides[1].row, **own}, has_own_media=any(key in own for key in ALL_COLUMNS)
    )
    return sides[0], rejected


def _check_rejected_columns(row: Mapping[str, Any], given: Sequence[str]) -> None:
    named = [side for side in SIDES if side in row]
    if named:
        raise ConversationError(
            f"has two readings: {named[0]!r} and {given[0]!r}; keep one", where=given[0]
        )
    texts = [key for key in _REJECTED if key in given]
    if len(texts) > 1:
        raise ConversationError(f"has {texts[0]!r} and {texts[1]!r}; keep one", where=texts[1])
    if not any(key in row for key in (*_LISTS, *_ANSWER_COLUMNS)):
        raise ConversationError(
            f"has no chosen side: found a dict with {show_all(row)}, expected 'messages', or a "
            "question with 'response', whose last answer is the chosen one",
            where=given[0],
        )
    if texts and is_hollow(row[texts[0]]):
        raise ConversationError(
            "is empty: expected the rejected answer; drop the row", where=texts[0]
        )


def _with_another_conversation(chosen: Mapping[str, Any], messages: Any) -> tuple[SideRow, SideRow]:
    """Returns the sides of two whole conversations."""
    of_chosen = {*_LISTS, *ANSWERS, *_ANSWER_COLUMNS, "input", "history"}
    beside = {key: value for key, value in chosen.items() if key not in of_chosen}
    column = next((key for key in _LISTS if key in chosen), "messages")
    return (
        SideRow(side="chosen", row=chosen, column=column),
        SideRow(side="rejected", row={**beside, column: messages}, column=column),
    )


def _with_another_ending(chosen: Mapping[str, Any], ending: Any) -> tuple[SideRow, SideRow]:
    """Returns the sides of a conversation, whose end after the last question differs.

    Args:
        chosen: The row of the chosen side.
        ending: The end of the rejected one, as a string or messages, or `None` if it is the same.
    """
    key = next(key for key in _LISTS if key in chosen)
    beside = {name: value for name, value in chosen.items() if name != key}
    messages = as_list(chosen[key], key)
    if len(messages) < 2 or _role(messages[-1]) != "assistant":
        raise ConversationError(
            "ends without an answer, so there is none to prefer to the rejected one; add the "
            "chosen answer as the last message",
            where=key,
        )
    asked = [k for k, message in enumerate(messages) if _role(message) == "user"]
    start = asked[-1] + 1 if asked else len(messages) - 1
    beside["prompt"] = messages[:start]
    endings = {"chosen": messages[start:], "rejected": _as_ending(ending) or messages[start:]}
    rows = [
        SideRow(side=side, row={**beside, "completion": endings[side]}, column="completion")
        for side in SIDES
    ]
    return rows[0], rows[1]


def _with_another_answer(chosen: Mapping[str, Any], answer: Any) -> tuple[SideRow, SideRow]:
    """Returns the sides of a question in a column of its own, whose answers differ."""
    column = next(key for key in _ANSWER_COLUMNS if key in chosen)
    answers = {"chosen": chosen[column], "rejected": _as_text(_as_ending(answer)) or chosen[column]}
    if isinstance(answers["rejected"], str):
        rows = [
            SideRow(side=side, row={**chosen, column: answers[side]}, column=column)
            for side in SIDES
        ]
    else:
        beside = {key: value for key, value in chosen.items() if key != column}
        rows = [_answered(beside, answers[side], side) for side in SIDES]
    return rows[0], rows[1]


def _as_ending(value: Any) -> Any:
    """Returns a string or a list of messages; a single message is a list of one."""
    if isinstance(value, str) and MESSAGE_LIST.match(value):
        value = parsed(value, "rejected_response", "[")
    value = unwrap(value)
    return [value] if isinstance(value, Mapping) else value


def _is_text(value: Any) -> bool:
    """Returns whether a value is a string, and no JSON of messages."""
    value = unwrap(value)
    return isinstance(value, str) and not MESSAGE_LIST.match(value)


def same_value(a: Any, b: Any) -> bool:
    """Returns whether two values of a row are the same, as far as that shows without decoding."""
    if a is b:
        return True
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        a, b = present_fields(a), present_fields(b)
        return a.keys() == b.keys() and all(same_value(a[key], b[key]) for key in a)
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_value, a, b))
    return bool(a == b)


def read_row(example: object) -> dict[str, Any]:
    """Returns the fields of an example, of which a collator takes its own before the sides."""
    return dict(row_of(example))
