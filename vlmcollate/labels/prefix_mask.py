"""Labels of a prompt and its one answer."""

from __future__ import annotations

import attrs
import numpy as np

from vlmcollate.errors import LabelError
from vlmcollate.labels.base import LabelContext, LabelStrategy, assistant_indices
from vlmcollate.prompt.encoder import EncodedPrompt, Turn


@attrs.frozen
class PrefixMaskLabels(LabelStrategy):
    """Masks the prompt and trains the rest, up to the token that ends the answer.

    For models that take one prompt and give one answer. Padding is never trained, not even where
    the pad token is also the one that ends the answer.
    """

    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """See `LabelStrategy`.

        Raises:
            LabelError: The conversation is not a prompt with one answer at its end.
        """
        answers = assistant_indices(context.conversation)
        last = len(context.conversation.messages) - 1
        if answers != [last]:
            raise LabelError(
                "PrefixMaskLabels needs exactly one assistant message, the last one; found "
                f"{len(answers)} in {last + 1} messages"
            )
        ((message, start, _),) = prompt.turns
        stops = start + np.flatnonzero(np.isin(prompt.ids[start:], context.stop_ids))
        return [Turn(message, start, int(stops[-1]) + 1)]
