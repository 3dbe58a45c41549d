"""Prompts of models that take one prompt and give one answer, without a chat template."""

from __future__ import annotations

import attrs

from vlmcollate.conversation import Conversation, MediaKind, Message, TextPart
from vlmcollate.errors import ConversationError
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.rendering import MediaSpan, Rendering


@attrs.define
class PromptWriter:
    """Writes a prompt piece by piece, and remembers whose each piece is."""

    _text: str = ""
    _given: list[Span] = attrs.field(factory=list)
    _media: list[MediaSpan] = attrs.field(factory=list)
    _turns: list[Span] = attrs.field(factory=list)

    def write(self, text: str) -> None:
        """Text of the model's own format, in which control tokens are meant as such."""
        self._text += text

    def give(self, text: str, message: int) -> None:
        """A message's words, which become no control token."""
        self._given.append(Span(len(self._text), len(self._text) + len(text), message))
        self._text += text

    def place(self, placeholder: str, kind: MediaKind, message: int) -> None:
        """A media item's placeholder; an empty one where the text does not mention it."""
        start = len(self._text)
        self._text += placeholder
        self._media.append(MediaSpan(start, len(self._text), message, kind))

    def answer(self, text: str, stop: str, message: int) -> None:
        """An assistant message and the token that ends it."""
        start = len(self._text)
        self.give(text, message)
        self._text += stop
        self._turns.append(Span(start, len(self._text), message))

    def finish(self) -> Rendering:
        """The prompt."""
        return Rendering(
            text=self._text,
            caller_spans=tuple(self._given),
            media=tuple(self._media),
            turns=tuple(self._turns),
        )


def prompt_and_answer(conversation: Conversation) -> tuple[str, str]:
    """The text of a user's message and of the assistant's answer to it.

    Raises:
        ConversationError: The conversation is not just these two messages.
    """
    roles = [message.role for message in conversation.messages]
    if roles != ["user", "assistant"]:
        raise ConversationError(
            f"this model takes one user message and one answer, found the roles {roles}; split the "
            "conversation, and put a system message's words into the user's"
        )
    prompt, answer = conversation.messages
    if any(not isinstance(part, TextPart) for part in answer.content):
        raise ConversationError(
            "the answer holds media; only text can be trained", where="messages[1]"
        )
    if answer.extra or prompt.extra:
        keys = sorted({*answer.extra, *prompt.extra})
        raise ConversationError(f"the messages have keys that nothing would read: {keys}")
    return _text_of(prompt), _text_of(answer)


def _text_of(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextPart))
