"""What the parts of a diagnosis pass to one another: facts, and chats that were tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from vlmcollate.explain import Explanation
    from vlmcollate.prompt.rendering import Rendering

Level = Literal["fine", "choice", "loss"]


@attrs.frozen(kw_only=True)
class Fact:
    """One thing that a chat template does.

    Attributes:
        topic: The subject in a few words.
        text: What the template does.
        remedy: The option that changes it, as an imperative sentence, or "".
        level: `"fine"`, `"choice"` if an option is worth a thought, or `"loss"` if text is omitted
            or chats are refused.
    """

    topic: str
    text: str
    remedy: str = ""
    level: Level = "fine"


@attrs.frozen(kw_only=True)
class Probe:
    """One sample of a kind of chat; with `split_turns`, a chat may have several.

    Attributes:
        example: The chat.
        explanation: The sample's explanation, or `None` if it is refused.
        rendering: The sample's prompt; `None` if it is refused for another reason than that its
            last turn lacks the end of its generation prompt.
        error: Why it is refused, or "".
    """

    example: Mapping[str, Any]
    explanation: Explanation | None = None
    rendering: Rendering | None = None
    error: str = ""
