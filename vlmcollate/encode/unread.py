"""The fields and roles of messages, and the variables, that no chat template reads."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConfigError, ConversationError, UnreadKeyWarning, stack_level
from vlmcollate.formats.roles import ROLES, TRIED
from vlmcollate.formats.trainable import find_trainable, is_media_key
from vlmcollate.formats.unread import METADATA, UnreadPolicy, report_unread

_BY_OMISSIONS = frozenset({"tool_calls", "reasoning_content", "reasoning", "thinking"})
"""Fields whose omission the template's rendering shows."""
KNOWN_ROLES = frozenset({*ROLES.values(), *TRIED})


def report_unread_by_template(
    conversation: Conversation, prompt: str, template: str, policy: UnreadPolicy
) -> None:
    """Refuses, or warns of, fields, roles and variables that the template does not name.

    Args:
        conversation: The conversation.
        prompt: Its prompt.
        template: The chat template; empty if there is none.
        policy: See `report_unread`.

    Raises:
        ConversationError: A role is unknown, or a field must not be ignored.
    """
    if policy == "allow":
        return
    unread: dict[str, Any] = {}
    for i, message in enumerate(conversation.messages):
        if message.role not in KNOWN_ROLES and not _names_role(template, message.role):
            near = difflib.get_close_matches(message.role, [*ROLES, *TRIED], n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            problem = (
                f"has the role {message.role!r}, which neither the format nor the chat template "
                f'knows; {hint}rename it, or set on_unread="allow"'
            )
            if policy != "warn":
                raise ConversationError(problem, where=f"messages[{i}].role")
            warnings.warn(f"a message {problem}", UnreadKeyWarning, stacklevel=stack_level())
        for key, value in message.extra.items():
            path = f"messages[{i}].{key}"
            if key in METADATA:
                unread.update(find_trainable(value, path))
            elif key not in _BY_OMISSIONS and not (
                _reads_field(template, key) and _is_written(value, prompt)
            ):
                unread[path] = value
    for name in _unnamed(conversation.template_kwargs, template):
        unread[f"chat_template_kwargs.{name}"] = conversation.template_kwargs[name]
    if unread:
        report_unread(unread, policy)


def report_unread_variables(
    variables: Mapping[str, Any], template: str, policy: UnreadPolicy
) -> None:
    """Refuses, or warns of, variables of a collator that the template does not name.

    Args:
        variables: The collator's `template_kwargs`.
        template: The chat template; empty if there is none.
        policy: See `report_unread`.

    Raises:
        ConfigError: A variable must not be ignored.
    """
    for name in _unnamed(variables, template):
        try:
            report_unread({f"template_kwargs.{name}": variables[name]}, policy)
        except ConversationError as error:
            raise ConfigError(
                f"template_kwargs: the chat template reads no variable {name!r}; rename or remove "
                'it, or set on_unread="warn"'
            ) from error


def _unnamed(variables: Iterable[str], template: str) -> list[str]:
    """Returns the variables that a template does not name."""
    return [n for n in variables if re.search(rf"\b{re.escape(n)}\b", template) is None]


def _is_written(value: Any, prompt: str) -> bool:
    """Returns whether the prompt holds a text; a template may read a field of one role alone."""
    return not isinstance(value, str) or value.strip() in prompt


@lru_cache(maxsize=4096)
def _names_role(template: str, role: str) -> bool:
    return re.search(rf"['\"]{re.escape(role)}['\"]", template) is not None


@lru_cache(maxsize=4096)
def _reads_field(template: str, key: str) -> bool:
    """Returns whether a template reads a field of a message, and not only of its parts."""
    name = re.escape(key)
    reads = rf"\.{name}\b|\[['\"]{name}['\"]\]|['\"]{name}['\"] (not )?in m|get\(['\"]{name}['\"]"
    if is_media_key(key) or key == "text":
        reads = rf"\b(message|msg|m)(\.{name}\b|\[['\"]{name}['\"]\])"
    return re.search(reads, template) is not None
