"""Tensors survive as bytes, which are those of safetensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from tests.conftest import NIGHTLY
from vlmcollate.data.tensors import _DTYPES, TensorBytes, read_tensors


def equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Compares bits, since NaN differs from itself."""
    bits = [
        tensor.contiguous().reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []
        for tensor in (left, right)
    ]
    return (left.dtype, left.shape) == (right.dtype, right.shape) and bits[0] == bits[1]


@st.composite
def any_tensor(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(st.sampled_from(list(_DTYPES.values())))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    size = int(np.prod(shape)) * dtype.itemsize
    bits = random.integers(0, 2 if dtype == torch.bool else 256, size, np.uint8)
    tensor = torch.empty(shape, dtype=dtype)
    if size:
        tensor = torch.from_numpy(bits).view(dtype).reshape(shape)
    return tensor.T if len(shape) == 2 and draw(st.booleans()) else tensor


@settings(max_examples=300 if NIGHTLY else 60, deadline=None)
@given(st.dictionaries(st.text(max_size=4), any_tensor(), max_size=5), st.text(max_size=5))
def test_tensors_survive_and_large_ones_share_the_bytes(tensors, fact):
    data = TensorBytes.of(tensors, fact).to_array()
    found, facts = read_tensors(data)
    assert found.keys() == tensors.keys()
    assert all(equal(found[key], tensors[key]) for key in tensors)
    assert facts == fact
    for tensor in found.values():
        if 16 * tensor.nbytes >= len(data):
            start = tensor.data_ptr() - data.ctypes.data
            assert 0 <= start <= len(data) - tensor.nbytes


def test_another_reader_reads_the_bytes():
    tensors = {
        "pixel_values": torch.arange(35, dtype=torch.uint8).reshape(5, 7).T,
        "media": torch.tensor([[1, 2, 3]]),
        "bfloat": torch.tensor([1.5, -2], dtype=torch.bfloat16),
        "one": torch.tensor(True),
        "nothing": torch.empty(0, 4),
    }
    data = TensorBytes.of(tensors, "").to_array()
    found = load(data.tobytes())
    assert found.keys() == tensors.keys()
    assert all(equal(found[key], tensors[key]) for key in tensors)


def test_a_small_tensor_does_not_keep_a_large_one():
    tensors = {
        "pixels": torch.ones(5000, dtype=torch.uint8),
        "mask": torch.ones(300, dtype=torch.bool),
        "ids": torch.arange(30),
    }
    data = TensorBytes.of(tensors, "").to_array()
    found, _ = read_tensors(data)
    is_inside = {
        key: 0 <= tensor.data_ptr() - data.ctypes.data < len(data) for key, tensor in found.items()
    }
    assert is_inside == {"pixels": True, "mask": False, "ids": False}


def test_items_are_aligned():
    tensors = {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(2, dtype=torch.int64)}
    data = TensorBytes.of(tensors, "").to_array()
    assert (read_tensors(data)[0]["b"].data_ptr() - data.ctypes.data) % 8 == 0


def test_a_type_that_cannot_be_written_is_refused():
    with pytest.raises(KeyError, match="complex128"):
        TensorBytes.of({"a": torch.ones(1, dtype=torch.complex128)}, "")
