"""The sparse mask of a pack, for FlexAttention."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from torch import Tensor

from vlmcollate.padding.base import Separation
from vlmcollate.padding.documents import DocumentLayout, places_in_branches
from vlmcollate.validators import at_least_one

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@attrs.frozen(kw_only=True)
class FlexBlockMask(DocumentLayout):
    """Makes `attention_mask` a `BlockMask` over B rows of T tokens, from the documents' numbers.

    The mask holds a function, so it cannot come from a DataLoader worker: collate in the main
    process, or encode in the workers and stack in the main process.

    Args:
        side: `"right"`.
        length: The length of every batch; the longest pack's by default.
        multiple_of: The padded length is a multiple of this.
        sliding_window: The number of tokens that the model's sliding layers attend to, if any; see
            `BlockCausalMask`.
    """

    separates_by: ClassVar[Separation | None] = "mask"
    takes_branches: ClassVar[bool] = True

    sliding_window: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(at_least_one)
    )

    def add_attention(
        self, batch: dict[str, Tensor], documents: Tensor, blocks: Tensor | None
    ) -> dict[str, Tensor]:
        """See `DocumentLayout`."""
        branches = batch.get("branch_ids")
        full = _mask(documents, blocks, branches, None)
        if self.sliding_window is None:
            return {**batch, "attention_mask": full}  # type: ignore[dict-item]  # a BlockMask
        masks = {
            "full_attention": full,
            "sliding_attention": _mask(documents, blocks, branches, self.sliding_window),
        }
        return {**batch, "attention_mask": masks}  # type: ignore[dict-item]  # one mask a layer


def _mask(
    documents: Tensor, blocks: Tensor | None, branches: Tensor | None, window: int | None
) -> BlockMask:
    from torch.nn.attention.flex_attention import create_block_mask  # imports sympy: 0.3 s

    count, length = documents.shape
    places = places_in_branches(documents, branches)

    def sees(b: Tensor, _: Tensor, q: Tensor, k: Tensor) -> Tensor:
        together = (documents[b, q] == documents[b, k]) & (documents[b, q] > 0)
        allowed = together & (q >= k)
        if branches is not None:
            allowed = allowed & ((branches[b, k] == 0) | (branches[b, q] == branches[b, k]))
        if window is not None:
            allowed = allowed & (places[b, q] - places[b, k] < window)
        if blocks is not None:
            block = blocks[b, q]
            allowed = allowed | (together & (block == blocks[b, k]) & (block > 0))
        return allowed | (q == k)

    return create_block_mask(sees, count, None, length, length, device=str(documents.device))
