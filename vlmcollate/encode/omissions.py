"""Reports the parts of a conversation that a chat template omits or changes."""

from __future__ import annotations

import warnings
from typing import Literal

from vlmcollate.errors import ConversationError, TemplateOmissionWarning, stack_level
from vlmcollate.prompt.rendering import Rendering

OmissionPolicy = Literal["warn", "raise", "allow"]


def report_omissions(rendering: Rendering, policy: OmissionPolicy) -> None:
    """Warns of, or refuses, a prompt that omits or changes messages.

    Raises:
        ConversationError: The policy is `"raise"`, and a part is missing or changed.
    """
    if policy == "allow" or not (rendering.dropped or rendering.altered):
        return
    found = " and ".join(
        f"{verb} {', '.join(paths)}"
        for verb, paths in (
            ("omits", rendering.dropped),
            ("changes the text of", rendering.altered),
        )
        if paths
    )
    if policy == "raise":
        raise ConversationError(
            f'the chat template {found}; remove it, or set on_template_omission="allow"'
        )
    warnings.warn(
        f'the chat template {found}; set on_template_omission="raise" to refuse such samples, '
        'or "allow" to accept them',
        TemplateOmissionWarning,
        stacklevel=stack_level(),
    )
