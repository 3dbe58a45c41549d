"""One encoded conversation: the result of `encode`, and the input of `stack`.

Shapes: L a sample's tokens, M its media items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from vlmcollate.pixels import PixelTable, cast_pixels

IGNORE_INDEX = -100
"""The label of tokens that are not trained, the default of PyTorch and Hugging Face."""

LOGPROBS = "logprobs"
"""The key of the log probabilities with which tokens were sampled."""
OF_LABELS = frozenset({"labels", "loss_weights", LOGPROBS})
"""The keys that belong to the token of a label, and are shifted with it."""

Axis = Literal["tokens", "media"]


@attrs.frozen(kw_only=True)
class Document:
    """One sample inside a pack, described so that `unpack` can restore it.

    Attributes:
        length: The number of its tokens.
        padded_length: The number of tokens that it occupies in the pack.
        token_keys: The keys of its tensors along the tokens.
        media_shapes: The shape of each of its media tensors.
        media_counts: The number of its media items of each kind.
        label_strategy: The name of the strategy that found its turns.
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
        tokens: The tensors along the tokens, each (L,): `input_ids`, `attention_mask` and, once
            labelled, `labels` (int64), `loss_weights` (float32) if there are weights other than 0
            and 1, `logprobs` (float32) if tokens were sampled with them, and token types if the
            model takes them.
        message_ids: (L,) int64, the message that each token came from; -1 for text of the template
            and for whitespace around a message's text.
            An assistant turn runs from the first token that the model must produce to its stop
            token.
        media_ids: (L,) int64, the media item that each token stands for; -1 for text.
        media: The media tensors by the processor's names; their first axis depends on the family.
            Pixels are bytes (uint8) if `pixel_tables` names their key; `pixels` converts them.
        media_counts: The number of media items of each kind, such as `{"image": 2}`.
        label_strategy: The name of the strategy that found the turns, or "".
        documents: The samples inside, if this is a pack.
        pixel_tables: For each key of `media` that holds pixels as bytes, what the processor makes
            of them.
    """

    STACKED_BY: ClassVar[str] = "BaseCollator.stack"

    tokens: Mapping[str, Tensor]
    message_ids: Tensor
    media_ids: Tensor
    media: Mapping[str, Tensor] = attrs.field(factory=dict)
    media_counts: Mapping[str, int] = attrs.field(factory=dict)
    label_strategy: str = ""
    documents: tuple[Document, ...] = ()
    pixel_tables: Mapping[str, PixelTable] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return self.message_ids.numel()

    @property
    def axes(self) -> dict[str, Axis]:
        """The meaning of the first axis of every tensor: tokens or media."""
        return {**dict.fromkeys(self.tokens, "tokens"), **dict.fromkeys(self.media, "media")}

    def pixels(self, key: str, dtype: torch.dtype | None = None) -> Tensor:
        """Returns a media tensor as the processor makes it.

        Args:
            key: A key of `media`.
            dtype: The dtype of pixels; the processor's by default. Other tensors keep theirs.
        """
        table, value = self.pixel_tables.get(key), self.media[key]
        return cast_pixels(key, value, dtype) if table is None else table(value, dtype)

    @property
    def input_ids(self) -> Tensor:
        """(L,) int64."""
        return self.tokens["input_ids"]

    @property
    def labels(self) -> Tensor:
        """(L,) int64: the ids of the trained tokens, and `IGNORE_INDEX` for all others."""
        return self.tokens["labels"]
