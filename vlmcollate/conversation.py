"""The form that every example takes inside the library: messages of typed parts.

`read_example` converts an example to this form once; `vlmcollate.formats` has
a module for each format. It never writes to the caller's objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs

MediaKind = Literal["image", "video", "audio"]


@attrs.frozen
class TextPart:
    """A piece of text inside a message.

    Attributes:
        text: The text.
        weight: The weight of its tokens in the loss; `None` has that of the message.
    """

    text: str
    weight: float | None = None


@attrs.frozen(eq=False)
class MediaPart:
    """An image, a video or an audio item inside a message.

    Attributes:
        kind: The kind of media.
        source: The media in the example: an object, a path, bytes or a URI.
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
        is_prefix: Whether the model continues the message, which is the last one; its text does
            not train, and no end is written behind it.
        is_string: Whether the content was one string, which a template may write unlike a list.
        extra: Further keys for the template, such as `tool_calls`, `reasoning_content` and `name`.
    """

    role: str
    content: tuple[Part, ...]
    weight: float = 1.0
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    is_prefix: bool = False
    is_string: bool = attrs.field(default=False, eq=False)

    @property
    def is_assistant(self) -> bool:
        """Whether the model learns to produce this message."""
        return self.role == "assistant"

    @property
    def text(self) -> str:
        """The text of all parts, without media."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@attrs.frozen(kw_only=True)
class Conversation:
    """A conversation in the form that the library uses.

    Attributes:
        messages: The messages in order.
        tools: The JSON schemas of the tools for the template, or `None`.
        template_kwargs: Further variables for the template.
        format: The name of the format that was read.
        unread: The fields of the example that nothing reads, by their path.
        is_plain_text: Whether it is one plain text with media, which no chat template writes.
    """

    messages: tuple[Message, ...]
    tools: list[Any] | None = None
    template_kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    format: str = attrs.field(default="messages", eq=False)
    unread: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
    is_plain_text: bool = False

    @property
    def media(self) -> Iterator[tuple[int, MediaPart]]:
        """Every media part with the index of its message, in order."""
        for index, message in enumerate(self.messages):
            for part in message.content:
                if isinstance(part, MediaPart):
                    yield index, part
