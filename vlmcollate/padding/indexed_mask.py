"""The mask of document numbers, for FlashAttention with patched unpadding."""

from __future__ import annotations

import attrs
from torch import Tensor

from vlmcollate.padding.documents import DocumentLayout, refuse_blocks


@attrs.frozen(kw_only=True)
class IndexedMask(DocumentLayout):
    """Makes `attention_mask` (B, T) int64 the number of each token's document, and 0 for padding.

    This is for trainers that turn it into sequence lengths for FlashAttention. An unpatched model
    attends to every number above 0, and would mix the documents.

    Args:
        side: `"right"`.
        length: The length of every batch; the longest pack's by default.
        multiple_of: The padded length is a multiple of this.
    """

    def add_attention(
        self, batch: dict[str, Tensor], documents: Tensor, blocks: Tensor | None
    ) -> dict[str, Tensor]:
        """See `DocumentLayout`."""
        refuse_blocks(self, blocks)
        return {**batch, "attention_mask": documents}
