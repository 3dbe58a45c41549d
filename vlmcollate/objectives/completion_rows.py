"""How a row with several completions becomes conversations with one prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, MediaPart, Message
from vlmcollate.errors import ConversationError, SampleError
from vlmcollate.formats.fields import as_list, is_hollow
from vlmcollate.formats.media_columns import ALL_COLUMNS
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
        ConversationError: The prompt or the completions are missing, one of them is no answer, or
            takes media that belongs to the prompt.
    """
    column = _column(fields)
    values = _values(fields[column], column)
    rest = {key: value for key, value in fields.items() if key != column}
    prompt = _read_prompt(rest, read)
    conversations = [_read_answer(rest, prompt, *value, read) for value in values]
    return Answers(
        conversations=conversations, prompt_length=len(prompt), names=[name for name, _ in values]
    )


def _column(fields: Mapping[str, Any]) -> str:
    """Returns the column of the completions."""
    names = [name for name in _COLUMNS if name in fields]
    if len(names) == 1 and "prompt" in fields:
        return names[0]
    raise ConversationError(
        f"has no prompt with completions: found a dict with {show_all(fields)}, expected "
        "'prompt' and one of 'completions' and 'completion'; rename the columns"
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
        if not isinstance(item, str | Mapping | list | tuple):
            raise ConversationError(
                f"expected a string, a message or a list of messages, found {describe(item)}",
                where=name,
            )
    return values


def _read_prompt(
    rest: Mapping[str, Any], read: Callable[[object], Conversation]
) -> tuple[Message, ...]:
    """Reads the prompt, with all media beside it."""
    try:
        return read({**rest, "completion": "."}).messages[:-1]
    except ConversationError as error:
        if error.where not in ALL_COLUMNS:
            raise
        raise ConversationError(
            f"{error.problem}; all of this column belongs to the prompt, and completions hold "
            "their media in their parts",
            where=error.where,
        ) from error.__cause__


def _read_answer(
    rest: Mapping[str, Any],
    prompt: tuple[Message, ...],
    name: str,
    value: Any,
    read: Callable[[object], Conversation],
) -> Conversation:
    """Reads a completion, which follows the messages of the prompt."""
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
    if _number_of_media(found.messages[: len(prompt)]) != _number_of_media(prompt):
        raise ConversationError(
            "takes media from a column beside the prompt, all of which belongs to the prompt; "
            "put the media of a completion into its parts",
            where=name,
        )
    placed = [message.placed(_place(name)) for message in answer]
    return attrs.evolve(found, messages=(*prompt, *placed))


def _number_of_media(messages: Sequence[Message]) -> int:
    return sum(isinstance(part, MediaPart) for message in messages for part in message.content)


def _place(name: str) -> Callable[[str | None], str | None]:
    def place(where: str | None) -> str | None:
        if where is None:
            return name
        is_placed = where.startswith(name) or not where.startswith("completion")
        return where if is_placed else name + where[len("completion") :]

    return place
