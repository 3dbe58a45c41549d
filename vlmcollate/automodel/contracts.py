"""The masks and lengths that a model needs for packs.

Shapes: B packs, T padded tokens, D documents.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, Protocol

import attrs
import torch
from torch import Tensor

from vlmcollate.errors import ConfigError
from vlmcollate.padding.documents import segments

PackedMaskType = Literal["block_causal", "document_ids", "flash_varlen"]
_MASK_TYPES = ("block_causal", "document_ids", "flash_varlen")
_FLASH = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
ADDED_MASKS = ("eager", "flex_attention")
"""The attention implementations of transformers that add the mask to the scores."""


class PackedSequenceContract(Protocol):
    """The requirements of a model for packs."""

    @property
    def packed_mask_type(self) -> PackedMaskType:
        """The kind of mask that separates the documents."""

    @property
    def requires_packed_sequence_metadata(self) -> bool:
        """Whether the model also needs the lengths of the documents."""


@attrs.frozen
class _DefaultPackedSequenceContract:
    """The requirements of a model that declares none: a block-causal mask."""

    packed_mask_type: PackedMaskType = "block_causal"
    requires_packed_sequence_metadata: bool = False


DEFAULT_PACKED_SEQUENCE_CONTRACT: PackedSequenceContract = _DefaultPackedSequenceContract()


def resolve_packing_contract(
    packing: PackedSequenceContract, attn_implementation: str | None
) -> PackedSequenceContract:
    """Chooses between a contract and the name of an attention.

    Args:
        packing: The contract. A contract other than the default takes precedence, with a
            `FutureWarning` if `attn_implementation` is also given.
        attn_implementation: `"eager"`, `"sdpa"`, `"flex_attention"`, `"flash_attention_2"`,
            `"flash_attention_3"`, `"flash_attention_4"` or `None`.

    Returns:
        The contract that applies.

    Raises:
        ConfigError: The name of the attention or the mask type of the contract is unknown.
    """
    known = ("eager", "sdpa", "flex_attention", *_FLASH)
    if attn_implementation is not None and attn_implementation not in known:
        raise ConfigError(
            f"attn_implementation is unknown: found {attn_implementation!r}, expected one of "
            f"{', '.join(known)}; omit it, and pass packing"
        )
    if packing.packed_mask_type not in _MASK_TYPES:
        raise ConfigError(
            f"packed_mask_type is unknown: found {packing.packed_mask_type!r}, expected one of "
            f"{', '.join(_MASK_TYPES)}; pass the contract of the model"
        )
    if attn_implementation is None:
        return packing
    required = (packing.packed_mask_type, packing.requires_packed_sequence_metadata)
    if required != ("block_causal", False):  # Automodel's default is another class
        warnings.warn(
            f"attn_implementation={attn_implementation!r} is ignored because packing requires "
            f"{packing.packed_mask_type!r}; omit it",
            FutureWarning,
            stacklevel=3,
        )
        return packing
    is_flash = attn_implementation in _FLASH
    return _DefaultPackedSequenceContract("flash_varlen" if is_flash else "block_causal")


def build_packed_sequence_metadata(attention_mask: Tensor) -> dict[str, Any]:
    """Computes the lengths of the documents in each row.

    Args:
        attention_mask: The number of each token's document, 0 for padding, (B, T).

    Returns:
        `packed_token_indices` (B, T) int64, the index of each token in its row, -1 for padding;
        `cu_seqlens` (B, D + 1) int32, the cumulative lengths of the documents, filled up with -1;
        `max_seqlen`, the length of the longest document.

    Raises:
        ConfigError: The mask does not have two axes, or has no token.
    """
    if attention_mask.ndim != 2 or not (attention_mask > 0).any():
        raise ConfigError(
            f"attention_mask has no documents: found shape {tuple(attention_mask.shape)}, expected "
            "(packs, tokens) with a number above 0; pass the indexed mask"
        )
    rows, length = attention_mask.shape
    indices = torch.arange(length).expand(rows, -1)
    edges = torch.full((rows, max(1, int(attention_mask.max())) + 1), -1, dtype=torch.int32)
    edges[:, 0] = 0
    longest = 0
    for row, ids in zip(edges, attention_mask, strict=True):
        sizes = torch.unique_consecutive(ids[ids > 0], return_counts=True)[1]
        row[1 : len(sizes) + 1] = sizes.cumsum(0)
        longest = max(longest, *sizes.tolist(), 0)
    return {
        "packed_token_indices": indices.masked_fill(attention_mask == 0, -1),
        "cu_seqlens": edges,
        "max_seqlen": longest,
    }


def varlen_arguments(documents: Tensor) -> dict[str, Any]:
    """Computes the arguments of transformers' FlashAttention.

    Args:
        documents: The number of each token's document, 0 for padding, (B, T).

    Returns:
        `cu_seq_lens_q` and `cu_seq_lens_k`, int32, the cumulative lengths of documents and padding
        over the concatenated rows; `max_length_q` and `max_length_k`, the longest of these lengths.
    """
    length = documents.shape[1]
    ends = torch.cat([segments(ids) + row * length for row, ids in enumerate(documents)])
    edges = torch.cat([ends.new_zeros(1), ends]).to(torch.int32)
    longest = int(edges.diff().max())
    return {
        "cu_seq_lens_q": edges,
        "cu_seq_lens_k": edges.clone(),
        "max_length_q": longest,
        "max_length_k": longest,
    }
