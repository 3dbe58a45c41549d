"""Automodel's collate function for samples that are already tokenized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vlmcollate.automodel.conventions import automodel_collator, cast_pixels, shift_tokens
from vlmcollate.automodel.tokenized import MEDIA_JOINS, join_media, read_tokenized
from vlmcollate.batch.stacking import fill_values, token_rows
from vlmcollate.errors import ConfigError, EmptyBatchError
from vlmcollate.media import Join
from vlmcollate.padding import PadToLength, PadToLongest


def pad_collate_fn(
    examples: Sequence[Mapping[str, Any]], processor: Any, max_length: int | None = None
) -> dict[str, Tensor]:
    """Pads tokenized samples, joins their media, and shifts the labels.

    Args:
        examples: The samples, each with `input_ids`, `attention_mask` and `labels` (L,), and
            optionally other token-aligned keys, the media keys of the processor's family, and the
            numbers of media items such as `n_images`. `PreTokenizedDatasetWrapper` returns such
            samples. A missing number is that of the rows of a media key with one row per item.
        processor: The processor, whose tokenizer has the padding token and whose family declares
            the joins. With a bare tokenizer, or a processor without a chat template, only the media
            keys of Automodel are joined.
        max_length: The length of the batch before the shift, by default that of its longest sample.

    Returns:
        Token tensors (B, T - 1), joined media with pixels in bfloat16, and counts. Pixels are a
        list of tensors if a sample holds such a list, or if their sizes differ and the family does
        not pad them.

    Raises:
        ConfigError: A sample lacks a required key, or has an undeclared one.
        EmptyBatchError: There are no samples.
        SampleTooLongError: A sample is longer than `max_length`.
    """
    if not examples:
        raise EmptyBatchError("the batch is empty: found no samples, expected at least one")
    joins = joins_of(processor)
    items = [read_tokenized(example, f"sample {i}", joins) for i, example in enumerate(examples)]
    padding = PadToLongest() if max_length is None else PadToLength(length=max_length)
    tokenizer = getattr(processor, "tokenizer", processor)
    rows = token_rows([item.sample for item in items])
    tokens = shift_tokens(padding(rows, fill_values(tokenizer)))
    return cast_pixels({**tokens, **join_media(items, joins)})


def joins_of(processor: Any) -> Mapping[str, Join]:
    """Returns the joins of a processor's family."""
    try:
        collator = automodel_collator(processor)
    except ConfigError:
        return MEDIA_JOINS  # a bare tokenizer, or a processor without a chat template
    return collator.family.joins
