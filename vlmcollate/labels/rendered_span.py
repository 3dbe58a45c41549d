"""Labels from the rendering itself."""

from __future__ import annotations

import attrs

from vlmcollate.labels.base import LabelContext, LabelStrategy
from vlmcollate.prompt.encoder import EncodedPrompt, Turn


@attrs.frozen
class RenderedSpanLabels(LabelStrategy):
    """Trains the characters that the model has to write, by the rendering of the chat.

    The default. It knows which characters of the prompt came from which message and where the
    generation prompt of each turn ends, so no text inside a message can mislead it.
    """

    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """See `LabelStrategy`.

        Raises:
            LabelError: The template writes a turn that its own generation prompt does not lead to,
                or nothing ends a turn.
        """
        return prompt.turns
