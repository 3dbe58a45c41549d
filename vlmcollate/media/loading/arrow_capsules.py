"""Structures of the Arrow C data interface, by which Pillow shows the memory of an image.

Source:
    https://arrow.apache.org/docs/format/CDataInterface.html
    https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any


class ArrowArray(ctypes.Structure):
    """The memory of a column; the capsule that holds it releases it."""


ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
address_in_capsule: Callable[[Any, bytes], int] = _prototype(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
"""Returns the address that a capsule of a name holds; a function of its own, since others may set
the types of the one in `ctypes.pythonapi`."""
