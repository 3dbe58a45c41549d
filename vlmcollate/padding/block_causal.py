"""The dense mask of a pack, for eager and SDPA attention."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from vlmcollate.padding.base import Separation
from vlmcollate.padding.documents import DocumentLayout, places_in_branches, segments
from vlmcollate.validators import an_instance_of, at_least_one


@attrs.frozen(kw_only=True)
class BlockCausalMask(DocumentLayout):
    """Makes `attention_mask` (B, 1, T, T) bool: tokens attend to their document up to themselves.

    Padding attends only to itself, so that no row of the softmax is empty. Bidirectional attention
    within images, as in Gemma 3, is kept.

    Args:
        side: `"right"`.
        length: The length of every batch; the longest pack's by default.
        multiple_of: The padded length is a multiple of this.
        sliding_window: The number of tokens that the model's sliding layers attend to, if any. The
            mask is then the dict `{"full_attention": ..., "sliding_attention": ...}`, which the
            models of `transformers` pass to their layers.
        additive: Whether the masks are float32, 0 for attended tokens and the lowest number for
            others. The eager attention of `transformers` adds its mask, even a bool one; SDPA takes
            bool masks.
    """

    separates_by: ClassVar[Separation | None] = "mask"
    takes_branches: ClassVar[bool] = True

    sliding_window: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(at_least_one)
    )
    additive: bool = attrs.field(default=False, validator=an_instance_of(bool))

    def add_attention(
        self, batch: dict[str, Tensor], documents: Tensor, blocks: Tensor | None
    ) -> dict[str, Tensor]:
        """See `DocumentLayout`."""
        full, branches = _block_causal(documents), batch.get("branch_ids")
        if branches is not None:
            full &= (branches[:, None, None] == 0) | (
                branches[:, None, :, None] == branches[:, None, None]
            )
        if self.sliding_window is None:
            return {**batch, "attention_mask": self._mask(full, blocks)}
        places = places_in_branches(documents, branches)
        near = places[:, None, :, None] - places[:, None, None] < self.sliding_window
        masks = {
            "full_attention": self._mask(full, blocks),
            "sliding_attention": self._mask(full & near, blocks),
        }
        return {**batch, "attention_mask": masks}  # type: ignore[dict-item]  # one mask a layer

    def _mask(self, mask: Tensor, blocks: Tensor | None) -> Tensor:
        if blocks is not None:
            mask = _with_blocks(mask, blocks)
        if not self.additive:
            return mask
        lowest = torch.finfo(torch.float32).min
        return torch.zeros(mask.shape, dtype=torch.float32).masked_fill_(~mask, lowest)


def _block_causal(documents: Tensor) -> Tensor:
    count, length = documents.shape
    mask = torch.zeros(count, 1, length, length, dtype=torch.bool)
    for row, ids in zip(mask[:, 0], documents, strict=True):
        start = 0
        for end in segments(ids).tolist():
            if ids[start]:
                row[start:end, start:end] = _triangle(end - start)
            else:
                row[start:end, start:end].fill_diagonal_(fill_value=True)
            start = end
    return mask


def _triangle(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).tril_()


def _with_blocks(mask: Tensor, blocks: Tensor) -> Tensor:
    """Returns the mask with each block's tokens attending to each other."""
    mask = mask.clone()
    for row, ids in zip(mask[:, 0], blocks, strict=True):
        start = 0
        for end in segments(ids).tolist():
            if ids[start]:
                row[start:end, start:end] = True
            start = end
    return mask
