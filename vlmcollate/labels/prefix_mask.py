"""Labels for a prompt with a single answer."""

from __future__ import annotations

import attrs
import numpy as np

from vlmcollate.errors import LabelError
from vlmcollate.labels.base import LabelContext, LabelStrategy, assistant_indices
from vlmcollate.prompt.encoder import EncodedPrompt, Turn


@attrs.frozen
class PrefixMaskLabels(LabelStrategy):
    """Masks the prompt and trains the rest, up to the token that ends the answer.

    This is for models that give one answer to one prompt. Padding is never trained, even if the pad
    token also ends the answer.
    """

    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """Finds the answer; see `LabelStrategy`.

        Raises:
            LabelError: The conversation has more than one answer, or does not end with it.
        """
        answers = assistant_indices(context.conversation)
        last = len(context.conversation.messages) - 1
        if answers != [last]:
            raise LabelError(
                "PrefixMaskLabels needs exactly one assistant message, the last one; found "
                f"{len(answers)} in {last + 1} messages"
            )
        if not prompt.turns:  # the template omits all that the answer says
            return []
        ((message, start, _),) = prompt.turns
        stops = start + np.flatnonzero(np.isin(prompt.ids[start:], context.stop_ids))
        return [Turn(message, start, int(stops[-1]) + 1)]
