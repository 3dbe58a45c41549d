"""What distinguishes rows, the same in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from vlmcollate.mixture.rows import MixtureRow


def digest_after(before: str, row: object) -> str:
    """Returns a short digest of rows in their order, of which pixels and audio are no part.

    Args:
        before: The digest of the rows before, "" for none.
        row: The next row.
    """
    digest = hashlib.blake2b(before.encode(), digest_size=8)
    add_to_digest(row, digest)
    return digest.hexdigest()


def add_to_digest(value: object, digest: Any, *, depth: int = 64) -> None:
    """Adds what distinguishes rows and is the same in every process.

    Args:
        value: The row, or a part of it.
        digest: The digest of `hashlib` to update.
        depth: The number of levels of nesting that are read.
    """
    if not depth:  # nested too deeply, or inside itself
        return
    if isinstance(value, MixtureRow):
        value = value.source, value.index
    if isinstance(value, Mapping):
        for key, item in value.items():
            add_to_digest(key, digest, depth=depth - 1)
            add_to_digest(item, digest, depth=depth - 1)
    elif isinstance(value, list | tuple):
        digest.update(str(len(value)).encode())
        for item in value:
            add_to_digest(item, digest, depth=depth - 1)
    elif isinstance(value, bytes):
        digest.update(value[:4096])
    elif isinstance(value, int):
        digest.update(f"{value:x}".encode())
    elif isinstance(value, str | float | None):
        digest.update(repr(value).encode("utf-8", "surrogatepass"))
    else:  # media: an object's size is the same in every process, its address is not
        size = getattr(value, "shape", getattr(value, "size", None))
        shown = tuple(size) if isinstance(size, tuple) else ""
        digest.update(f"{type(value).__name__}{shown}".encode())
