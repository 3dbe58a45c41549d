"""Keeps what a chat template makes of the probe chats that several readers render."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from vlmcollate.errors import ConversationError

_MOST_TEXTS = 256


@attrs.frozen(eq=False)
class ProbeCache:
    """The texts of probe chats, by everything that the template is given.

    It lives as long as the renderers of one collator that share it, for one state of its processor.
    """

    _texts: dict[str, str | ConversationError] = attrs.field(factory=dict, init=False)

    def get_or_render(self, given: tuple[Any, ...], render: Callable[[], str]) -> str:
        """Returns the text of a probe chat, and renders it on first use.

        Args:
            given: What the template is given, whose `repr` is its value.
            render: A function that renders it.

        Raises:
            ConversationError: The template refuses the chat.
        """
        key = repr(given)
        if key not in self._texts:
            if len(self._texts) >= _MOST_TEXTS:
                self._texts.clear()
            self._texts[key] = _rendered(render)
        found = self._texts[key]
        if isinstance(found, ConversationError):
            raise ConversationError(found.problem, where=found.where)
        return found


def _rendered(render: Callable[[], str]) -> str | ConversationError:
    try:
        return render()
    except ConversationError as error:  # without its frames, which hold the processor
        return ConversationError(error.problem, where=error.where)
