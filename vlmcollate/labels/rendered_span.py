"""Labels from the rendering itself."""

from __future__ import annotations

import attrs

from vlmcollate.labels.base import LabelContext, LabelStrategy
from vlmcollate.prompt.encoder import EncodedPrompt, Turn


@attrs.frozen
class RenderedSpanLabels(LabelStrategy):
    """Trains the characters that the model must write, as located in the rendered chat.

    This is the default. The rendering records the message of each character and the end of each
    turn's generation prompt, so no text inside a message can mislead the strategy.
    """

    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """Finds the assistant turns; see `LabelStrategy`.

        Raises:
            LabelError: A turn does not begin with the template's generation prompt, or has no stop
                token.
        """
        return prompt.turns
