"""The form that every example takes inside the library: messages of typed parts.

`Conversation.from_example` converts what datasets hold to this form, once; `vlmcollate.formats` has
a module for each format. It never writes to the caller's objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

MediaKind = Literal["image", "video", "audio"]


@attrs.frozen
class TextPart:
    """A piece of text inside a message."""

    text: str


@attrs.frozen(eq=False)
class MediaPart:
    """An image, a video or an audio inside a message.

    Attributes:
        kind: The kind of media.
        source: The media as the example holds it: an object, a path, bytes, a URI.
        where: Its path in the example, such as `messages[0].content[1]`.
    """

    kind: MediaKind
    source: Any
    where: str


Part = TextPart | MediaPart


@attrs.frozen(kw_only=True)
class Message:
    """One message.

    Attributes:
        role: The role, as the chat template spells it.
        content: The parts in order; empty if the message only calls tools.
        weight: The weight of its tokens in the loss; 0 trains none of them.
        extra: Further keys for the template, such as `tool_calls`, `reasoning_content` and `name`.
    """

    role: str
    content: tuple[Part, ...]
    weight: float = 1.0
    extra: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def is_assistant(self) -> bool:
        """Whether the model learns to produce this message."""
        return self.role == "assistant"


@attrs.frozen(kw_only=True)
class Conversation:
    """A conversation in the form that the library works on.

    Attributes:
        messages: The messages in order.
        tools: The JSON schemas of the tools for the template, or `None`.
        template_kwargs: Further variables for the template.
    """

    messages: tuple[Message, ...]
    tools: list[Any] | None = None
    template_kwargs: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def media(self) -> Iterator[tuple[int, MediaPart]]:
        """Every media part with the index of its message, in order."""
        for index, message in enumerate(self.messages):
            for part in message.content:
                if isinstance(part, MediaPart):
                    yield index, part

    @classmethod
    def from_example(cls, example: object) -> Conversation:
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
            >>> Conversation.from_example([{"role": "user", "content": "Hi"}]).messages[0].content
            (TextPart(text='Hi'),)
        """
        # imported here, because the formats are above the types that they make
        from vlmcollate.formats import read_example

        return read_example(example)


def map_strings(
    value: Any,
    change: Callable[[str], str],
    change_key: Callable[[str], str],
    fixed: Sequence[str] = (),
) -> Any:
    """Copies a JSON-like value and changes every string in it.

    Args:
        value: The value.
        change: Changes a string.
        change_key: Changes a key, and a string under one of the `fixed` keys.
        fixed: The keys whose values a template may compare with literals.

    Returns:
        The changed copy; tuples become lists.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            change_key(key) if isinstance(key, str) else key: map_strings(
                item, change_key if key in fixed else change, change_key, fixed
            )
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [map_strings(item, change, change_key, fixed) for item in value]
    return value
