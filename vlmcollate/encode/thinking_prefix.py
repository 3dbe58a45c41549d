"""Inserts the thinking block that begins every answer of a model.

Shapes: L a sample's tokens, P the prefix's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from vlmcollate.errors import ConfigError
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary


@attrs.frozen(kw_only=True)
class ThinkingPrefix:
    """Inserts an untrained text after every marker that opens a model's turn.

    Some instruction-tuned models begin every answer with an empty thinking block. If they are
    trained on turns without it, they first have to unlearn it. If the text, or its first token,
    follows the marker already, nothing is inserted.

    Args:
        text: The prefix.
        after: The marker of a turn, as the chat template writes it.

    Source:
        The Gemma 4 model card: larger models emit an empty thought channel.
    """

    text: str = "<|channel>thought\n<channel|>"
    after: str = "<|turn>model\n"

    def check(self, tokenizer: Any) -> None:
        """Raises a ConfigError if the tokenizer lacks the control tokens."""
        for name in ("text", "after"):
            ids = Vocabulary.of(tokenizer).encode(getattr(self, name)).ids
            if not len(ids) or not Vocabulary.of(tokenizer).is_control(ids)[0]:
                raise ConfigError(
                    f"thinking_prefix.{name}={getattr(self, name)!r} does not begin with a control "
                    "token of this tokenizer; omit the prefix, or use the model's own spelling"
                )

    def __call__(self, sample: EncodedSample, tokenizer: Any) -> EncodedSample:
        """Inserts the prefix into a labelled sample of L tokens.

        Args:
            sample: The sample; its media stays as it is.
            tokenizer: Its tokenizer.

        Returns:
            The sample of L + turns * P tokens; the inserted ones are attended to, have the type of
            text and no message, and are not trained.
        """
        vocabulary = Vocabulary.known(tokenizer)
        prefix, marker = _ids_of(vocabulary, self.text), _ids_of(vocabulary, self.after)
        places = _places(sample.input_ids.numpy(), marker, int(prefix[0]))
        if not len(places):
            return sample
        starts = places + np.arange(len(places)) * len(prefix)
        new = (starts[:, None] + np.arange(len(prefix))).reshape(-1)
        steps = np.ones(len(sample) + len(new), np.int64)
        steps[0], steps[new] = 0, 0
        source = steps.cumsum()  # a new token copies the one before it, and is then overwritten

        def widened(value: Tensor, fill: Any) -> Tensor:
            wide = value.numpy().take(source)
            wide[new] = fill
            return torch.from_numpy(wide)

        fills: dict[str, Any] = {
            "input_ids": np.tile(prefix, len(places)),
            "attention_mask": 1,
            "labels": IGNORE_INDEX,
        }
        tokens = sample.tokens.items()
        return attrs.evolve(
            sample,
            tokens={key: widened(value, fills.get(key, 0)) for key, value in tokens},
            message_ids=widened(sample.message_ids, -1),
            media_ids=widened(sample.media_ids, -1),
        )


@lru_cache(maxsize=16)
def _ids_of(vocabulary: Vocabulary, text: str) -> Any:
    """Returns the ids of a text, cached because every sample needs them."""
    return vocabulary.encode(text).ids


def _places(ids: Any, marker: Any, first: int) -> Any:
    """Returns the places after markers that the prefix does not follow yet."""
    at = np.flatnonzero(ids[: len(ids) - len(marker) + 1] == marker[0])
    for offset, token in enumerate(marker[1:], 1):
        at = at[ids[at + offset] == token]
    at = at + len(marker)
    return at[ids[np.minimum(at, len(ids) - 1)] != first]
