"""All documents in one row, without padding, for Hugging Face models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from vlmcollate.padding.base import Separation
from vlmcollate.padding.documents import DocumentLayout, refuse_blocks, segments


@attrs.frozen(kw_only=True)
class FlattenedDocuments(DocumentLayout):
    """Lays all documents of the batch into one row (1, T) and omits `attention_mask`.

    Adds `cu_seq_lens_q` and `cu_seq_lens_k` (documents + 1,) int32, `max_length_q` and
    `max_length_k` () int64 for FlashAttention, and `seq_idx` (1, T) int32, each token's document
    from 0, which the kernels of linear attention, state-space layers and short convolutions also
    take. Other attention of `transformers` separates the documents by `position_ids`, which restart
    with each, but only without a key-value cache; therefore the batch also contains
    `use_cache=False`.

    Args:
        side: `"right"`.
        length: The length of every batch; that of all documents by default. The padding is a
            document of its own.
        multiple_of: The padded length is a multiple of this.

    Source:
        transformers, `DataCollatorWithFlattening` and `find_packed_sequence_indices`.
    """

    separates_by: ClassVar[Separation | None] = "positions"

    def __call__(
        self, samples: Sequence[Mapping[str, Tensor]], fill: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """See `DocumentLayout`."""
        last, numbers = 0, []
        for sample in samples:
            ids = sample["document_ids"]
            numbers.append(torch.where(ids > 0, ids + last, 0))
            last += int(ids.max())
        flat = {key: torch.cat([sample[key] for sample in samples]) for key in samples[0]}
        flat["document_ids"] = torch.cat(numbers)
        return super().__call__([flat], fill)

    def add_attention(
        self, batch: dict[str, Tensor], documents: Tensor, blocks: Tensor | None
    ) -> dict[str, Tensor]:
        """See `DocumentLayout`."""
        refuse_blocks(self, blocks)
        del batch["attention_mask"]
        ends = segments(documents[0])
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        edges = torch.cat([ends.new_zeros(1), ends]).to(torch.int32)
        longest = (ends - starts).max()
        numbers = torch.arange(len(ends)).repeat_interleave(ends - starts)
        _restart_outside(batch["position_ids"], documents[0])
        return {
            **batch,
            "cu_seq_lens_q": edges,
            "cu_seq_lens_k": edges.clone(),
            "max_length_q": longest,
            "max_length_k": longest.clone(),
            "seq_idx": numbers.to(torch.int32)[None],
            "use_cache": False,  # type: ignore[dict-item]  # an argument of the model
        }


def _restart_outside(position_ids: Tensor, documents: Tensor) -> None:
    """Restarts positions outside documents, which must not continue one."""
    begins, start = [], 0
    for end in segments(documents).tolist():
        if not documents[start]:
            begins.append((start, end))
        start = end
    for start, end in begins:
        position_ids[..., start:end] = torch.arange(end - start)
