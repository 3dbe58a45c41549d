"""Tensors as bytes in the safetensors format: copied once when written, and never when read.

The package `safetensors` copies them several times.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Bytes = npt.NDArray[np.uint8]
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The types of safetensors."""
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_KEY = "vlmcollate"


@attrs.frozen(eq=False)
class TensorBytes:
    """Tensors that are to be written as bytes.

    Attributes:
        head: The first bytes, which describe the tensors.
        tensors: The tensors in the order of their bytes.
        size: The number of all bytes.
    """

    head: bytes
    tensors: tuple[Tensor, ...]
    size: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> TensorBytes:
        """Plans the bytes of tensors and of facts about them.

        Args:
            tensors: The tensors by name.
            facts: JSON values.
        """
        # large items first, so that each item is at a multiple of its size
        names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
        header: dict[str, Any] = {"__metadata__": {_KEY: json.dumps(facts)}}
        start = 0
        for name in names:
            tensor = tensors[name]
            header[name] = {
                "dtype": _NAMES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [start, start + tensor.nbytes],
            }
            start += tensor.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        head = len(text).to_bytes(8, "little") + text
        return cls(head, tuple(tensors[name] for name in names), len(head) + start)

    def write(self, out: Bytes) -> None:
        """Writes the bytes.

        Args:
            out: Memory of `size` bytes.
        """
        start = len(self.head)
        out[:start] = np.frombuffer(self.head, np.uint8)
        for tensor in self.tensors:
            if tensor.nbytes:
                end = start + tensor.nbytes
                place = torch.frombuffer(out[start:end], dtype=tensor.dtype)
                place.view(tensor.shape).copy_(tensor)
                start = end

    def to_array(self) -> Bytes:
        """Returns the bytes."""
        out = np.empty(self.size, np.uint8)
        self.write(out)
        return out


def read_tensors(data: Bytes) -> tuple[dict[str, Tensor], str]:
    """Reads tensors, which share the memory of their bytes.

    Args:
        data: The bytes of a `TensorBytes`, which can be written to.

    Returns:
        The tensors by name, and the facts as JSON.

    Raises:
        KeyError, TypeError, ValueError: The bytes are those of no `TensorBytes`.
    """
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    entries, facts = _read_header(data[8:start].tobytes())
    tensors = {
        name: torch.frombuffer(data, dtype=dtype, count=count, offset=start + place).view(shape)
        if count
        else torch.empty(shape, dtype=dtype)
        for name, dtype, shape, count, place in entries
    }
    return tensors, facts


_Entry = tuple[str, torch.dtype, tuple[int, ...], int, int]


@lru_cache(maxsize=1024)
def _read_header(header: bytes) -> tuple[list[_Entry], str]:
    """Returns each tensor's name, dtype, shape, size and first byte, and the facts.

    The headers of many samples are equal.
    """
    found = json.loads(header)
    facts = found.pop("__metadata__")[_KEY]
    entries = []
    for name, entry in found.items():
        dtype, shape, (start, _) = (
            _DTYPES[entry["dtype"]],
            tuple(entry["shape"]),
            entry["data_offsets"],
        )
        entries.append((name, dtype, shape, math.prod(shape), start))
    return entries, facts
