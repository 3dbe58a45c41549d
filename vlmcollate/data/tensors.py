"""Tensors as bytes in the safetensors format: copied once when written, and never when read.

The package `safetensors` copies them several times.
"""

from __future__ import annotations

import json
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
_NUMPY = {
    torch.bool: "?",
    torch.int8: "i1",
    torch.int16: "i2",
    torch.int32: "i4",
    torch.int64: "i8",
    torch.float16: "f2",
    torch.float32: "f4",
    torch.float64: "f8",
    torch.complex64: "c8",
}
"""The types of NumPy but for unsigned integers, which stand for the others as well."""
_UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
_KINDS = {
    name: (
        np.dtype(_NUMPY.get(dtype, f"u{dtype.itemsize}")),
        None if dtype in (*_NUMPY, *_UNSIGNED) else dtype,
    )
    for name, dtype in _DTYPES.items()
}
"""The NumPy type of each type, and the dtype that it stands for if it is another one."""
_SMALL = 16
"""A tensor is small if this many of its size take less than all bytes."""
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
    def of(cls, tensors: Mapping[str, Tensor], facts: str) -> TensorBytes:
        """Plans the bytes of tensors and of facts about them.

        Args:
            tensors: The tensors by name.
            facts: Any text.
        """
        # large items first, so that each item is at a multiple of its size
        names = sorted(
            tensors, key=lambda name: (-tensors[name].itemsize, tensors[name].nbytes, name)
        )
        header: dict[str, Any] = {"__metadata__": {_KEY: facts}}
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
    """Reads tensors, the large ones of which share the memory of their bytes.

    Args:
        data: The bytes of a `TensorBytes`, which can be written to, and any others behind them.

    Returns:
        The tensors by name, and the facts.

    Raises:
        KeyError, TypeError, ValueError: The bytes are those of no `TensorBytes`.
    """
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = _read_header(data[8:start].tobytes())
    small, large = data[start : start + header.edge].copy(), data[start:]
    tensors = {}
    for name, kind, dtype, shape, place in header.entries:
        if kind is None:
            tensors[name] = torch.empty(shape, dtype=dtype)
            continue
        values = np.ndarray(shape, kind, small if place < header.edge else large, place)
        found = torch.from_numpy(values)
        tensors[name] = found if dtype is None else found.view(dtype)
    return tensors, header.facts


_Entry = tuple[str, Any, torch.dtype | None, tuple[int, ...], int]


@attrs.frozen(eq=False)
class _Header:
    """The description of tensors.

    Attributes:
        entries: Each tensor's name, NumPy type or `None` if it is empty, dtype if that of the NumPy
            type is another, shape and first byte.
        edge: The bytes of all tensors before the first large one. They are copied, so that a
            tensor that is kept keeps no large one.
        facts: The facts.
    """

    entries: list[_Entry]
    edge: int
    facts: str


@lru_cache(maxsize=1024)
def _read_header(header: bytes) -> _Header:
    """Reads a header; those of many samples are equal."""
    found = json.loads(header)
    facts = found.pop("__metadata__")[_KEY]
    entries: list[_Entry] = []
    edge, total = 0, max((entry["data_offsets"][1] for entry in found.values()), default=0)
    for name, entry in found.items():
        start, end = entry["data_offsets"]
        kind, dtype = _KINDS[entry["dtype"]] if end > start else (None, _DTYPES[entry["dtype"]])
        entries.append((name, kind, dtype, tuple(entry["shape"]), start))
        if start == edge and _SMALL * (end - start) < total:
            edge = end
    return _Header(entries, edge, facts)
