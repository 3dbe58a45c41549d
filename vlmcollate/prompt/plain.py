"""Prompts of models without a chat template, which give one answer to one prompt."""

from __future__ import annotations

import attrs

from vlmcollate.conversation import Conversation, MediaKind, Message, TextPart
from vlmcollate.errors import ConversationError
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.rendering import CallerSpan, MediaSpan, Rendering


@attrs.define
class PromptWriter:
    """Writes a prompt piece by piece, and records the origin of each piece."""

    _text: str = ""
    _given: list[CallerSpan] = attrs.field(factory=list)
    _media: list[MediaSpan] = attrs.field(factory=list)
    _turns: list[Span] = attrs.field(factory=list)

    def write(self, text: str) -> None:
        """Writes text of the model's own format, which may contain control tokens."""
        self._text += text

    def give(self, text: str, message: int) -> None:
        """Writes a message's words, which never become control tokens."""
        self._given.append(CallerSpan(len(self._text), len(self._text) + len(text), message))
        self._text += text

    def place(self, placeholder: str, kind: MediaKind, message: int) -> None:
        """Writes the placeholder for one media item, which may be empty."""
        start = len(self._text)
        self._text += placeholder
        self._media.append(MediaSpan(start, len(self._text), message, kind))

    def answer(self, text: str, stop: str, message: int) -> None:
        """Writes an assistant message and the token that ends it."""
        start = len(self._text)
        self.give(text, message)
        self._text += stop
        self._turns.append(Span(start, len(self._text), message))

    def finish(self) -> Rendering:
        """Returns the prompt."""
        return Rendering(
            text=self._text,
            caller_spans=tuple(self._given),
            media=tuple(self._media),
            turns=tuple(self._turns),
        )


def prompt_and_answer(conversation: Conversation) -> tuple[str, str]:
    """Returns the text of a user's message and of the answer to it.

    Raises:
        ConversationError: The conversation is more than these two messages.
    """
    roles = [message.role for message in conversation.messages]
    if roles != ["user", "assistant"]:
        raise ConversationError(
            f"this model takes one user message and one answer, found the roles {roles}; split the "
            "conversation, and move the text of a system message into the user's"
        )
    prompt, answer = conversation.messages
    if any(not isinstance(part, TextPart) for part in answer.content):
        raise ConversationError(
            "the answer holds media, but only text can be trained; remove it", where="messages[1]"
        )
    if any(isinstance(p, TextPart) and p.weight is not None for p in answer.content):
        raise ConversationError(
            "the parts of this answer have weights, but this model takes one answer as a whole; "
            "give the weight to the message",
            where="messages[1]",
        )
    if answer.extra or prompt.extra:
        keys = sorted({*answer.extra, *prompt.extra})
        raise ConversationError(f"the messages have keys that this model ignores: {keys}")
    if conversation.tools:
        raise ConversationError("this model takes no tools; remove them", where="tools")
    return _text_of(prompt), _text_of(answer)


def _text_of(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextPart))
