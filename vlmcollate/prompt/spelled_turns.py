"""Reports answers that spell the header or the end of their turn, which the template writes."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence

from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.errors import SpelledTokenWarning, stack_level
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.tokens.vocabulary import Vocabulary

_SHORTEST = 3


def report_spelled_turns(
    conversation: Conversation, openers: Collection[str], stop_tokens: Sequence[str]
) -> None:
    """Warns of answers that begin with a header or end with a stop token as text.

    Args:
        conversation: The conversation.
        openers: The first tokens of turn headers.
        stop_tokens: The tokens that may end a turn.
    """
    stops, starts = tuple(filter(None, stop_tokens)), tuple(filter(None, openers))
    for message in conversation.messages:
        if not (message.is_assistant and message.weight):
            continue
        texts = [part.text for part in message.content if isinstance(part, TextPart)]
        if texts and texts[-1].rstrip().endswith(stops) and not message.is_prefix:
            _warn(message, "ends", next(s for s in stops if texts[-1].rstrip().endswith(s)))
        if texts and texts[0].lstrip().startswith(starts):
            _warn(message, "begins", next(s for s in starts if texts[0].lstrip().startswith(s)))


def report_spelled_headers(
    conversation: Conversation,
    rendering: Rendering,
    vocabulary: Vocabulary,
    roles: Collection[str],
    stop_tokens: Sequence[str],
) -> None:
    """Warns of answers that begin with the words, or the last token, of their own header.

    Args:
        conversation: The conversation.
        rendering: Its prompt.
        vocabulary: The tokenizer's tokens.
        roles: The control tokens that belong to headers; none if others are reported already.
        stop_tokens: The tokens that may end a turn.
    """
    for message, header in _headers(conversation, rendering):
        tokens = list(vocabulary.pattern.finditer(header))
        last = tokens[-1].group() if tokens else ""
        is_words = not last or last in stop_tokens
        shown = header[tokens[-1].end() if tokens else 0 :].strip() if is_words else last
        if is_words and (len(shown) < _SHORTEST or shown[-1].isalnum()):
            continue  # a word alone, with which an answer may begin
        if (is_words or last in roles) and _text(message).lstrip().startswith(shown):
            _warn(message, "begins", shown)


def _headers(conversation: Conversation, rendering: Rendering) -> Iterator[tuple[Message, str]]:
    """Yields the answers that train, with the template's text before their turns."""
    ends = sorted(span.end for span in (*rendering.caller_spans, *rendering.media))
    for turn in rendering.turns:
        message = conversation.messages[turn.message]
        if message.weight:
            before = bisect_right(ends, turn.start)
            yield message, rendering.text[ends[before - 1] if before else 0 : turn.start]


def _text(message: Message) -> str:
    return next((part.text for part in message.content if isinstance(part, TextPart)), "")


def _warn(message: Message, verb: str, text: str) -> None:
    warnings.warn(
        f"the text of a message of the role {message.role!r} {verb} with {text!r}, which is "
        "encoded as plain text and trains letter by letter; remove it from the data, since the "
        'chat template writes it (special_tokens_in_text="error" refuses special tokens)',
        SpelledTokenWarning,
        stacklevel=stack_level(),
    )
