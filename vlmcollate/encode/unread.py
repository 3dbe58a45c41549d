"""The fields and roles of messages that no chat template reads."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import Any

from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConversationError
from vlmcollate.formats.roles import ROLES, TRIED
from vlmcollate.formats.unread import METADATA, UnreadPolicy, report_unread

_BY_OMISSIONS = frozenset({"tool_calls", "reasoning_content", "reasoning", "thinking"})
"""Fields whose omission the template's rendering shows."""
KNOWN_ROLES = frozenset({*ROLES.values(), *TRIED})


def report_unread_by_template(
    conversation: Conversation, template: str, policy: UnreadPolicy
) -> None:
    """Refuses, or warns of, fields and roles of messages that the template does not name.

    Args:
        conversation: The conversation.
        template: The chat template; empty if there is none.
        policy: See `report_unread`.

    Raises:
        ConversationError: A role is unknown, or a field must not be ignored.
    """
    if policy == "allow":
        return
    unread: dict[str, Any] = {}
    for i, message in enumerate(conversation.messages):
        if message.role not in KNOWN_ROLES and not _names(template, message.role):
            near = difflib.get_close_matches(message.role, [*ROLES, *TRIED], n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConversationError(
                f"has the role {message.role!r}, which neither the format nor the chat template "
                f'knows; {hint}rename it, or set on_unread="allow"',
                where=f"messages[{i}].role",
            )
        for key, value in message.extra.items():
            if key not in METADATA and key not in _BY_OMISSIONS and not _names(template, key):
                unread[f"messages[{i}].{key}"] = value
    if unread:
        report_unread(unread, policy)


@lru_cache(maxsize=4096)
def _names(template: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", template) is not None
