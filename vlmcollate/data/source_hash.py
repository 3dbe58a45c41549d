"""What a source is known by, so that a changed one is noticed."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

_AT_A_TIME = 1 << 20


class UnknownContentError(Exception):
    """A value does not tell its content; never leaves the package."""


def file_digest(file: Path) -> str:
    """The size and a hash of a file's content, all of it."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    with file.open("rb") as data:
        while block := data.read(_AT_A_TIME):
            digest.update(block)
            size += len(block)
    return f"{size} bytes, {digest.hexdigest()}"


def rows_digest(dataset: Any) -> str:
    """A hash of the content of all rows, the same in every process.

    Raises:
        UnknownContentError: A row holds something that does not tell its content.
    """
    digest = hashlib.blake2b(digest_size=16)
    for index in range(len(dataset)):
        try:
            _feed(dataset[index], digest)
        except RecursionError as error:
            raise UnknownContentError(f"row {index} is nested too deeply") from error
        except UnknownContentError as error:
            raise UnknownContentError(f"row {index} holds {error}") from error
    return digest.hexdigest()


def _feed(value: Any, digest: Any) -> None:
    """Feeds a value behind its type and size, so that no two values feed the same bytes."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, Mapping):
        _head(digest, "mapping", len(value))
        for key, item in value.items():
            _feed(key, digest)
            _feed(item, digest)
    elif isinstance(value, list | tuple):
        _head(digest, "list", len(value))
        for item in value:
            _feed(item, digest)
    elif isinstance(value, str):
        _bytes(digest, "str", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes | bytearray | memoryview):
        _bytes(digest, "bytes", value)
    elif isinstance(value, float | None):
        _head(digest, type(value).__name__, value)
    elif isinstance(value, int):  # in base 16, for which no number has too many digits
        _head(digest, type(value).__name__, f"{value:x}")
    elif isinstance(value, torch.Tensor) and value.layout == torch.strided:
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        _bytes(digest, f"{value.dtype} {tuple(value.shape)}", flat)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        _bytes(digest, f"{value.dtype} {value.shape}", flat)
    elif isinstance(value, Image.Image):
        _picture(value, digest)
    else:
        _pickled(value, digest)


def _picture(image: Image.Image, digest: Any) -> None:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:  # it will be refused, but not here
        _head(digest, "broken image", type(error).__name__)
        return
    palette = image.getpalette() if image.mode in ("P", "PA") else None
    clear = image.info.get("transparency")
    _head(digest, "image", f"{image.mode} {image.size} {clear!r} {palette}")
    _bytes(digest, "exif", image.getexif().tobytes())
    _bytes(digest, "pixels", image.tobytes())


def _pickled(value: Any, digest: Any) -> None:
    """Any other object by its pickle, which never is the same for two contents."""
    try:
        data = pickle.dumps(value, protocol=4)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise UnknownContentError(
            f"a {type(value).__name__}, which does not tell its content ({error})"
        ) from error
    _bytes(digest, type(value).__qualname__, data)


def _head(digest: Any, kind: str, about: object) -> None:
    digest.update(f"{kind}:{about};".encode())


def _bytes(digest: Any, kind: str, data: Any) -> None:
    _head(digest, kind, memoryview(data).nbytes)
    digest.update(data)
