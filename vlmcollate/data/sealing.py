"""Checksums of bytes on disk, which are verified before anything else reads the bytes.

They find damage and mix-ups. They are no signature: anyone who can write the bytes can write their
checksums.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from vlmcollate.errors import ConfigError

UNSEALED = "0" * 64
"""The value of a seal until all bytes around it are known."""


class DamagedError(Exception):
    """Bytes differ from those that were written; never leaves the package."""


def checksum(data: Any) -> str:
    """Returns the SHA-256 of bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class FastChecksum:
    """The XXH3 of bytes that are passed in parts, 16 bytes, which costs less than to copy them.

    Raises:
        ConfigError: The package `xxhash` is not installed.
    """

    def __init__(self) -> None:
        self._sum = _xxhash().xxh3_128()
        self.update = self._sum.update

    def digest(self) -> bytes:
        """Returns the checksum."""
        found: bytes = self._sum.digest()
        return found

    def verify(self, expected: bytes, problem: str) -> None:
        """Refuses bytes that have another checksum.

        Raises:
            DamagedError: The checksums differ.
        """
        found = self.digest()
        if found != expected:
            raise DamagedError(
                f"{problem}: found XXH3 {found.hex()[:12]}..., expected {expected.hex()[:12]}..."
            )


@cache
def _xxhash() -> Any:
    try:
        import xxhash
    except ImportError as error:
        raise ConfigError(
            "xxhash, which computes the checksums of rows, is not installed; run pip install "
            "'vlmcollate[prepare]'"
        ) from error
    return xxhash


def fast_checksum(data: Any) -> bytes:
    """Returns the `FastChecksum` of bytes, in one call."""
    found: bytes = _xxhash().xxh3_128_digest(data)
    return found


def verify_checksum(data: Any, expected: str, problem: str) -> None:
    """Refuses bytes that have another checksum.

    Args:
        data: The bytes.
        expected: The checksum of the bytes that were written.
        problem: What is wrong if the checksums differ.

    Raises:
        DamagedError: The checksums differ.
    """
    found = checksum(data)
    if found != expected:
        raise DamagedError(f"{problem}: found SHA-256 {found[:12]}..., expected {expected[:12]}...")


def add_seal(data: bytes, key: str) -> bytes:
    """Fills in the seal: the checksum of the bytes without it.

    Args:
        data: JSON that holds the key once, with the value `UNSEALED`. No string in JSON can look
            like the key, since the quotation marks in strings are escaped.
        key: The seal's key.
    """
    start = _find_seal(data, key)
    return data[:start] + checksum(data).encode() + data[start + len(UNSEALED) :]


def verify_seal(data: bytes, key: str, problem: str) -> str:
    """Returns the seal of bytes from `add_seal`.

    Raises:
        DamagedError: There is no seal, or the bytes changed since.
    """
    start = _find_seal(data, key)
    seal = data[start : start + len(UNSEALED)].decode("ascii", "replace")
    bare = data[:start] + UNSEALED.encode() + data[start + len(UNSEALED) :]
    verify_checksum(bare, seal, problem)
    return seal


def _find_seal(data: bytes, key: str) -> int:
    """Returns the position of the seal's first byte."""
    mark = f'"{key}": "'.encode()
    start = data.find(mark)
    if start < 0:
        raise DamagedError(f"it has no {key!r}")
    return start + len(mark)
