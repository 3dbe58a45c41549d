"""Memory for the tensors of a batch."""

import pytest
import torch

from vlmcollate.extend import Concatenate
from vlmcollate.media.memory import empty


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (1024, 1024), (1024, 4096)])
def test_empty_has_shape_and_dtype(shape):
    made = empty(shape, torch.bfloat16)
    assert (made.shape, made.dtype) == (shape, torch.bfloat16)
    assert made.is_contiguous()


def test_later_batches_do_not_write_to_a_batch_that_is_kept():
    join, seen = Concatenate(), []
    for value in range(200):
        seen.append(join([torch.full((512, 2048), float(value))], key="pixel_values"))
        del seen[1 : -3 if value % 2 else None]
    assert seen[0].count_nonzero() == 0
    for tensor in seen:
        assert tensor.unique().numel() == 1
