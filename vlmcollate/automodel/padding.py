"""Automodel's collate functions for samples that are tokenized, or packed, already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.automodel.conventions import (
    TOKEN_KEYS,
    automodel_collator,
    shifted_tokens,
    with_bfloat16,
)
from vlmcollate.errors import ConfigError, EmptyBatchError
from vlmcollate.media import Concatenate, Join
from vlmcollate.padding import (
    BlockCausalMask,
    DocumentLayout,
    IndexedMask,
    PadToLength,
    PadToLongest,
    TransformerEngineTHD,
)
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.stacking import fill_values, joined_media, media_counts, token_rows

JOINS_KEY = "media_joins"
"""Under this key a pack says how its media joins that of others."""
MEDIA_JOINS: Mapping[str, Join] = {
    "pixel_values": Concatenate(),
    "image_grid_thw": Concatenate(by="image"),
    "image_position_ids": Concatenate(by="image"),
    "pixel_values_videos": Concatenate(),
    "video_grid_thw": Concatenate(by="video"),
    "second_per_grid_ts": Concatenate(by="video"),
}
"""How media joins where neither a processor nor a pack says it: the keys that Automodel knows."""
_KINDS = ("image", "video", "audio")
_PACK_KEYS = ("position_ids", "block_ids")


def pad_collate_fn(
    examples: Sequence[Mapping[str, Any]], processor: Any, max_length: int | None = None
) -> dict[str, Tensor]:
    """Pads samples that are tokenized already, joins their media, and shifts.

    Args:
        examples: Each with `input_ids`, `attention_mask` and `labels` (L,), and maybe other keys
            that run along the tokens, the media of the processor's family, and how many items there
            are, `n_images` and so on, as `PreTokenizedDatasetWrapper` gives them. Where a sample
            does not say how many, its media keys with a row an item do.
        processor: Its tokenizer has the padding token, and its family says how the media joins. A
            bare tokenizer, or a processor without a chat template, joins the keys of `MEDIA_JOINS`
            alone.
        max_length: The length before the shift; the longest sample by default.

    Returns:
        Token tensors (B, T - 1), joined media (pixels in bfloat16) and counts.

    Raises:
        ConfigError: A sample lacks a key that is needed, or holds one that nobody declared.
        EmptyBatchError: There is no sample.
        SampleTooLongError: A sample is longer than `max_length`.
    """
    if not examples:
        raise EmptyBatchError("no sample to collate; the batch is empty")
    joins = _joins_of(processor)
    samples = [_sample(example, f"sample {i}", joins) for i, example in enumerate(examples)]
    padding = PadToLongest() if max_length is None else PadToLength(length=max_length)
    tokenizer = getattr(processor, "tokenizer", processor)
    tokens = shifted_tokens(padding(token_rows(samples), fill_values(tokenizer)))
    return with_bfloat16({**tokens, **joined_media(samples, joins), **media_counts(samples)})


def neat_packed_vlm_collater(
    batch: Sequence[Mapping[str, Any]],
    padding_idx: int = 0,
    max_length: int | None = None,
    attn_implementation: str = "sdpa",
) -> dict[str, Any]:
    """Pads packs, whose labels are shifted already.

    Args:
        batch: What `PackedDatasetWrapper` gives. Packs of another origin join the media keys of
            `MEDIA_JOINS` alone.
        padding_idx: The padding token.
        max_length: The length of every batch; the longest pack by default.
        attn_implementation: `"flash_attention_2"` keeps the indexed mask (B, T); `"sdpa"` and
            `"eager"` get a block-causal one, (B, 1, T, T), bool and additive float32.

    Returns:
        The padded tensors, `position_ids` (B, T) or (3, B, T), joined media and counts a pack.

    Raises:
        ConfigError: A pack lacks a key that is needed, or holds one that nobody declared.
        SampleTooLongError: A pack is longer than `max_length`.
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
    joins = next((pack[JOINS_KEY] for pack in batch if pack.get(JOINS_KEY)), MEDIA_JOINS)
    packs = [_sample(pack, f"pack {i}", joins, _PACK_KEYS) for i, pack in enumerate(batch)]
    rows = token_rows(packs)
    for row in rows:
        row["document_ids"] = row["attention_mask"]
    fill = {"input_ids": padding_idx, "labels": IGNORE_INDEX}
    tokens = layout(rows, fill)
    return with_bfloat16({**tokens, **joined_media(packs, joins), **media_counts(packs)})


def _joins_of(processor: Any) -> Mapping[str, Join]:
    try:
        collator = automodel_collator(processor)
    except ConfigError:
        return MEDIA_JOINS  # without a tokenizer of its own, or a template
    return collator.media_joins


def _sample(
    example: Mapping[str, Any], name: str, joins: Mapping[str, Join], more: Sequence[str] = ()
) -> EncodedSample:
    """An example in this library's form, each of its keys declared to be tokens or media.

    Raises:
        ConfigError: One is not, or one is missing.
    """
    given = {k: v for k, v in example.items() if v is not None and k != JOINS_KEY}
    counts = {kind: given.pop(f"n_{kind}s") for kind in _KINDS if f"n_{kind}s" in given}
    needed = ("input_ids", "attention_mask", "labels", *more[:1])
    missing = [key for key in needed if key not in given]
    if missing:
        raise ConfigError(f"{name} has no {', '.join(missing)}; it holds {', '.join(given)}")
    tokens: dict[str, Tensor] = {}
    media: dict[str, Tensor] = {}
    for key, value in given.items():
        if key in (*TOKEN_KEYS, *more):
            tokens[key] = _along_tokens(key, torch.as_tensor(value))
        elif key in joins:
            media[key] = torch.as_tensor(value)
        else:
            raise ConfigError(
                f"{name} holds {key!r}, which nobody declared: it runs along no tokens, and the "
                f"media keys are {', '.join(joins) or 'none'}; remove it, or declare it in the "
                "media_joins of a collator that you register for the processor"
            )
    length = len(tokens["input_ids"])
    for key, value in tokens.items():
        if len(value) != length:
            raise ConfigError(f"{name} has {length} input_ids, but {len(value)} {key}")
    for kind in _KINDS:
        rows = [len(value) for key, value in media.items() if joins[key].by == kind]
        counts.setdefault(kind, max(rows, default=0))
    nobody = torch.full((length,), -1)
    return EncodedSample(
        tokens=tokens,
        message_ids=nobody,
        media_ids=nobody,
        media=media,
        media_counts={kind: int(count) for kind, count in counts.items() if count},
    )


def _along_tokens(key: str, value: Tensor) -> Tensor:
    """A token tensor with the tokens as its first axis."""
    if key == "position_ids":
        return value.movedim(-1, 0)
    return value if key == "cross_attention_mask" else value.reshape(-1)
