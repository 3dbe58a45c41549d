"""The two conversations of a preference, and the messages with which both begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from vlmcollate.conversation import Conversation, MediaPart, Message, Part, TextPart
from vlmcollate.errors import ConversationError, SampleError
from vlmcollate.preference.rows import SIDES, SideRow, same_value


@attrs.frozen(kw_only=True, eq=False)
class Sides:
    """Two conversations with one prompt.

    Attributes:
        chosen: The conversation with the chosen answer.
        rejected: The conversation with the rejected answer. Its media parts of the prompt are those
            of `chosen`, unless their media differs.
        prompt_length: The number of messages of the prompt, none of which trains.
    """

    chosen: Conversation
    rejected: Conversation
    prompt_length: int


def read_sides(rows: tuple[SideRow, SideRow], read: Callable[[object], Conversation]) -> Sides:
    """Reads both sides of a row.

    Args:
        rows: The row of each side.
        read: The collator's reading of one row.

    Raises:
        SampleError: A side cannot be read, or the two do not begin alike and end in two answers;
            the path of the error begins with the side.
    """
    found = []
    for row in rows:
        try:
            side = read(row.row)
            messages = tuple(message.placed(row.place) for message in side.messages)
            found.append(attrs.evolve(side, messages=messages))
        except SampleError as error:
            raise type(error)(error.problem, where=row.place(error.where)) from error.__cause__
    chosen, rejected = found
    _check_stated(rows[0].stated, chosen)
    return common_prompt(chosen, rejected, media_differs=any(row.has_own_media for row in rows))


def _check_stated(stated: Mapping[str, str], conversation: Conversation) -> None:
    said = {message.text.strip() for message in conversation.messages}
    for column, text in stated.items():
        if text.strip() not in said:
            raise ConversationError(
                "differs from the prompt of 'chosen' and 'rejected', which hold whole "
                "conversations; remove it, or leave only the answers in the two",
                where=column,
            )


def common_prompt(
    chosen: Conversation, rejected: Conversation, *, media_differs: bool = False
) -> Sides:
    """Finds the messages with which two conversations begin.

    Args:
        chosen: One conversation.
        rejected: The other.
        media_differs: Whether the media of the prompts may differ, where their texts do not.

    Raises:
        ConversationError: They have no common prompt, or one of them has no answer of its own.
    """
    if chosen.is_plain_text or rejected.is_plain_text:
        raise ConversationError(
            f"is one plain text: found the format {chosen.format!r}, expected a prompt and two "
            "answers; choose another format"
        )
    if chosen.tools != rejected.tools or chosen.template_kwargs != rejected.template_kwargs:
        raise ConversationError(
            "the two sides have different tools or variables of the chat template; give them once, "
            "beside the sides",
            where="rejected",
        )
    a, b = chosen.messages, rejected.messages
    length = _number_alike(a, b, with_media=False)
    same = _number_alike(a[:length], b[:length], with_media=True)
    if same < length and not media_differs:
        raise ConversationError(
            f"has other media in its message {same} than the other side; give both sides the same, "
            "or columns such as 'rejected_images' beside 'messages'",
            where="rejected",
        )
    if same < length == len(a) == len(b):  # one answer to two images
        length = 1 + max(k for k, message in enumerate(a) if not message.is_assistant)
    _check(a, b, length)
    prompt = tuple(message.untrained() for message in a[:length])
    other = prompt
    if same < length:
        other = tuple(message.untrained() for message in b[:length])
    return Sides(
        chosen=attrs.evolve(chosen, messages=(*prompt, *a[length:])),
        rejected=attrs.evolve(rejected, messages=(*other, *b[length:])),
        prompt_length=length,
    )


def _check(a: tuple[Message, ...], b: tuple[Message, ...], length: int) -> None:
    if length == len(a) == len(b):
        raise ConversationError("is the same as the chosen side; drop the row", where="rejected")
    if length == 0:
        raise ConversationError(
            f"has no prompt in common with the chosen side: found {_words(b[0])} as its first "
            f"message, expected {_words(a[0])}; make both begin with the same messages",
            where="rejected",
        )
    for side, messages in zip(SIDES, (a, b), strict=True):
        if len(messages) == length:
            raise ConversationError(
                "has no answer of its own: it is the beginning of the other side; drop the row",
                where=side,
            )
        if not messages[-1].is_assistant:
            raise ConversationError(
                f"ends with a message of the {messages[-1].role!r} role, expected an answer; "
                "remove what follows the last answer",
                where=side,
            )
        if not messages[length].is_assistant:
            raise ConversationError(
                f"has another prompt than the other side: found {_words(messages[length])} as its "
                f"message {length}, expected the first answer; give both sides one prompt",
                where=side,
            )


def _words(message: Message) -> str:
    text, media = message.text, sum(isinstance(part, MediaPart) for part in message.content)
    shown = f", with {media} media item(s)" if media else ""
    return f"{text[:40] + '...' if len(text) > 40 else text!r} ({message.role}{shown})"


def _number_alike(a: tuple[Message, ...], b: tuple[Message, ...], *, with_media: bool) -> int:
    """Returns the number of messages with which two conversations begin alike."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((k for k, (x, y) in pairs if not _alike(x, y, with_media)), min(len(a), len(b)))


def _alike(a: Message, b: Message, with_media: bool) -> bool:  # noqa: FBT001
    """Returns whether two messages are the same, or differ in the media of a prompt alone."""
    keys = [(m.role, m.extra, m.is_prefix, len(m.content)) for m in (a, b)]
    compares = with_media or a.is_assistant
    parts = zip(a.content, b.content, strict=False)
    return keys[0] == keys[1] and all(_alike_parts(x, y, compares) for x, y in parts)


def _alike_parts(a: Part, b: Part, with_media: bool) -> bool:  # noqa: FBT001
    if isinstance(a, TextPart) or isinstance(b, TextPart):
        return isinstance(a, TextPart) and isinstance(b, TextPart) and a.text == b.text
    if a.kind != b.kind or not with_media:
        return a.kind == b.kind
    return a.options == b.options and same_value(a.source, b.source)
