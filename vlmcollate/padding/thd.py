"""The layout of packs for Transformer Engine."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.padding.documents import DocumentLayout, refuse_blocks, segments


@attrs.frozen(kw_only=True)
class TransformerEngineTHD(DocumentLayout):
    """Replaces `attention_mask` by the documents' lengths, and adds `qkv_format="thd"`.

    Adds `seq_lens` and `seq_lens_padded` (B, maximum documents) int64: the number of tokens of each
    document, without and with the padding after it. Rows with fewer documents end in `fill`. For
    context parallel ranks, pack with `multiple_of=2 * ranks`.

    Args:
        side: `"right"`.
        length: The length of every batch; the longest pack's by default.
        multiple_of: The padded length is a multiple of this.
        fill: The value for missing documents of a row.

    Source:
        Transformer Engine, the thd layout of DotProductAttention; NeMo Automodel's key names.
    """

    fill: int = -1000

    def add_attention(
        self, batch: dict[str, Tensor], documents: Tensor, blocks: Tensor | None
    ) -> dict[str, Tensor]:
        """See `DocumentLayout`."""
        refuse_blocks(self, blocks)
        del batch["attention_mask"]
        real, padded = [], []
        for ids in documents:
            ends = segments(ids)
            starts = torch.cat([ends.new_zeros(1), ends[:-1]])
            held = ids[starts] > 0
            real.append((ends - starts)[held])
            begins = starts[held]
            padded.append(torch.diff(torch.cat([begins, begins.new_tensor([len(ids)])])))
        extra: dict[str, Any] = {
            "seq_lens": _rows(real, self.fill),
            "seq_lens_padded": _rows(padded, self.fill),
            "qkv_format": "thd",
        }
        return {**batch, **extra}


def _rows(values: list[Tensor], fill: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)
