"""Joins the media tensors of samples, whose pixels may be bytes.

Shapes: N rows of a joined tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor

from vlmcollate.media import Concatenate, Join
from vlmcollate.media.memory import empty
from vlmcollate.pixels import PixelTable
from vlmcollate.sample import EncodedSample


def joined_media(
    samples: Sequence[EncodedSample], joins: Mapping[str, Join], dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Returns the media tensors of all samples, joined by each key's rule.

    Args:
        samples: The samples.
        joins: The joining rule of each media key.
        dtype: The dtype of pixels that are stored as bytes; the processor's by default.
    """
    batch = {}
    for key in _keys(samples):
        table = _shared_table(samples, joins, key)
        if table is not None:
            batch[key] = _written([s.media[key] for s in samples if key in s.media], table, dtype)
            continue
        values = [sample.pixels(key, dtype) if key in sample.media else None for sample in samples]
        like = next(value for value in values if value is not None)
        filled = (joins[key].fill_missing(like) if value is None else value for value in values)
        batch[key] = joins[key]([value for value in filled if value is not None], key=key)
    return batch


def joined_bytes(
    samples: Sequence[EncodedSample], joins: Mapping[str, Join], dtype: torch.dtype | None
) -> tuple[dict[str, Tensor], dict[str, PixelTable]]:
    """Returns the joined media tensors, with pixels as bytes where that is possible.

    Samples without a key get no rows; see `joined_media` for the arguments.

    Returns:
        The tensors, and the tables of those that hold bytes.
    """
    media, tables = {}, {}
    for key in _keys(samples):
        table = _shared_table(samples, joins, key)
        if table is not None:
            tables[key] = table
        holders = [sample for sample in samples if key in sample.media]
        values = [s.pixels(key, dtype) if table is None else s.media[key] for s in holders]
        media[key] = joins[key](values, key=key)
    return media, tables


def with_float_pixels(sample: EncodedSample, dtype: torch.dtype | None) -> EncodedSample:
    """Returns a sample whose pixels are what the processor makes of them."""
    media = {key: sample.pixels(key, dtype) for key in sample.media}
    return attrs.evolve(sample, media=media, pixel_tables={})


def _keys(samples: Sequence[EncodedSample]) -> list[str]:
    return list(dict.fromkeys(key for sample in samples for key in sample.media))


def _shared_table(
    samples: Sequence[EncodedSample], joins: Mapping[str, Join], key: str
) -> PixelTable | None:
    """Returns the table of a key whose bytes can be concatenated, or `None`."""
    if type(joins[key]) is not Concatenate or joins[key] != Concatenate(rows=joins[key].rows):
        return None
    holders = [sample for sample in samples if key in sample.media]
    table = holders[0].pixel_tables.get(key)
    tails = {sample.media[key].shape[1:] for sample in holders}
    is_shared = all(sample.pixel_tables.get(key) == table for sample in holders)
    return table if is_shared and len(tails) == 1 else None


def _written(values: Sequence[Tensor], table: PixelTable, dtype: torch.dtype | None) -> Tensor:
    """Writes the processor's values for bytes, (N, ...), straight to their place."""
    shape = (sum(map(len, values)), *table.shape(values[0])[1:])
    batch = empty(shape, dtype or table.values.dtype)
    start = 0
    for value in values:
        table.write(value, batch[start : start + len(value)])
        start += len(value)
    return batch
