"""Loading images that are already here: in memory or in local files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
import numpy as np
import torch
from PIL import Image

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.arrays import from_array
from vlmcollate.media.base import MediaStrategy
from vlmcollate.media.images import Colour, known_formats, upright_rgb
from vlmcollate.media.images import identify as identify_image
from vlmcollate.media.sources import check_bytes, decode_base64, read_file, shortened

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_ACCEPTED = (
    "a PIL image, a path, encoded bytes, a data URI, a dict of 'bytes' or 'path', or a uint8 array"
)


def _as_formats(value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise ConfigError(
            f"formats must be a tuple of names such as ('JPEG', 'PNG'), not {value!r}"
        )
    return tuple(name.upper() for name in value)


def _as_root(value: str | os.PathLike[str] | None) -> Path | None:
    if value is None or isinstance(value, str | os.PathLike):
        return None if value is None else Path(value)
    raise ConfigError(f"root must be a folder or None, not {value!r}")


def _check_positive(_: object, option: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{option.name} must be a whole number above 0, not {value!r}")


@attrs.frozen(kw_only=True)
class LocalMedia(MediaStrategy):
    """Loads images from memory and local files with Pillow, within limits, and never by network.

    A path, its bytes, the PIL image and the uint8 array of the same picture give the same pixels:
    upright, with transparency filled, in RGB.

    Args:
        root: The folder below which files may be opened, with symlinks followed first; relative
            paths start from it. `None` opens any file, relative to the working directory.
        background: The colour behind transparent pixels, as Pillow names colours.
        max_pixels: The most pixels (width times height) of an image, checked before decoding.
        max_bytes: The most bytes of an encoded image, checked before reading.
        formats: The image formats that are decoded, by Pillow's names.
        dtype: The dtype that floating point media tensors are cast to; `None` leaves them.

    Raises:
        ConfigError: If an option is not one of these.

    Example:
        >>> LocalMedia().load_image(Image.new("L", (4, 2)), where="images[0]").mode
        'RGB'
    """

    root: Path | None = attrs.field(default=None, converter=_as_root)
    background: Colour = attrs.field(default="white")
    max_pixels: int = attrs.field(default=64_000_000, validator=_check_positive)
    max_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_check_positive)
    formats: tuple[str, ...] = attrs.field(
        default=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"), converter=_as_formats
    )
    dtype: torch.dtype | None = attrs.field(default=None)

    @root.validator
    def _check_root(self, _: object, value: Path | None) -> None:
        if value is not None and not value.is_dir():
            raise ConfigError(f"root '{value}' is not a folder; create it or correct the path")

    @background.validator
    def _check_background(self, _: object, value: Any) -> None:
        try:
            Image.new("RGB", (1, 1), value)
            named = value is not None and (isinstance(value, str) or len(value) == 3)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"background {value!r} is not a colour ({error})") from error
        if not named:
            raise ConfigError(f"background must be a colour such as 'white', not {value!r}")

    @formats.validator
    def _check_formats(self, _: object, value: tuple[str, ...]) -> None:
        unknown = sorted(set(value) - known_formats())
        if unknown or not value:
            raise ConfigError(
                f"formats holds {unknown}, which this Pillow cannot open; it knows "
                f"{', '.join(sorted(known_formats()))}"
            )

    @dtype.validator
    def _check_dtype(self, _: object, value: object) -> None:
        if value is None or (isinstance(value, torch.dtype) and value.is_floating_point):
            return
        raise ConfigError(f"dtype must be floating, such as torch.bfloat16, not {value!r}")

    def load_image(self, source: object, *, where: str) -> Image.Image:
        """Loads one image as plain upright RGB.

        Args:
            source: A PIL image; a path or `file://` URI; encoded bytes; a base64 data URI; a dict
                with `bytes` or `path`, as Hugging Face datasets store images (bytes win); or a
                uint8 array or tensor, (H, W), (H, W, 3), (H, W, 4), (3, H, W) or (4, H, W).
            where: The path inside the sample, for errors.

        Returns:
            A decoded image of mode RGB. It is the source itself where that already is one, so it
            is only to be read.

        Raises:
            MediaError: If the image is missing, broken, refused or too large.
        """
        if isinstance(source, Image.Image):
            return self._finished(source, _pil_name(source), where)
        if isinstance(source, str | os.PathLike):
            return self._from_text(os.fspath(source), where)
        if isinstance(source, bytes | bytearray | memoryview):
            return self._from_bytes(source, "the encoded image", where)
        if isinstance(source, Mapping):
            return self._from_mapping(source, where)
        if isinstance(source, np.ndarray | torch.Tensor):
            image = from_array(source, max_pixels=self.max_pixels, where=where)
            return self._finished(image, "the array", where)
        raise MediaError(f"an image is {type(source).__name__}, expected {_ACCEPTED}", where=where)

    def cast(self, key: str, value: torch.Tensor) -> torch.Tensor:
        """Casts a floating point media tensor to `dtype`.

        Args:
            key: The tensor's name in the batch; every name is treated alike.
            value: The tensor, of any shape.

        Returns:
            The tensor of the same shape; integer and bool tensors come back as they are.
        """
        if self.dtype is None or not value.is_floating_point():
            return value
        return value.to(self.dtype)

    def _finished(self, image: Image.Image, name: str, where: str) -> Image.Image:
        return upright_rgb(
            image,
            name,
            formats=self.formats,
            max_pixels=self.max_pixels,
            background=self.background,
            where=where,
        )

    def _from_bytes(
        self, source: bytes | bytearray | memoryview, name: str, where: str
    ) -> Image.Image:
        size = source.nbytes if isinstance(source, memoryview) else len(source)
        check_bytes(size, name, self.max_bytes, where)
        image = identify_image(bytes(source), name, formats=self.formats, where=where)
        return self._finished(image, name, where)

    def _from_mapping(self, source: Mapping[Any, Any], where: str) -> Image.Image:
        encoded, path = source.get("bytes"), source.get("path")
        if isinstance(encoded, bytes | bytearray | memoryview):
            return self._from_bytes(encoded, "the encoded image", where)
        if encoded is None and isinstance(path, str | os.PathLike):
            return self._from_text(os.fspath(path), where)
        raise MediaError(
            f"an image dict holds {type(encoded).__name__} under 'bytes' and "
            f"{type(path).__name__} under 'path' (keys: {list(source)}); expected encoded bytes "
            "or a path under one of them",
            where=where,
        )

    def _from_text(self, text: str | bytes, where: str) -> Image.Image:
        if isinstance(text, bytes):
            text = os.fsdecode(text)
        if text[:5].lower() == "data:":
            return self._from_data_uri(text, where)
        url = _URL.match(text)
        path = Path(text if url is None else _local_path(text, url[1].lower(), where))
        data = read_file(self._below_root(path, where), max_bytes=self.max_bytes, where=where)
        return self._from_bytes(data, f"'{path}'", where)

    def _from_data_uri(self, text: str, where: str) -> Image.Image:
        header, comma, encoded = text.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise MediaError(
                f"the data URI starts with {text[:40]!r}, expected 'data:image/png;base64,' and "
                "the image in base64",
                where=where,
            )
        # Four letters hold three bytes; checked before another copy is made.
        check_bytes(len(encoded) // 4 * 3 - 2, "the data URI", self.max_bytes, where)
        return self._from_bytes(decode_base64(encoded, where), "the data URI", where)

    def _below_root(self, path: Path, where: str) -> Path:
        if self.root is None:
            return path
        try:
            root = self.root.resolve()
            resolved = (root / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise MediaError(
                f"{shortened(str(path))!r} is not a usable path ({error}); correct it", where=where
            ) from error
        if not resolved.is_relative_to(root):
            raise MediaError(
                f"'{path}' leads to '{resolved}', outside root '{root}'; move the file below "
                "root, or choose another root",
                where=where,
            )
        return resolved


def _pil_name(image: Image.Image) -> str:
    path = getattr(image, "filename", "")
    return f"the PIL image of '{path}'" if path else "the PIL image"


def _local_path(url: str, scheme: str, where: str) -> str:
    if scheme != "file":
        raise MediaError(
            f"'{shortened(url)}' is a URL, and nothing is fetched from the network while "
            "collating; download it first and pass the path or the bytes",
            where=where,
        )
    host = url[len("file://") :].partition("/")[0]
    if host.lower() not in ("", "localhost"):
        raise MediaError(
            f"'{shortened(url)}' names the host '{host}', expected 'file:///' and an absolute "
            "path on this machine",
            where=where,
        )
    return unquote(urlsplit(url).path)
