"""Hashes of the content of a source, so that a changed source is noticed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vlmcollate.data.failing_rows import row_or_error
from vlmcollate.data.sealing import FastChecksum
from vlmcollate.data.source_files import open_file
from vlmcollate.errors import SampleError

_BLOCK_BYTES = 1 << 20


class UnknownContentError(Exception):
    """The content of a value cannot be hashed; never leaves the package."""


def hash_file(file: str | Path) -> str:
    """Returns the size of a file and a hash of all of its content."""
    digest, size = FastChecksum(), 0
    with open_file(file) as data:
        while block := data.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return f"{size} bytes, {digest.digest().hex()}"


def hash_rows(dataset: Any) -> str:
    """Returns a hash of the content of all rows, the same in every process.

    A row that the dataset raises counts by the class of the error.

    Raises:
        SourceError: The dataset raised an error that every other row would raise, too.
        UnknownContentError: The content of a row cannot be hashed.
    """
    digest = FastChecksum()
    for index in range(len(dataset)):
        row = row_or_error(dataset, index)
        try:
            _feed_row(row, digest)
        except RecursionError as error:
            raise UnknownContentError(f"row {index} is nested too deeply") from error
        except UnknownContentError as error:
            raise UnknownContentError(f"row {index} holds {error}") from error
    return digest.digest().hex()


def _feed_row(row: Any, digest: Any) -> None:
    if isinstance(row, SampleError) and row.__cause__ is not None:
        _feed_header(digest, "unreadable row", type(row.__cause__).__name__)
    else:
        _feed(row, digest)


def _feed(value: Any, digest: Any) -> None:
    """Feeds a value after its type and size, so that no two values feed the same bytes."""
    if type(value) is str:  # as most values are
        _feed_scalar(value, digest)
        return
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, Mapping):
        _feed_header(digest, "mapping", len(value))
        for key, item in value.items():
            _feed(key, digest)
            _feed(item, digest)
    elif isinstance(value, list | tuple):
        _feed_header(digest, "list", len(value))
        for item in value:
            _feed(item, digest)
    elif isinstance(value, torch.Tensor) and value.layout == torch.strided:
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        _feed_bytes(digest, f"{value.dtype} {tuple(value.shape)}", flat)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        _feed_bytes(digest, f"{value.dtype} {value.shape}", flat)
    elif isinstance(value, Image.Image):
        _feed_image(value, digest)
    else:
        _feed_scalar(value, digest)


def _feed_scalar(value: Any, digest: Any) -> None:
    """Feeds a string, bytes, a number or `None`, and any other object by its pickle."""
    if isinstance(value, str):
        _feed_bytes(digest, "str", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes | bytearray | memoryview):
        _feed_bytes(digest, "bytes", value)
    elif isinstance(value, float | None):
        _feed_header(digest, type(value).__name__, value)
    elif isinstance(value, int):  # in base 16, which has no limit of digits
        _feed_header(digest, type(value).__name__, f"{value:x}")
    else:
        _feed_pickle(value, digest)


def _feed_image(image: Image.Image, digest: Any) -> None:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:  # the collator will refuse it
        _feed_header(digest, "broken image", type(error).__name__)
        return
    palette = image.getpalette() if image.mode in ("P", "PA") else None
    clear = image.info.get("transparency")
    _feed_header(digest, "image", f"{image.mode} {image.size} {clear!r} {palette}")
    _feed_bytes(digest, "exif", image.getexif().tobytes())
    _feed_bytes(digest, "pixels", image.tobytes())


def _feed_pickle(value: Any, digest: Any) -> None:
    """Feeds an object by its pickle, which is never the same for different contents."""
    try:
        data = pickle.dumps(value, protocol=4)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise UnknownContentError(
            f"a {type(value).__name__}, whose content cannot be hashed ({error})"
        ) from error
    _feed_bytes(digest, type(value).__qualname__, data)


def _feed_header(digest: Any, kind: str, about: object) -> None:
    digest.update(f"{kind}:{about};".encode())


def _feed_bytes(digest: Any, kind: str, data: Any) -> None:
    _feed_header(digest, kind, memoryview(data).nbytes)
    digest.update(data)
