"""Inserting the thinking block that a model always opens its answers with.

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
    """Puts a text behind every marker that opens a model's turn, and leaves it untrained.

    Some instruction-tuned models begin every answer with an empty thinking block. Trained on turns
    without it, they first have to unlearn it; with it in the prompt, they see what they expect.
    Where the text, or its first token, stands there already, nothing is inserted.

    Args:
        text: The prefix.
        after: The marker of a turn, as the chat template writes it.

    Source:
        The Gemma 4 model card: larger models emit an empty thought channel.
    """

    text: str = "<|channel>thought\n<channel|>"
    after: str = "<|turn>model\n"

    def check(self, tokenizer: Any) -> None:
        """Refuses a tokenizer that does not know the control tokens, with a ConfigError."""
        for name in ("text", "after"):
            ids = Vocabulary.of(tokenizer).encode(getattr(self, name)).ids
            if not len(ids) or not Vocabulary.of(tokenizer).is_control(ids)[0]:
                raise ConfigError(
                    f"thinking_prefix.{name}={getattr(self, name)!r} begins with no control token "
                    "of this tokenizer; leave the prefix out, or spell it as the model does"
                )

    def __call__(self, sample: EncodedSample, tokenizer: Any) -> EncodedSample:
        """Inserts the prefix into a labelled sample of L tokens.

        Args:
            sample: The sample; its media stays as it is.
            tokenizer: Its tokenizer.

        Returns:
            The sample of L + turns * P tokens: the inserted ones attended to, of type text, of no
            message, and not trained.
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
        source = steps.cumsum()  # a new token takes the one before it, and is then written over

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
    """The ids of a text, which every sample asks for."""
    return vocabulary.encode(text).ids


def _places(ids: Any, marker: Any, first: int) -> Any:
    """The places behind each marker that the prefix does not follow yet."""
    at = np.flatnonzero(ids[: len(ids) - len(marker) + 1] == marker[0])
    for offset, token in enumerate(marker[1:], 1):
        at = at[ids[at + offset] == token]
    at = at + len(marker)
    return at[ids[np.minimum(at, len(ids) - 1)] != first]
