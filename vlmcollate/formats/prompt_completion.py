"""Examples that hold a prompt and a completion, of which only the completion trains.

`{"prompt": "What is it?", "completion": "A cat."}`, each a string or a list of messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vlmcollate.conversation import Message
from vlmcollate.formats.media_lists import MediaLists
from vlmcollate.formats.messages import read_messages
from vlmcollate.plain_values import unwrap


def is_format_of(fields: Mapping[str, Any]) -> bool:
    """Whether an example has this format."""
    return "prompt" in fields and "completion" in fields


def read(fields: Mapping[str, Any], lists: MediaLists) -> tuple[Message, ...]:
    """Reads the messages of an example.

    Args:
        fields: The fields of the example.
        lists: Its media lists, for empty media parts.

    Returns:
        The messages of the prompt, with weight 0, and those of the completion.

    Raises:
        ConversationError: If a message is wrong, or the prompt or the completion has none.
    """
    prompt = read_messages(_as_messages(fields["prompt"], "user"), "prompt", lists)
    answer = read_messages(_as_messages(fields["completion"], "assistant"), "completion", lists)
    return (*(attrs.evolve(message, weight=0.0) for message in prompt), *answer)


def _as_messages(value: object, role: str) -> object:
    value = unwrap(value)
    return [{"role": role, "content": value}] if isinstance(value, str) else value
