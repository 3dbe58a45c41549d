"""Memory for the tensors of a batch."""

import pytest
import torch

from vlmcollate import EncodedSample
from vlmcollate.batch.media import joined_media
from vlmcollate.extend import Concatenate
from vlmcollate.media.memory import empty
from vlmcollate.pixels import PIXEL_FORMATS, PixelBytes, PixelTable


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (1024, 1024), (1024, 4096)])
def test_empty_has_shape_and_dtype(shape):
    made = empty(shape, torch.bfloat16)
    assert (made.shape, made.dtype) == (shape, torch.bfloat16)
    assert made.is_contiguous()


def _check_kept(seen):
    """Every batch still has the one value that it was made with."""
    for value, tensor in seen:
        assert tensor.nbytes >= 1 << 22
        assert (tensor == value).all()


def test_later_batches_do_not_write_to_a_batch_that_is_kept():
    join, seen = Concatenate(), []
    for value in range(200):
        pixels = join([torch.full((512, 2048), float(value))], key="pixel_values")
        seen.append((value, pixels))
        del seen[1 : -3 if value % 2 else None]
    _check_kept(seen)


_SIDES = {"float32": 600, "bfloat16": 850, "uint8": 1200}
"""The sides of images whose pixels take more than 4 MiB, from which memory is not torch's."""


def _sample(value, side):
    """A sample of bytes of one value."""
    ids, pixels = torch.tensor([1]), torch.full((1, 3, side, side), value, dtype=torch.uint8)
    table = PixelTable.computed(torch.zeros(3), torch.ones(3), "first")
    return EncodedSample(
        tokens={"input_ids": ids},
        message_ids=ids,
        media_ids=ids,
        media={"pixel_values": pixels},
        pixel_tables={"pixel_values": table},
    )


@pytest.mark.parametrize("name", PIXEL_FORMATS)
def test_a_batch_that_is_kept_never_changes(name):
    """Batches are dropped in between, so that their memory serves the next ones."""
    seen = []
    for value in range(200):
        joined = joined_media([_sample(value, _SIDES[name])], {"pixel_values": Concatenate()}, name)
        pixels = joined["pixel_values"]
        seen.append((value, pixels.values if isinstance(pixels, PixelBytes) else pixels))
        del seen[1 : -3 if value % 2 else None]
    _check_kept(seen)
