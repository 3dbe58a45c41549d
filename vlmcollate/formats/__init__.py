"""The formats of examples, each a module, and how an example becomes a `Conversation`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.conversation import Conversation, Message
from vlmcollate.errors import ConversationError
from vlmcollate.formats import messages, prompt_completion
from vlmcollate.formats.fields import present_fields
from vlmcollate.formats.media_lists import MediaLists
from vlmcollate.formats.simple import read_simple
from vlmcollate.formats.tools import read_tools
from vlmcollate.plain_values import describe, plain, show_all, unwrap

_FORMATS = (
    (messages.is_format_of, messages.read),
    (prompt_completion.is_format_of, prompt_completion.read),
)
"""How each format is recognised and read, in the order in which they are tried."""


def read_example(example: object) -> Conversation:
    """Converts an example to a conversation.

    Args:
        example: `{"messages": [...]}`, `{"conversation": [...]}`, a bare list of messages, or
            `{"prompt": ..., "completion": ...}`, of which only the completion trains.

            A message is `{"role": ..., "content": ...}` with a string or a list of parts as its
            content, and optionally `"train": bool` or `"weight": float` (0, or a normal number
            of float32).

            A dict may hold `"images"`, `"videos"` and `"audios"`, lists that fill the empty
            media parts in order; `"chat_template_kwargs"`, variables for the template; and
            `"tools"`. A tool is a JSON schema, or a function with type hints and a docstring,
            from which `transformers.utils.get_json_schema` makes one.

            Keys whose value is `None` count as absent, since Arrow adds them, also inside tools
            and tool calls. Arrays, Series and scalars of NumPy, pandas, Arrow and PyTorch count
            as the lists and values that they hold, and their missing values as `None`.

    Returns:
        The conversation. Of the caller's objects it refers only to the media.

    Raises:
        ConversationError: If the example has none of these formats, or holds a wrong value; the
            error names its path.

    Example:
        >>> read_example([{"role": "user", "content": "Hi"}]).messages[0].content
        (TextPart(text='Hi'),)
    """
    simple = read_simple(example)
    if simple is not None:
        return simple
    row = unwrap(example)
    fields = present_fields(row) if isinstance(row, Mapping) else {"messages": row}
    lists = MediaLists(fields)
    found = _read_messages(fields, lists)
    lists.check_used_up()
    variables = _read_variables(fields)
    tools = read_tools(fields["tools"]) if "tools" in fields else None
    return Conversation(messages=found, tools=tools or None, template_kwargs=variables)


def _read_messages(fields: Mapping[str, Any], lists: MediaLists) -> tuple[Message, ...]:
    for is_format_of, read in _FORMATS:
        if is_format_of(fields):
            return read(fields, lists)
    raise ConversationError(
        "the example is not a conversation: expected a list of messages, or a dict with "
        "'messages', 'conversation' or 'prompt' and 'completion'; found a dict with "
        f"{show_all(fields)}"
    )


def _read_variables(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The variables of the chat template."""
    where = "chat_template_kwargs"
    variables = plain(fields.get(where, {}), where)
    if not isinstance(variables, Mapping):
        raise ConversationError(
            f"expected a dict of template variables, found {describe(variables)}", where=where
        )
    return variables
