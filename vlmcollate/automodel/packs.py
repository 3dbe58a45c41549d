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
    varlen,
)
from vlmcollate.automodel.conventions import with_bfloat16
from vlmcollate.automodel.given import JOINS_KEY, MEDIA_JOINS, Given, media_of, read
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
    """Pads packs, whose labels are shifted already.

    Args:
        batch: What a `PackedDatasetWrapper` gives, this library's or Automodel's. Packs that bring
            no rules for it join the media keys of `MEDIA_JOINS` alone.
        padding_idx: The padding token.
        max_length: The length of every batch; the longest pack by default.
        attn_implementation: The attention by name, if the model brings no contract; see
            `resolve_packing_contract`. `"eager"` and `"flex_attention"` get an additive float32
            mask.
        materialize_4d_mask: Whether `"block_causal"` becomes a dense mask; if not, it is the
            indexed one.
        packing: What the model asks for: its `packed_mask_type` is `"block_causal"`, with
            `attention_mask` (B, 1, T, T) bool, `"document_ids"`, with the indexed mask (B, T), or
            `"flash_varlen"`, with `cu_seq_lens_q/k` and `max_length_q/k` in place of a mask.

    Returns:
        The padded tensors, `position_ids` (B, T) or (3, B, T), joined media and counts a pack;
        `_packed_seq_ids` (B, T), the indexed mask, if there is more than one document a pack; with
        `requires_packed_sequence_metadata`, what `build_packed_sequence_metadata` returns.

    Raises:
        ConfigError: A pack lacks a key that is needed, holds an undeclared one, or its lengths
            contradict its mask.
        EmptyBatchError: No pack holds a token.
        SampleTooLongError: A pack is longer than `max_length`.
    """
    packing = resolve_packing_contract(packing, attn_implementation)
    if not batch:
        return {}
    kind = packing.packed_mask_type
    layout: DocumentLayout = IndexedMask(length=max_length)
    if kind == "block_causal" and materialize_4d_mask:
        layout = BlockCausalMask(length=max_length, additive=attn_implementation in ADDED_MASKS)
    packs = _read(batch)
    found = _laid_out(packs, padding_idx, layout)
    documents = found[_INDEXED]
    if kind == "flash_varlen":
        del found["attention_mask"]
        found.update(varlen(documents))
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
        batch: What a `PackedDatasetWrapper` gives, this library's or Automodel's.
        padding_idx: The padding token.
        max_length: The length of every batch; the longest pack by default.
        seq_lens_padding_value: Stands where a pack has no further document.

    Returns:
        As `neat_packed_vlm_collater`, with `seq_lens` and `seq_lens_padded` (B, D) and
        `qkv_format` in place of the mask. The padding behind a pack belongs to its last document.

    Raises:
        ConfigError: See `neat_packed_vlm_collater`.
    """
    if not batch:
        return {}
    packs = _read(batch)
    found = _laid_out(packs, padding_idx, IndexedMask(length=max_length))
    length = found["input_ids"].shape[1]
    for pack in packs:
        pack.padded[-1] += length - len(pack.given.sample)
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
    """A pack, with the tokens of each document and those that it takes up with its padding."""

    given: Given
    joins: Mapping[str, Join]
    real: list[int]
    padded: list[int]


def _read(batch: Sequence[Mapping[str, Any]]) -> list[_Pack]:
    joins = next((pack[JOINS_KEY] for pack in batch if pack.get(JOINS_KEY)), MEDIA_JOINS)
    packs = []
    for number, example in enumerate(batch):
        name = f"pack {number}"
        given = read(example, name, joins, _PACK_KEYS, _LENGTH_KEYS)
        documents = given.sample.tokens["attention_mask"]
        real, padded = _lengths(documents)
        stated = [example.get(key) for key in _LENGTH_KEYS]
        if any(lengths is not None for lengths in stated):
            real, padded = _checked(name, stated, documents, real)
        packs.append(_Pack(given, joins, real, padded))
    axes = {pack.given.sample.tokens["position_ids"].shape[1:] for pack in packs}
    if len(axes) > 1:
        raise ConfigError(
            f"the packs' position_ids differ: found axes {sorted(map(tuple, axes))}, expected the "
            "same in all; pack them with the same wrapper"
        )
    if not any(len(pack.given.sample) for pack in packs):
        raise EmptyBatchError("no pack of the batch holds a token; raise pack_size")
    return packs


def _lengths(documents: Tensor) -> tuple[list[int], list[int]]:
    """The tokens of each document, and those up to the next one."""
    if not len(documents):
        return [0], [0]
    ends = segments(documents)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    held = documents[starts] > 0
    begins = starts[held]
    if not len(begins):
        return [0], [len(documents)]
    numbers = documents[begins]
    if len(set(numbers.tolist())) < len(numbers):
        raise ConfigError(
            f"a pack's documents are torn apart: found the numbers {numbers.tolist()} in "
            "attention_mask, expected each in one run; keep a document's tokens together"
        )
    begins[0] = 0
    edges = torch.cat([begins, begins.new_tensor([len(documents)])])
    return (ends - starts)[held].tolist(), edges.diff().tolist()


def _checked(
    name: str, stated: Sequence[Any], documents: Tensor, counted: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The lengths that a pack states, after they were compared with its mask."""
    if any(lengths is None for lengths in stated):
        raise ConfigError(f"{name} has one of seq_lens and seq_lens_padded; give both or neither")
    real, padded = (torch.as_tensor(lengths).reshape(-1).tolist() for lengths in stated)
    fits = len(real) == len(padded) > 0 and all(
        0 <= a <= b for a, b in zip(real, padded, strict=True)
    )
    # a document is as long as in the mask, which may count its own padding, too
    agrees = len(counted) == len(real) and all(
        a <= n <= b for a, n, b in zip(real, counted, padded, strict=True)
    )
    if not (fits and agrees) or sum(padded) != len(documents):
        raise ConfigError(
            f"{name} contradicts itself: found seq_lens={real}, seq_lens_padded={padded} and "
            f"documents of {list(counted)} in {len(documents)} tokens of attention_mask, expected "
            "the same documents; leave both keys out, or mend them"
        )
    return real, padded


def _laid_out(packs: Sequence[_Pack], padding_idx: int, layout: DocumentLayout) -> dict[str, Any]:
    rows = token_rows([pack.given.sample for pack in packs])
    for row in rows:
        row["document_ids"] = row[_INDEXED] = row["attention_mask"]
    tokens = layout(rows, {"input_ids": padding_idx, "labels": IGNORE_INDEX})
    items = [pack.given for pack in packs]
    return with_bfloat16({**tokens, **media_of(items, packs[0].joins)})
