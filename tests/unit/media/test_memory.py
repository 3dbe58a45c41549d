"""The memory of freed batches is reused, and never while a view of it is alive."""

from typing import Any

import pytest
import torch

from vlmcollate.extend import Concatenate
from vlmcollate.media.memory import Pool


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (1024, 1024)])
def test_empty_has_shape_and_dtype(shape):
    made = Pool().empty(shape, torch.bfloat16)
    assert (made.shape, made.dtype) == (shape, torch.bfloat16)
    assert made.is_contiguous()


def test_memory_is_reused_only_after_every_view_of_it_is_gone():
    pool = Pool()
    first = pool.empty((1 << 20,), torch.float32)
    place = first.data_ptr()
    views: list[Any] = [first[5:].view(torch.int32), first.numpy(), first.numpy()[7:].T]
    del first
    while views:
        assert pool.empty((1 << 20,), torch.float32).data_ptr() != place
        pool._free.clear()  # the block of the last line, which would be reused in place of `first`
        views.pop()
    assert pool.empty((1 << 20,), torch.float32).data_ptr() == place


def test_a_much_smaller_tensor_does_not_hold_a_large_block():
    pool = Pool()
    place = pool.empty((1 << 24,), torch.uint8).data_ptr()
    assert pool.empty((1 << 22,), torch.uint8).data_ptr() != place
    assert pool.empty((1 << 24,), torch.uint8).data_ptr() == place


def test_no_more_than_the_limit_is_kept(monkeypatch):
    monkeypatch.setattr(Pool, "limit", 3 << 20)
    pool = Pool()
    several = [pool.empty((1 << 20,), torch.uint8) for _ in range(5)]
    del several
    assert pool.free_bytes == 3 << 20
    pool.empty((4 << 20,), torch.uint8)  # freed at once
    assert pool.free_bytes == 3 << 20


def test_later_batches_do_not_write_to_a_batch_that_is_kept():
    join, seen = Concatenate(), []
    for value in range(6):
        seen.append(join([torch.full((512, 1024), float(value))], key="pixel_values"))
        del seen[: -3 if value % 2 else 0]
        for tensor in seen:
            assert tensor.unique().numel() == 1
    assert [int(tensor[0, 0]) for tensor in seen] == [3, 4, 5]
