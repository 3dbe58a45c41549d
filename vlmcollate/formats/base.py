"""What a dataset format is."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

import attrs

from vlmcollate.conversation import Conversation, MediaPart, Message, TextPart
from vlmcollate.errors import ConversationError, UnreadKeyWarning, stack_level
from vlmcollate.formats.fields import Fields, parsed, present_fields
from vlmcollate.formats.media_columns import TAG, MediaColumns
from vlmcollate.formats.pairs import is_text
from vlmcollate.formats.reading import Reading
from vlmcollate.formats.roles import ROLES
from vlmcollate.formats.tools import read_tools
from vlmcollate.formats.trainable import is_mask_key
from vlmcollate.formats.variables import problem_with
from vlmcollate.plain_values import describe, plain, plain_text, show_all, unwrap
from vlmcollate.validators import WithOptions, a_folder, an_instance_of

_SYSTEM = ("system", "system_prompt", "system_message")
_TOOLS = ("tools", "functions")
_VARIABLES = "chat_template_kwargs"
_KEPT_BY_TRAINER = frozenset({"label", "label_ids", "labels"})
"""The columns that a `Trainer` keeps for any model."""


@attrs.frozen(kw_only=True)
class DatasetFormat(WithOptions, ABC):
    """How the rows of a dataset become conversations.

    A format of your own has a `name`, recognises its rows in `reads`, and makes messages of their
    fields in `read_fields`. Media columns, a system prompt, tools and `chat_template_kwargs` beside
    the messages are read for it.

    Args:
        media_root: The folder of relative media paths; `None` leaves them as they are.
        keep_none_arguments: Whether to keep arguments of tool calls whose value is `None`. By
            default they are dropped, since Arrow adds `None` for the arguments of other calls.

    Example:
        >>> class Riddles(DatasetFormat):
        ...     name = "riddles"
        ...     def reads(self, example):
        ...         return "riddle" in example
        ...     def read_fields(self, fields, reading):
        ...         return question_and_answer(fields.pop("riddle"), fields.pop("solution"))
        >>> from vlmcollate.formats.pairs import question_and_answer
        >>> read = Riddles().read({"riddle": "What is it?", "solution": "A cat."})
        >>> [message.role for message in read.messages]
        ['user', 'assistant']
    """

    name: ClassVar[str]
    """The name under which `collator_for(processor, format=...)` finds the format."""

    columns: ClassVar[tuple[str, ...]] = ()
    """The columns of text that every row of the format has, for errors; may be empty."""

    is_automatic: ClassVar[bool] = True
    """Whether `format="auto"` tries the format."""
    is_plain_text: ClassVar[bool] = False
    """Whether a row is one plain text, which no chat template writes."""

    media_root: str | Path | None = attrs.field(
        default=None, validator=attrs.validators.optional(a_folder)
    )
    keep_none_arguments: bool = attrs.field(default=False, validator=an_instance_of(bool))

    @abstractmethod
    def reads(self, example: Mapping[str, Any]) -> bool:
        """Returns whether a row has this format."""

    @abstractmethod
    def read_fields(self, fields: Fields, reading: Reading) -> tuple[Message, ...]:
        """Reads the messages of a row, and every field that belongs to them.

        Args:
            fields: The fields of the row; those that are left are reported as unread.
            reading: The media columns, for empty media parts.

        Raises:
            ConversationError: A field is wrong.
        """

    @final
    def read(self, example: object) -> Conversation:
        """Reads a row.

        Args:
            example: The row.

        Returns:
            The conversation, with the fields that were not read.

        Raises:
            ConversationError: A field is wrong.
        """
        row = row_of(example)
        if not self.reads(row):
            self.check_columns(row)
            raise ConversationError(
                f"is not in the format {self.name!r}: found a dict with {show_all(row)}; set "
                'format="auto", or the name of its format'
            )
        fields = Fields(row, "")
        reading = Reading(MediaColumns.read(fields), self.keep_none_arguments)
        variables: Mapping[str, Any] = {}
        system = tools = None
        if not self.is_plain_text:
            variables, system = _pop_variables(fields), _pop_system(fields)
            tools = _pop_tools(fields)
        messages = _with_system(self.read_fields(fields, reading), system)
        messages = reading.columns.place(messages)
        if self.media_root is not None:
            messages = tuple(_rooted(message, Path(self.media_root)) for message in messages)
        reading.leave(fields, has_media=any(map(_holds_media, messages)))
        is_repeated = _repeats_of(messages)
        conversation = Conversation(
            messages=messages,
            tools=tools or None,
            template_kwargs=variables,
            format=self.name,
            unread={k: v for k, v in reading.unread.items() if not is_repeated(k, v)},
            is_plain_text=self.is_plain_text,
        )
        _warn(conversation, reading)
        return conversation

    @final
    def check_columns(self, row: Mapping[str, Any]) -> None:
        """Refuses a row with all columns of the format, of which one holds no text.

        Raises:
            ConversationError: The error names the column.
        """
        if not self.columns or not all(unwrap(row.get(key)) is not None for key in self.columns):
            return
        for key in self.columns:
            if not is_text(row, key):
                raise ConversationError(
                    f"expected a string in the format {self.name!r}, found "
                    f"{describe(unwrap(row[key]))}; convert it to the text to train on, or name "
                    "another format",
                    where=key,
                )


def row_of(example: object) -> Mapping[Any, Any]:
    """Returns the fields of an example; a bare list is one of messages.

    Raises:
        ConversationError: The example is neither, or has no field of a conversation.
    """
    row = parsed(unwrap(example), "", "{[")
    if row is None:
        raise ConversationError(
            "the example is not a conversation: found None, expected a list of messages or a dict; "
            "drop it from the dataset"
        )
    if type(row).__name__ in _TABLES:
        raise ConversationError(
            f"the example is not a conversation: found a {type(row).__name__}, expected one row; "
            "pass the dicts of its to_dict('records') or to_pylist()"
        )
    if type(row).__name__ == "MixtureRow":
        raise ConversationError(
            "the example is not a conversation: found a row of a mixture; collate it with "
            "mixture.collator(collator)"
        )
    if not isinstance(row, Mapping):
        return {"messages": row}
    fields = present_fields(row)
    if fields.keys() <= _KEPT_BY_TRAINER:
        raise ConversationError(
            f"the example is not a conversation: found a dict with {show_all(fields)}, expected "
            "messages; set remove_unused_columns=False if it comes from a Trainer, which removes "
            "the columns that the model's forward does not name"
        )
    return fields


_TABLES = frozenset({"DataFrame", "Table", "RecordBatch"})
"""The classes of pandas, polars and Arrow that hold several rows."""


def _pop_variables(fields: Fields) -> Mapping[str, Any]:
    """The variables of the chat template."""
    variables = plain(parsed(fields.pop(_VARIABLES) or {}, _VARIABLES, "{"), _VARIABLES)
    if not isinstance(variables, Mapping):
        raise ConversationError(
            f"expected a dict of template variables, found {describe(variables)}", where=_VARIABLES
        )
    if problem := problem_with(variables):
        raise ConversationError(problem, where=_VARIABLES)
    return variables


def _pop_tools(fields: Fields) -> list[Any] | None:
    """The tools beside the messages; `"auto"` leaves the choice to the model, as does no choice."""
    if fields.get("tool_choice") == "auto":
        fields.pop("tool_choice")
    found = fields.named(*_TOOLS)
    return read_tools(fields.pop(found[0]), found[0]) if found else None


def _pop_system(fields: Fields) -> tuple[Message, str] | None:
    """The system prompt beside the messages, if it is not empty, and its column."""
    for key in fields.named(*_SYSTEM):
        if isinstance(fields.get(key), str):
            text = plain_text(fields.pop(key), key)
            if text:
                return Message(role="system", content=(TextPart(text),), is_string=True), key
    return None


def _with_system(
    messages: tuple[Message, ...], given: tuple[Message, str] | None
) -> tuple[Message, ...]:
    if given is None:
        return messages
    (system, column), first = given, messages[0]
    if first.role not in ("system", "developer"):
        return (system, *messages)
    if first.text != system.text:
        raise ConversationError(
            "differs from the system message of the conversation; keep one", where=column
        )
    return messages


def _repeats_of(messages: tuple[Message, ...]) -> Any:
    """Returns a test of whether a column repeats a part of the conversation."""
    said = {(message.role, message.text.strip()) for message in messages}
    texts = [text for _, text in said]

    def is_repeated(key: str, value: Any) -> bool:
        value = unwrap(value)
        if is_mask_key(key.rpartition(".")[2]):
            return False
        if "." in key and not isinstance(value, list):
            return False
        if isinstance(value, str):
            words = TAG.sub("", value).strip()
            inside = len(words) >= _SHORTEST and any(words in text for text in texts)
            return bool(words) and (words in texts or inside)
        return isinstance(value, list) and bool(value) and said.issuperset(map(_said, value))

    return is_repeated


_SHORTEST = 8
"""Shorter texts stand in longer ones by chance."""


def _said(item: Any) -> tuple[str, str]:
    """The role and the text of an item that is a message and nothing else."""
    item = unwrap(item)
    keys = item.keys() if isinstance(item, Mapping) else set()
    for role, content in (("role", "content"), ("from", "value")):
        if keys == {role, content} and isinstance(item[content], str):
            return ROLES.get(str(item[role]), str(item[role])), item[content].strip()
    return "", ""


def _holds_media(message: Message) -> bool:
    return any(isinstance(part, MediaPart) for part in message.content)


def _rooted(message: Message, root: Path) -> Message:
    parts = [
        attrs.evolve(part, source=_under(part.source, root))
        if isinstance(part, MediaPart)
        else part
        for part in message.content
    ]
    return attrs.evolve(message, content=tuple(parts))


_PLACES = frozenset({"path", "image", "video", "audio", "array"})


def _under(source: Any, root: Path) -> Any:
    if isinstance(source, Mapping):
        return {k: _under(v, root) if k in _PLACES else v for k, v in source.items()}
    if isinstance(source, list):
        return [_under(item, root) for item in source]
    is_path = isinstance(source, str) and "://" not in source and not source.startswith("data:")
    return str(root / source) if is_path or isinstance(source, Path) else source


def _warn(conversation: Conversation, reading: Reading) -> None:
    """Warns of arguments that were dropped, and of tags without media."""
    if reading.dropped_arguments:
        warnings.warn(
            "arguments of tool calls whose value is None are dropped, as Arrow adds them for the "
            "arguments of other calls; set keep_none_arguments=True in the format to keep them",
            UnreadKeyWarning,
            stacklevel=stack_level(),
        )
    for message in conversation.messages:
        for part in message.content:
            tag = TAG.search(part.text) if isinstance(part, TextPart) else None
            if tag is not None:
                warnings.warn(
                    f"a text holds {tag.group()}, but the example has no media for it, so the tag "
                    "stays text; add the column of media, or remove the tag",
                    UnreadKeyWarning,
                    stacklevel=stack_level(),
                )
