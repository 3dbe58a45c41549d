"""Turning encoded bytes and Pillow images into plain upright RGB, by Pillow alone."""

from __future__ import annotations

import io
import struct
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.depth import SIGNIFICANT_BITS, png_significant_bits, white_of

Colour = str | tuple[int, int, int]
_Factory = Callable[[IO[bytes], str | bytes], ImageFile.ImageFile]

# What Pillow and its format plugins raise on broken data. OSError: truncated or unidentified.
# SyntaxError: "not a PNG file". AssertionError: Pillow's own checks. Warning: only where the user
# asked Python to turn warnings into errors. The rest: parsers that ran off the data.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    AssertionError,
    Warning,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = frozenset({5, 6, 7, 8})
_ORIENTATION_TAG = 0x0112
_ORIENTATION_HOLDERS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_MODES_WITH_TRANSPARENT_COLOUR = frozenset({"1", "L", "P", "RGB"})
_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


def known_formats() -> frozenset[str]:
    """The names of the formats that this Pillow can open, such as `PNG`."""
    Image.init()
    return frozenset(Image.OPEN)


def identify(data: bytes, name: str, *, formats: Sequence[str], where: str) -> ImageFile.ImageFile:
    """Opens encoded bytes by their header; no pixel is decoded yet.

    Args:
        data: The encoded image.
        name: What to call it in errors.
        formats: The formats that may be opened.
        where: The place in the sample, for errors.

    Returns:
        The image, not loaded.

    Raises:
        MediaError: If the bytes are none of the formats, or broken.
    """
    # Image.open would do the same, but warns and raises by a process-wide pixel limit, and
    # silencing a warning is not thread-safe; upright_rgb checks the size from the header.
    fault = MediaError(
        f"{name} is none of the allowed formats {', '.join(formats)}: it starts with "
        f"{data[:16]!r}; re-encode it as PNG or JPEG",
        where=where,
    )
    for format_name in formats:
        factory, accepts = Image.OPEN.get(format_name) or _late_plugin(format_name)
        if factory is None or (accepts and accepts(data[:16]) is not True):
            continue
        try:
            return _opened(data, factory, name, where)
        except MediaError as error:
            fault = error
    raise fault


def upright_rgb(
    image: Image.Image,
    name: str,
    *,
    formats: Sequence[str],
    max_pixels: int,
    background: Colour,
    significant_bits: int | None = None,
    where: str,
) -> Image.Image:
    """Decodes an opened image as RGB, with EXIF orientation applied and transparency filled.

    Args:
        image: Any Pillow image, loaded or not. Its pixels and info stay as they are.
        name: What to call it in errors.
        formats: The formats that may be decoded.
        max_pixels: The most pixels it may have, checked before anything is decoded.
        background: The colour behind transparency.
        significant_bits: The depth of images of 16 bits, or `None` for what their file declares.
        where: The place in the sample, for errors.

    Returns:
        An upright image of mode RGB; the same object where it already was one.

    Raises:
        MediaError: If the image is refused, too large, animated or broken.
    """
    _check_format(image, name, formats, where)
    check_pixels(image.size, name, max_pixels, where)
    _check_open(image, name, where)
    with _told(name, where):
        _check_still(image, name, where)
        image.load()
        if image.mode in _SIXTEEN_BIT_MODES:
            eight = _eight_bit(image, name, significant_bits, where)
            return _turned(_as_rgb(eight, name, background, where), _orientation(image))
        return _turned(_as_rgb(image, name, background, where), _orientation(image))


def upright_size(
    image: Image.Image, name: str, *, formats: Sequence[str], max_pixels: int, where: str
) -> tuple[int, int]:
    """The height and width that `upright_rgb` gives, from an opened image's header.

    Raises:
        MediaError: If the image is refused, too large, animated or broken.
    """
    _check_format(image, name, formats, where)
    check_pixels(image.size, name, max_pixels, where)
    _check_open(image, name, where)
    with _told(name, where):
        _check_still(image, name, where)
        if image.format == "TIFF":
            image.load()  # which turns it
        width, height = image.size
        return (width, height) if _orientation(image) in _LYING else (height, width)


def check_pixels(size: tuple[int, int], name: str, max_pixels: int, where: str) -> None:
    """Refuses empty images and those above the limit, with a MediaError."""
    width, height = size
    if width * height > max_pixels:
        raise MediaError(
            f"{name} has {width}x{height} pixels, more than max_pixels={max_pixels}; make it "
            "smaller, or raise max_pixels",
            where=where,
        )
    if width < 1 or height < 1:
        raise MediaError(f"{name} is empty ({width}x{height}); drop it", where=where)


def _comes_from_pillow(error: Exception) -> bool:
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("PIL.") for frame in frames)


@contextmanager
def _told(name: str, where: str) -> Iterator[None]:
    """Tells what Pillow raises on broken data as a MediaError."""
    try:
        yield
    except MediaError:
        raise
    except _BROKEN as error:
        if isinstance(error, TypeError | AttributeError) and not _comes_from_pillow(error):
            raise  # a bug around the parser
        raise MediaError(
            f"{name} cannot be decoded ({type(error).__name__}: {error}); expected a whole, "
            "undamaged image; fetch or encode it again, or drop the sample",
            where=where,
        ) from error


def _late_plugin(format_name: str) -> Any:
    # A worker process starts with Pillow's plugins not yet imported.
    Image.init()
    return Image.OPEN.get(format_name, (None, None))


def _opened(data: bytes, factory: _Factory, name: str, where: str) -> ImageFile.ImageFile:
    with _told(name, where):
        image = factory(io.BytesIO(data), "")
        if image.format == "PNG":
            _check_png(data)
            if (bits := png_significant_bits(data)) is not None:
                image.info[SIGNIFICANT_BITS] = bits
        return image


def _check_png(data: bytes) -> None:
    """Pillow skips the checksums of the pixel chunks and forgives a missing end."""
    start = 8
    view = memoryview(data)
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        # A lower-case first letter marks metadata, which Pillow judges for itself.
        if kind[0] < 0x60 and zlib.crc32(view[start + 4 : end]) != int.from_bytes(
            view[end : end + 4], "big"
        ):
            raise OSError(f"PNG chunk {kind!r} is truncated or fails its checksum")
        if kind == b"IEND":
            return
        start = end + 4
    raise OSError("PNG file is truncated: it has no end chunk")


def _check_format(image: Image.Image, name: str, formats: Sequence[str], where: str) -> None:
    if not isinstance(image, ImageFile.ImageFile):
        return
    # An MPO is a JPEG with further views behind the picture, as many cameras write it.
    found = "JPEG" if image.format == "MPO" else image.format
    if found not in formats:
        raise MediaError(
            f"{name} has format {found}, which is not among the allowed {', '.join(formats)}; "
            "pass image.convert('RGB'), or add it to formats",
            where=where,
        )


def _check_open(image: Image.Image, name: str, where: str) -> None:
    if not isinstance(image, ImageFile.ImageFile) or image.fp is not None:
        return
    # Pillow counts a GIF's frames only when asked, and needs the file for it.
    if image.tile or image.format == "GIF":
        raise MediaError(
            f"{name} has a file that was closed before it was read to its end; pass image.copy() "
            "made while the file is open, or the path",
            where=where,
        )


def _check_still(image: Image.Image, name: str, where: str) -> None:
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise MediaError(
            f"{name} is animated or has several pages ({getattr(image, 'n_frames', '?')} frames), "
            "expected one picture; pick a frame (image.seek(0); image = image.copy()), or pass "
            "it as a video",
            where=where,
        )


def _as_rgb(image: Image.Image, name: str, background: Colour, where: str) -> Image.Image:
    if image.mode == "F":
        raise MediaError(
            f"{name} has float pixels (mode F), whose range is not known; scale them to 0..255 "
            "and pass Image.fromarray(array.astype('uint8'))",
            where=where,
        )
    keyed = image.mode in _MODES_WITH_TRANSPARENT_COLOUR and "transparency" in image.info
    palette = image.palette if image.mode == "P" else None
    if keyed or image.mode in _ALPHA_MODES or (palette and palette.mode.endswith("A")):
        return _composited(image, background)
    return image if image.mode == "RGB" else image.convert("RGB")


def _composited(image: Image.Image, background: Colour) -> Image.Image:
    # Pillow has no direct way from premultiplied grey to RGBA.
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(rgba, mask=rgba)
    return canvas


def _eight_bit(
    image: Image.Image, name: str, significant_bits: int | None, where: str
) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise MediaError(
            f"{name} has integer pixels from {values.min()} to {values.max()} (mode I), expected "
            "0..65535; scale them to 0..255 and pass Image.fromarray(array.astype('uint8'))",
            where=where,
        )
    if image.mode == "I" and significant_bits is None and 0 < values.max() <= 0xFF:
        raise MediaError(
            f"{name} has integer pixels from {values.min()} to {values.max()} (mode I), which may "
            "count to 255 or to 65535; pass Image.fromarray(array.astype('uint8')) for the one, "
            "set LocalMedia(significant_bits=16) for the other",
            where=where,
        )
    white = white_of(image, values, name, significant_bits=significant_bits, where=where)
    # adding half of white rounds to the nearest
    grey = Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))
    if "transparency" in image.info:
        opaque = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(opaque))
    return grey


def _orientation(image: Image.Image) -> int:
    # getexif() is slow and caches, so it is asked only where there is something to read. A TIFF
    # is turned by Pillow as it loads.
    if not any(holder in image.info for holder in _ORIENTATION_HOLDERS):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION_TAG, 1)
    except _BROKEN:
        # Unreadable metadata is common in crawled data and says nothing about the pixels.
        return 1
    return found if isinstance(found, int) else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    if turn is None:
        return image
    upright = image.transpose(turn)
    # The info still asks for the turn, and whoever reads it next would turn again.
    upright.info = {}
    return upright
