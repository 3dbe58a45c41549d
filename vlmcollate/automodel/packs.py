"""Automodel's collate functions for packs.

Shapes: B packs, L a pack's tokens, T padded tokens, D documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.automodel.contracts import (
    ADDED_MASKS,
    DEFAULT_PACKED_SEQUENCE_CONTRACT,
    PackedSequenceContract,
    build_packed_sequence_metadata,
    resolve_packing_contract,
    varlen_arguments,
)
from vlmcollate.automodel.conventions import cast_pixels
from vlmcollate.automodel.tokenized import (
    JOINS_KEY,
    MEDIA_JOINS,
    TokenizedSample,
    join_media,
    read_tokenized,
)
from vlmcollate.batch.stacking import token_rows
from vlmcollate.errors import ConfigError, EmptyBatchError
from vlmcollate.media import Join
from vlmcollate.padding import BlockCausalMask, DocumentLayout, IndexedMask
from vlmcollate.padding.documents import segments
from vlmcollate.sample import IGNORE_INDEX

_PACK_KEYS = ("position_ids", "block_ids")
_LENGTH_KEYS = ("seq_lens", "seq_lens_padded")
_INDEXED = "_packed_seq_ids"


def neat_packed_vlm_collater(
    batch: Sequence[Mapping[str, Any]],
    padding_idx: int = 0,
    max_length: int | None = None,
    attn_implementation: str | None = None,
    materialize_4d_mask: bool = True,  # noqa: FBT001, FBT002  # Automodel's signature
    *,
    packing: PackedSequenceContract = DEFAULT_PACKED_SEQUENCE_CONTRACT,
) -> dict[str, Any]:
    """Pads packs whose labels are already shifted.

    Args:
        batch: The packs of a `PackedDatasetWrapper`, this library's or Automodel's. If they declare
            no joins, only the media keys of Automodel are joined.
        padding_idx: The id of the padding token.
        max_length: The length of every batch, by default that of its longest pack.
        attn_implementation: The name of the attention, if the model declares no contract; see
            `resolve_packing_contract`. `"eager"` and `"flex_attention"` get an additive float32
            mask.
        materialize_4d_mask: Whether `"block_causal"` gives a dense mask or an indexed one.
        packing: The contract of the model. Its `packed_mask_type` is `"block_causal"`, which gives
            `attention_mask` (B, 1, T, T) bool; `"document_ids"`, which gives the indexed mask
            (B, T); or `"flash_varlen"`, which gives `cu_seq_lens_q`, `cu_seq_lens_k`,
            `max_length_q` and `max_length_k` instead of a mask.

    Returns:
        The padded tensors, `position_ids` (B, T) or (3, B, T), the joined media, and the counts per
        pack; `_packed_seq_ids` (B, T), the indexed mask, if a pack has more than one document; with
        `requires_packed_sequence_metadata`, the values of `build_packed_sequence_metadata`.

    Raises:
        ConfigError: A pack lacks a required key, has an undeclared one, or its lengths contradict
            its mask.
        EmptyBatchError: All packs are empty.
        SampleTooLongError: A pack is longer than `max_length`.
    """
    packing = resolve_packing_contract(packing, attn_implementation)
    if not batch:
        return {}
    kind = packing.packed_mask_type
    layout: DocumentLayout = IndexedMask(length=max_length)
    if kind == "block_causal" and materialize_4d_mask:
        layout = BlockCausalMask(length=max_length, additive=attn_implementation in ADDED_MASKS)
    packs = _read_packs(batch)
    found = _lay_out(packs, padding_idx, layout)
    documents = found[_INDEXED]
    if kind == "flash_varlen":
        del found["attention_mask"]
        found.update(varlen_arguments(documents))
    if packing.requires_packed_sequence_metadata:
        found.update(build_packed_sequence_metadata(documents))
    elif materialize_4d_mask and documents.max() <= 1:
        del found[_INDEXED]
    return found


def packed_sequence_thd_vlm_collater(
    batch: Sequence[Mapping[str, Any]],
    padding_idx: int = 0,
    max_length: int | None = None,
    seq_lens_padding_value: int = -1000,
) -> dict[str, Any]:
    """Pads packs for Transformer Engine.

    Args:
        batch: The packs of a `PackedDatasetWrapper`, this library's or Automodel's.
        padding_idx: The id of the padding token.
        max_length: The length of every batch, by default that of its longest pack.
        seq_lens_padding_value: The padding value of `seq_lens` and `seq_lens_padded`.

    Returns:
        See `neat_packed_vlm_collater`; `seq_lens` and `seq_lens_padded` (B, D) and `qkv_format`
        replace the mask. The padding at the end of a pack belongs to its last document.

    Raises:
        ConfigError: See `neat_packed_vlm_collater`.
    """
    if not batch:
        return {}
    packs = _read_packs(batch)
    found = _lay_out(packs, padding_idx, IndexedMask(length=max_length))
    length = found["input_ids"].shape[1]
    for pack in packs:
        pack.padded[-1] += length - len(pack.item.sample)
    lengths = {"seq_lens": [p.real for p in packs], "seq_lens_padded": [p.padded for p in packs]}
    for key, rows in lengths.items():
        found[key] = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in rows],
            batch_first=True,
            padding_value=seq_lens_padding_value,
        )
    dropped = ("attention_mask", _INDEXED)
    return {**{k: v for k, v in found.items() if k not in dropped}, "qkv_format": "thd"}


@attrs.frozen(eq=False)
class _Pack:
    """A pack, and the lengths of its documents without and with their padding."""

    item: TokenizedSample
    joins: Mapping[str, Join]
    real: list[int]
    padded: list[int]


def _read_packs(batch: Sequence[Mapping[str, Any]]) -> list[_Pack]:
    joins = next((pack[JOINS_KEY] for pack in batch if pack.get(JOINS_KEY)), MEDIA_JOINS)
    packs = []
    for number, example in enumerate(batch):
        name = f"pack {number}"
        item = read_tokenized(example, name, joins, _PACK_KEYS, _LENGTH_KEYS)
        documents = item.sample.tokens["attention_mask"]
        real, padded = _document_lengths(documents)
        declared = [example.get(key) for key in _LENGTH_KEYS]
        if any(lengths is not None for lengths in declared):
            real, padded = _check_lengths(name, declared, documents, real)
        packs.append(_Pack(item, joins, real, padded))
    axes = {pack.item.sample.tokens["position_ids"].shape[1:] for pack in packs}
    if len(axes) > 1:
        raise ConfigError(
            f"the axes of the packs' position_ids differ: found {sorted(map(tuple, axes))}, "
            "expected the same in all packs; use one wrapper for all of them"
        )
    if not any(len(pack.item.sample) for pack in packs):
        raise EmptyBatchError("all packs of the batch are empty; raise pack_size")
    return packs


def _document_lengths(documents: Tensor) -> tuple[list[int], list[int]]:
    """Returns the length of each document, and its distance to the next one."""
    if not len(documents):
        return [0], [0]
    ends = segments(documents)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    is_document = documents[starts] > 0
    begins = starts[is_document]
    if not len(begins):
        return [0], [len(documents)]
    numbers = documents[begins]
    if len(set(numbers.tolist())) < len(numbers):
        raise ConfigError(
            f"a document is split in attention_mask: found the numbers {numbers.tolist()}, "
            "expected each of them in one run; keep the tokens of a document together"
        )
    begins[0] = 0
    edges = torch.cat([begins, begins.new_tensor([len(documents)])])
    return (ends - starts)[is_document].tolist(), edges.diff().tolist()


def _check_lengths(
    name: str, declared: Sequence[Any], documents: Tensor, counted: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Compares the declared lengths of a pack with its mask, and returns them."""
    if any(lengths is None for lengths in declared):
        raise ConfigError(
            f"{name} has only one of seq_lens and seq_lens_padded; pass both or neither"
        )
    real, padded = (torch.as_tensor(lengths).reshape(-1).tolist() for lengths in declared)
    fits = len(real) == len(padded) > 0 and all(
        0 <= a <= b for a, b in zip(real, padded, strict=True)
    )
    # the length in the mask may include the padding of the document
    agrees = len(counted) == len(real) and all(
        a <= n <= b for a, n, b in zip(real, counted, padded, strict=True)
    )
    if not (fits and agrees) or sum(padded) != len(documents):
        raise ConfigError(
            f"{name} contradicts itself: found seq_lens={real}, seq_lens_padded={padded} and "
            f"documents of {list(counted)} in {len(documents)} tokens of attention_mask, expected "
            "the same documents; omit both keys, or correct them"
        )
    return real, padded


def _lay_out(packs: Sequence[_Pack], padding_idx: int, layout: DocumentLayout) -> dict[str, Any]:
    rows = token_rows([pack.item.sample for pack in packs])
    for row in rows:
        row["document_ids"] = row[_INDEXED] = row["attention_mask"]
    tokens = layout(rows, {"input_ids": padding_idx, "labels": IGNORE_INDEX})
    items = [pack.item for pack in packs]
    return cast_pixels({**tokens, **join_media(items, packs[0].joins)})
