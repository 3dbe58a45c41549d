"""Joins the media tensors of samples, whose pixels may be bytes.

Shapes: N rows of a joined tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from vlmcollate.media import Concatenate, Join, PadAndConcatenate
from vlmcollate.media.memory import BatchMemory, in_batch
from vlmcollate.pixels import PixelBytes, PixelFormat, PixelTable, dtype_of
from vlmcollate.sample import EncodedSample


def joined_media(
    samples: Sequence[EncodedSample], joins: Mapping[str, Join], pixels: PixelFormat
) -> dict[str, Tensor | PixelBytes]:
    """Returns the media tensors of all samples, joined by each key's rule.

    Args:
        samples: The samples.
        joins: The joining rule of each media key.
        pixels: What pixels become. Those that are no bytes in one of the samples become floats.
    """
    batch: dict[str, Tensor | PixelBytes] = {}
    dtype = dtype_of(pixels)
    for key in _keys(samples):
        join = joins[key]
        values = [sample.media.get(key) for sample in samples]
        table = _shared_table(samples, key)
        rows = _rows(values, join, table) if table is not None else None
        if table is None or rows is None:
            floats = [s.pixels(key, dtype) if key in s.media else None for s in samples]
            like = next(value for value in floats if value is not None)
            filled = (join.fill_missing(like) if value is None else value for value in floats)
            batch[key] = in_batch(join([value for value in filled if value is not None], key=key))
        elif pixels == "uint8":
            batch[key] = _as_bytes(rows, table, join)
        else:
            batch[key] = _as_floats(rows, table, join, dtype)
    return batch


def joined_bytes(
    samples: Sequence[EncodedSample], joins: Mapping[str, Join]
) -> tuple[dict[str, Tensor], dict[str, PixelTable]]:
    """Returns the joined media tensors of one sample, with pixels as bytes where that is possible.

    Samples without a key get no rows; see `joined_media` for the arguments.

    Returns:
        The tensors, and the tables of those that hold bytes.
    """
    media, tables = {}, {}
    for key in _keys(samples):
        table = _shared_table(samples, key)
        holders = [sample for sample in samples if key in sample.media]
        if table is not None and len({sample.media[key].shape[1:] for sample in holders}) == 1:
            tables[key] = table
        values = [s.media[key] if key in tables else s.pixels(key) for s in holders]
        media[key] = joins[key](values, key=key)
    return media, tables


def with_float_pixels(sample: EncodedSample, dtype: torch.dtype | None = None) -> EncodedSample:
    """Returns a sample whose pixels are what the processor makes of them."""
    media = {key: sample.pixels(key, dtype) for key in sample.media}
    return attrs.evolve(sample, media=media, pixel_tables={})


def _keys(samples: Sequence[EncodedSample]) -> list[str]:
    return list(dict.fromkeys(key for sample in samples for key in sample.media))


def _shared_table(samples: Sequence[EncodedSample], key: str) -> PixelTable | None:
    """Returns the table of a key whose pixels are bytes in every sample that has it."""
    tables = [sample.pixel_tables.get(key) for sample in samples if key in sample.media]
    return tables[0] if all(table == tables[0] for table in tables) else None


def _rows(values: Sequence[Tensor | None], join: Join, table: PixelTable) -> list[Tensor] | None:
    """Returns the bytes to concatenate, or `None` if a join does something else with them.

    A sample without the key has no bytes: no row, or an empty one that is all padding.
    """
    present = [value for value in values if value is not None]
    tails = {value.shape[1:] for value in present}
    if type(join) is Concatenate and not join.axis:
        return present if len(tails) == 1 else None
    is_whole = table.channels != "flat" or len({tail[-1] for tail in tails}) == 1
    if type(join) is not PadAndConcatenate or len({*map(len, tails)}) > 1 or not is_whole:
        return None
    if not join.every_sample:
        return present
    nothing = present[0].new_empty((1, *(0 for _ in present[0].shape[1:])))
    return [nothing if value is None else value for value in values]


def _as_floats(
    rows: Sequence[Tensor], table: PixelTable, join: Join, dtype: torch.dtype | None
) -> Tensor:
    """Writes the processor's values for bytes, (N, ...), straight to their place."""
    shapes = [table.shape(row) for row in rows]
    memory = BatchMemory.of(_joined_shape(shapes), dtype or table.values.dtype)
    copy = memory.copy if memory.file is not None else None
    # one for all samples, since the first write to each page of new memory takes the longest
    scratch = memory.tensor.new_empty(0, dtype=torch.float32)
    for row, place in zip(rows, _places(memory.tensor, shapes, _fill(join)), strict=True):
        if not place.is_contiguous():
            place.copy_(table(row, place.dtype))
        elif place.numel():
            table.write(row, place, copy=copy, scratch=scratch)
    return memory.tensor


def _as_bytes(rows: Sequence[Tensor], table: PixelTable, join: Join) -> PixelBytes:
    """Copies bytes, (N, ...), to their place."""
    shapes = [tuple(row.shape) for row in rows]
    memory = BatchMemory.of(_joined_shape(shapes), torch.uint8)
    batch = memory.tensor
    for row, place in zip(rows, _places(batch, shapes, 0), strict=True):
        memory.copy(place, row)
    if len({shape[1:] for shape in shapes}) == 1:
        return PixelBytes(batch, table)
    extents = torch.tensor([shape[1:] for shape in shapes for _ in range(shape[0])])
    return PixelBytes(batch, table, extents, _fill(join))


def _joined_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return sum(shape[0] for shape in shapes), *map(max, zip(*(s[1:] for s in shapes), strict=True))


def _places(batch: Tensor, shapes: Sequence[tuple[int, ...]], fill: float) -> Iterator[Tensor]:
    """Yields the place of each sample in the batch, whose padding is filled."""
    start = 0
    for number, *tail in shapes:
        place = batch[start : start + number]
        start += number
        if tuple(tail) != place.shape[1:]:
            place.fill_(fill)
            place = place[(slice(None), *map(slice, tail))]
        yield place


def _fill(join: Join) -> float:
    return join.value if isinstance(join, PadAndConcatenate) else 0
