"""Questions and answers in columns of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.conversation import Message, TextPart
from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import Fields, as_list
from vlmcollate.plain_values import describe, plain_text, unwrap

ANSWERS = {
    "prompt": "completion",
    "question": "answer",
    "query": "response",
    "instruction": "output",
    "prefix": "suffix",
}
"""The columns of a question, and the column of the answer in the same format."""
MESSAGE_COLUMNS = ("messages", "conversation", "chat", "conversations", "texts")


def missing_answer(row: Mapping[str, Any]) -> str | None:
    """Returns the column that an answer would have, if a row has a question without one."""
    if any(key in row for key in (*MESSAGE_COLUMNS, "response", *ANSWERS.values())):
        return None
    return next((ANSWERS[key] for key in ANSWERS if key in row), None)


def question_and_answer(question: Any, answer: Any) -> tuple[Message, ...]:
    """Returns the two messages of a question and its answer."""
    return message("user", question, "question"), message("assistant", answer, "answer")


def message(role: str, text: object, where: str) -> Message:
    """Returns a message of one text.

    Args:
        role: Its role.
        text: Its text.
        where: The path of the text, for errors.

    Raises:
        ConversationError: The text is no string.
    """
    text = unwrap(text)
    if not isinstance(text, str):
        raise ConversationError(f"expected a string, found {describe(text)}", where=where)
    return Message(role=role, content=(TextPart(plain_text(text, where)),), is_string=True)


def read_history(fields: Fields) -> tuple[Message, ...]:
    """Reads the earlier turns under `history`, each a list of a question and its answer.

    Raises:
        ConversationError: A turn is anything else.
    """
    turns = as_list(fields.pop("history") or [], "history")
    found: list[Message] = []
    for i, turn in enumerate(turns):
        pair = as_list(turn, f"history[{i}]")
        if len(pair) != 2:  # a question and an answer
            raise ConversationError(
                f"expected a question and an answer, found {len(pair)} items", where=f"history[{i}]"
            )
        for number, (role, text) in enumerate(zip(("user", "assistant"), pair, strict=True)):
            found.append(message(role, text, f"history[{i}][{number}]"))
    return tuple(found)


def is_text(fields: Any, *keys: str) -> bool:
    """Returns whether a row holds strings under some keys."""
    return all(isinstance(unwrap(fields.get(key)), str) for key in keys)
