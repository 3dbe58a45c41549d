"""Sums that bytes on disk are held against before anything trusts them.

They find damage and mix-ups. They are no signature: who writes the bytes can write their sums.
"""

from __future__ import annotations

import hashlib
from typing import Any

UNSEALED = "0" * 64
"""What stands where a seal will be, until all bytes around it are known."""


class DamagedError(Exception):
    """Bytes are not those that were written; never leaves the package."""


def sum_of(data: Any) -> str:
    """The SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def check_sum(data: Any, expected: str, what: str) -> None:
    """Refuses bytes that have another sum.

    Raises:
        DamagedError: They have.
    """
    found = sum_of(data)
    if found != expected:
        raise DamagedError(f"{what}: found SHA-256 {found[:12]}..., expected {expected[:12]}...")


def sealed(data: bytes, key: str) -> bytes:
    """Fills in the seal: the SHA-256 of the bytes as they are without it.

    Args:
        data: Bytes that hold JSON, in it once the key with `UNSEALED`. No string in JSON can look
            like the key, since the quotation marks of a string are escaped.
        key: The seal's key.
    """
    place = _place(data, key)
    return data[:place] + sum_of(data).encode() + data[place + len(UNSEALED) :]


def seal_of(data: bytes, key: str, what: str) -> str:
    """The seal of bytes that `sealed` gave.

    Raises:
        DamagedError: There is none, or the bytes changed since.
    """
    place = _place(data, key)
    seal = data[place : place + len(UNSEALED)].decode("ascii", "replace")
    bare = data[:place] + UNSEALED.encode() + data[place + len(UNSEALED) :]
    check_sum(bare, seal, what)
    return seal


def _place(data: bytes, key: str) -> int:
    """Where the seal begins."""
    mark = f'"{key}": "'.encode()
    place = data.find(mark)
    if place < 0:
        raise DamagedError(f"it has no {key!r}")
    return place + len(mark)
