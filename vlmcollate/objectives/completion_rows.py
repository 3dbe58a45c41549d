"""How a row with several completions becomes conversations with one prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConversationError, SampleError
from vlmcollate.formats.fields import as_list, is_hollow
from vlmcollate.plain_values import describe, show_all, unwrap

_COLUMNS = ("completions", "completion")


@attrs.frozen(kw_only=True)
class Answers:
    """Conversations with one prompt.

    Attributes:
        conversations: The conversations, of which only the completions train.
        prompt_length: The number of messages of the prompt.
        names: The path of each completion in the dataset's row.
    """

    conversations: list[Conversation]
    prompt_length: int
    names: list[str]

    @property
    def places(self) -> list[Callable[[str | None], str | None]]:
        """For each conversation a function from a path in it to the path in the row."""
        return [_place(name) for name in self.names]


def read_answers(fields: Mapping[str, Any], read: Callable[[object], Conversation]) -> Answers:
    """Reads a row with a prompt and one or several completions.

    Args:
        fields: The fields of an example; see `row_of`.
        read: A function that reads a row with `prompt` and `completion`.

    Raises:
        ConversationError: The prompt or the completions are missing, or one of them is no answer.
    """
    names = [name for name in _COLUMNS if name in fields]
    if len(names) != 1 or "prompt" not in fields:
        raise ConversationError(
            f"has no prompt with completions: found a dict with {show_all(fields)}, expected "
            "'prompt' and 'completions'; rename the columns"
        )
    values = _values(fields[names[0]], names[0])
    rest = {key: value for key, value in fields.items() if key != names[0]}
    prompt = read({**rest, "completion": "."}).messages[:-1]
    conversations = []
    for name, value in values:
        try:
            found = read({**rest, "completion": [value] if isinstance(value, Mapping) else value})
        except SampleError as error:
            where = _place(name)(error.where)
            raise type(error)(error.problem, where=where) from error.__cause__
        answer = found.messages[len(prompt) :]
        if not (answer[0].is_assistant and answer[-1].is_assistant):
            raise ConversationError(
                f"is no answer: found the roles {[message.role for message in answer]}, expected "
                "the assistant's first and last; give a list of messages for each completion",
                where=name,
            )
        conversations.append(attrs.evolve(found, messages=(*prompt, *answer)))
    return Answers(
        conversations=conversations, prompt_length=len(prompt), names=[name for name, _ in values]
    )


def _values(value: Any, column: str) -> list[tuple[str, Any]]:
    """Returns the completions of a row, each with its path."""
    if column == "completion":
        values = [(column, unwrap(value))]
    else:
        items = [unwrap(item) for item in as_list(value, column)]
        values = [(f"{column}[{k}]", item) for k, item in enumerate(items)]
    for name, item in values or [(column, None)]:
        if is_hollow(item):
            raise ConversationError(
                f"is empty: found {describe(item)}, expected an answer; remove it", where=name
            )
    return values


def _place(name: str) -> Callable[[str | None], str | None]:
    def place(where: str | None) -> str | None:
        if where is None:
            return name
        own = "completion"
        return name + where[len(own) :] if where.startswith(own) else where

    return place
