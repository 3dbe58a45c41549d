"""Reports answers that spell the header or the end of their turn, which the template writes."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence

from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.errors import SpelledTokenWarning, stack_level


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


def _warn(message: Message, verb: str, token: str) -> None:
    warnings.warn(
        f"the text of a message of the role {message.role!r} {verb} with {token!r}, which is "
        "encoded as plain text and trains letter by letter; remove it from the data, since the "
        'chat template writes the token, or set special_tokens_in_text="error" to refuse it',
        SpelledTokenWarning,
        stacklevel=stack_level(),
    )
