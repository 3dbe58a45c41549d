"""Automodel's collate function for samples that are tokenized already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vlmcollate.automodel.conventions import automodel_collator, shifted_tokens, with_bfloat16
from vlmcollate.automodel.given import MEDIA_JOINS, media_of, read
from vlmcollate.batch.stacking import fill_values, token_rows
from vlmcollate.errors import ConfigError, EmptyBatchError
from vlmcollate.media import Join
from vlmcollate.padding import PadToLength, PadToLongest


def pad_collate_fn(
    examples: Sequence[Mapping[str, Any]], processor: Any, max_length: int | None = None
) -> dict[str, Tensor]:
    """Pads samples that are tokenized already, joins their media, and shifts.

    Args:
        examples: Each with `input_ids`, `attention_mask` and `labels` (L,), and maybe other keys
            that run along the tokens, the media of the processor's family, and how many items there
            are, `n_images` and so on, as `PreTokenizedDatasetWrapper` gives them. If a sample
            does not say how many, its media keys with a row an item do.
        processor: Its tokenizer has the padding token, and its family says how the media joins. A
            bare tokenizer, or a processor without a chat template, joins the keys of `MEDIA_JOINS`
            alone.
        max_length: The length before the shift; the longest sample by default.

    Returns:
        Token tensors (B, T - 1), joined media (pixels in bfloat16) and counts. Pixels that come as
        lists of tensors, or differ in size without a family that pads them, stay a list.

    Raises:
        ConfigError: A sample lacks a key that is needed, or holds an undeclared one.
        EmptyBatchError: There is no sample.
        SampleTooLongError: A sample is longer than `max_length`.
    """
    if not examples:
        raise EmptyBatchError("no sample to collate; the batch is empty")
    joins = joins_of(processor)
    items = [read(example, f"sample {i}", joins) for i, example in enumerate(examples)]
    padding = PadToLongest() if max_length is None else PadToLength(length=max_length)
    tokenizer = getattr(processor, "tokenizer", processor)
    rows = token_rows([item.sample for item in items])
    tokens = shifted_tokens(padding(rows, fill_values(tokenizer)))
    return with_bfloat16({**tokens, **media_of(items, joins)})


def joins_of(processor: Any) -> Mapping[str, Join]:
    """How the media of a processor's family joins."""
    try:
        collator = automodel_collator(processor)
    except ConfigError:
        return MEDIA_JOINS  # without a tokenizer of its own, or a template
    return collator.family.joins
