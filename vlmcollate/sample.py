"""One encoded conversation: what `encode` gives and `stack` takes.

Shapes: L a sample's tokens, M its media items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs
from torch import Tensor

IGNORE_INDEX = -100
"""The label of a token that is not trained, as PyTorch and Hugging Face have it."""

Axis = Literal["tokens", "media"]


@attrs.frozen(kw_only=True)
class Document:
    """What is known of one sample inside a pack, so that the pack can be taken apart.

    Attributes:
        length: Its tokens.
        padded_length: The tokens that it takes up in the pack.
        token_keys: The keys that it had along its tokens.
        media_shapes: The shape of each of its media tensors.
        media_counts: Its items of each kind.
        label_strategy: The strategy that placed its labels.
    """

    length: int
    padded_length: int
    token_keys: tuple[str, ...]
    media_shapes: Mapping[str, tuple[int, ...]]
    media_counts: Mapping[str, int]
    label_strategy: str


@attrs.frozen(kw_only=True, eq=False)
class EncodedSample:
    """One conversation, or a pack of several, as tensors that are not padded to a batch.

    Attributes:
        tokens: The keys that run along the tokens, each (L,): `input_ids`, `attention_mask` and,
            once labelled, `labels` (int64), `loss_weights` (float32) where weights other than 0
            and 1 are in play, and token types where the model takes them.
        message_ids: (L,) int64, the message each token came from; -1 for the template's own text
            and for whitespace around a message's.
            An assistant turn runs from the first token that the model has to produce to the one
            that ends the turn.
        media_ids: (L,) int64, which media item each token stands for; -1 for text.
        media: The media tensors under the processor's names; their first axis is the family's own.
        media_counts: Items of each kind, such as `{"image": 2}`.
        label_strategy: The name of the strategy that placed the labels, or "".
        documents: The samples inside, if this is a pack.
    """

    tokens: Mapping[str, Tensor]
    message_ids: Tensor
    media_ids: Tensor
    media: Mapping[str, Tensor] = attrs.field(factory=dict)
    media_counts: Mapping[str, int] = attrs.field(factory=dict)
    label_strategy: str = ""
    documents: tuple[Document, ...] = ()

    def __len__(self) -> int:
        return len(self.message_ids)

    @property
    def axes(self) -> dict[str, Axis]:
        """What the first axis of every tensor counts."""
        return {**dict.fromkeys(self.tokens, "tokens"), **dict.fromkeys(self.media, "media")}

    @property
    def input_ids(self) -> Tensor:
        """(L,) int64."""
        return self.tokens["input_ids"]

    @property
    def labels(self) -> Tensor:
        """(L,) int64: the token's id where it is trained, `IGNORE_INDEX` elsewhere."""
        return self.tokens["labels"]
