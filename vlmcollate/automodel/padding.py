"""Automodel's collate functions for samples that are tokenized, or packed, already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.errors import ConfigError
from vlmcollate.padding import (
    BlockCausalMask,
    DocumentLayout,
    IndexedMask,
    PadToLength,
    PadToLongest,
    TransformerEngineTHD,
)
from vlmcollate.sample import IGNORE_INDEX
from vlmcollate.stacking import shifted

_TOKENS = ("input_ids", "attention_mask", "labels", "mm_token_type_ids")
_PIXELS = ("pixel_values", "pixel_values_videos")
_MEDIA = ("image_grid_thw", "video_grid_thw", "image_position_ids", "second_per_grid_ts")


def pad_collate_fn(
    examples: Sequence[Mapping[str, Any]], processor: Any, max_length: int | None = None
) -> dict[str, Tensor]:
    """Pads samples that are tokenized already, joins their media, and shifts.

    Args:
        examples: Each with `input_ids`, `attention_mask` and `labels` (L,), and maybe
            `mm_token_type_ids` (L,), pixels and grids.
        processor: Its tokenizer has the padding token.
        max_length: The length before the shift; the longest sample by default.

    Returns:
        Token tensors (B, T - 1), joined media (pixels in bfloat16) and counts.

    Raises:
        SampleTooLongError: A sample is longer than `max_length`.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    fill = {"input_ids": tokenizer.pad_token_id or 0, "labels": IGNORE_INDEX}
    padding = PadToLongest() if max_length is None else PadToLength(length=max_length)
    batch = shifted(padding(_rows(examples), fill), axis=1)
    counts = {
        kind: [0 if example.get(grid) is None else len(example[grid]) for example in examples]
        for kind, grid in (("image", "image_grid_thw"), ("video", "video_grid_thw"))
    }
    return {**batch, **_media(examples), **_counts(counts)}


def neat_packed_vlm_collater(
    batch: Sequence[Mapping[str, Any]],
    padding_idx: int = 0,
    max_length: int | None = None,
    attn_implementation: str = "sdpa",
) -> dict[str, Any]:
    """Pads packs, whose labels are shifted already.

    Args:
        batch: What `PackedDatasetWrapper` gives.
        padding_idx: The padding token.
        max_length: The length of every batch; the longest pack by default.
        attn_implementation: `"flash_attention_2"` keeps the indexed mask (B, T); `"sdpa"` and
            `"eager"` get a block-causal one, (B, 1, T, T), bool and additive float32.

    Returns:
        The padded tensors, `position_ids` (B, T) or (3, B, T), joined media and counts a pack.
    """
    layouts: dict[str, DocumentLayout] = {
        "flash_attention_2": IndexedMask(length=max_length),
        "sdpa": BlockCausalMask(length=max_length),
        "eager": BlockCausalMask(length=max_length, additive=True),
    }
    if attn_implementation not in layouts:
        raise ConfigError(
            f"attn_implementation must be one of {', '.join(layouts)}, not {attn_implementation!r}"
        )
    if not batch:
        return {}
    return _packs(batch, padding_idx, layouts[attn_implementation])


def packed_sequence_thd_vlm_collater(
    batch: Sequence[Mapping[str, Any]],
    padding_idx: int = 0,
    max_length: int | None = None,
    seq_lens_padding_value: int = -1000,
) -> dict[str, Any]:
    """Pads packs for Transformer Engine.

    Args:
        batch: What `PackedDatasetWrapper` gives.
        padding_idx: The padding token.
        max_length: The length of every batch; the longest pack by default.
        seq_lens_padding_value: Stands where a pack has no further document.

    Returns:
        As `neat_packed_vlm_collater`, with `seq_lens` and `seq_lens_padded` (B, D) and
        `qkv_format` in place of the mask.
    """
    if not batch:
        return {}
    layout = TransformerEngineTHD(length=max_length, fill=seq_lens_padding_value)
    return _packs(batch, padding_idx, layout)


def _packs(
    batch: Sequence[Mapping[str, Any]], padding_idx: int, layout: DocumentLayout
) -> dict[str, Any]:
    rows = _rows(batch)
    for row, pack in zip(rows, batch, strict=True):
        row["document_ids"] = row["attention_mask"]
        row["position_ids"] = torch.as_tensor(pack["position_ids"]).movedim(-1, 0)
    padded = layout(rows, {"input_ids": padding_idx, "labels": IGNORE_INDEX})
    counts = {kind: [int(p.get(f"n_{kind}s", 0)) for p in batch] for kind in ("image", "video")}
    return {**padded, **_media(batch), **_counts(counts)}


def _rows(examples: Sequence[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
    """The token tensors of each example; token types that one lacks are 0."""
    keys = [key for key in _TOKENS if any(example.get(key) is not None for example in examples)]
    rows = []
    for example in examples:
        ids = torch.as_tensor(example["input_ids"])
        row = {
            key: torch.zeros_like(ids)
            if example.get(key) is None
            else torch.as_tensor(example[key]).reshape(-1)
            for key in keys
        }
        rows.append(row)
    return rows


def _media(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    joined = {}
    for key in (*_PIXELS, *_MEDIA):
        values = [example[key] for example in examples if example.get(key) is not None]
        if values:
            value = torch.cat(values)
            joined[key] = value.to(torch.bfloat16) if key in _PIXELS else value
    return joined


def _counts(counts: Mapping[str, list[int]]) -> dict[str, Tensor]:
    return {f"n_{kind}s_per_sample": torch.tensor(n) for kind, n in counts.items() if any(n)}
