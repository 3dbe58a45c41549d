"""The spellings of roles."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vlmcollate.errors import ConversationError
from vlmcollate.plain_values import describe

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "system": ("system",),
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard"),
    "tool": ("tool", "observation", "tool_response", "function_response"),
}
ROLES: Mapping[str, str] = {
    spelling: role for role, spellings in _SPELLINGS.items() for spelling in spellings
}
"""Each spelling with the role of the chat template."""
CALLS = frozenset({"function_call", "tool_call"})
"""The roles of messages whose content is the JSON of an assistant's calls."""
TRIED = frozenset({"developer", "function", "ipython", "environment"})
"""Further roles of published templates, which keep their spelling."""
RESULTS = frozenset({"tool", "function", "ipython", "environment"})
"""The roles of messages whose content is the result of a call."""
_ROLE = re.compile(r"[A-Za-z][\w \-]*")


def read_role(value: object, where: str) -> str:
    """Returns a role in the spelling of chat templates; an unknown role as it is.

    Raises:
        ConversationError: It is no name of a role.
    """
    if not isinstance(value, str) or not _ROLE.fullmatch(value):
        raise ConversationError(
            f"expected a role such as 'user' or 'assistant', found {describe(value)}", where=where
        )
    return ROLES.get(value.lower(), value)
