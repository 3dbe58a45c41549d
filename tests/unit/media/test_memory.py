import threading

import torch

from vlmcollate.media.memory import Scratch, empty


def test_moved_tensors_keep_their_values_and_dtypes():
    scratch = Scratch()
    values = [torch.arange(5), torch.ones(2, 3, dtype=torch.bfloat16), torch.zeros(0, 4)]
    for _ in range(3):  # the first round measures, the others move
        scratch.clear()
        moved = [scratch.move(value) for value in values]
        for value, other in zip(values, moved, strict=True):
            assert other.dtype == value.dtype
            assert torch.equal(other, value)
    assert [scratch.holds(value) for value in moved] == [True, True, False]
    assert not any(scratch.holds(value) for value in values)


def test_what_does_not_fit_stays_where_it_is(monkeypatch):
    monkeypatch.setattr(Scratch, "limit", 64)
    scratch = Scratch()
    small, large = torch.ones(4), torch.ones(1000)
    for _ in range(2):
        scratch.clear()
        moved = scratch.move(small), scratch.move(large)
    assert moved[1] is large
    assert scratch.holds(moved[0])


def test_each_thread_has_its_own():
    scratch = Scratch()
    value = torch.ones(8)
    for _ in range(2):
        scratch.clear()
        mine = scratch.move(value)

    def other():
        scratch.clear()
        scratch.move(value * 7)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert torch.equal(mine, value)


def test_empty_has_shape_and_dtype():
    assert empty((2, 3), torch.bfloat16).shape == (2, 3)
    assert empty((0, 3), torch.float32).dtype == torch.float32
