"""Decoding images as upright RGB, and their pixels.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image, ImageFile

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.depth import SIGNIFICANT_BITS, UPPER_BITS, GrayRange
from vlmcollate.media.loading.image_modes import Colour, as_rgb
from vlmcollate.media.loading.jpeg import decode_jpeg
from vlmcollate.media.loading.orientation import make_upright, read_orientation, swaps_sides
from vlmcollate.media.loading.pillow_errors import BROKEN_IMAGE_ERRORS
from vlmcollate.media.loading.pixel_images import PixelImage, Pixels
from vlmcollate.media.loading.png import (
    check_png,
    is_deep_gray_with_alpha,
    significant_bits_of_png,
)

_JPEG_FORMATS = ("JPEG", "MPO")
"""Many cameras write an MPO, which is a JPEG followed by further views."""

FRAMES = "vlmcollate frames"
"""The key in `info` of the number of frames that an image had when it was pickled, 0 if unknown."""

_Factory = Callable[[IO[bytes], str | bytes], ImageFile.ImageFile]


def known_formats() -> frozenset[str]:
    """The names of the formats that this Pillow can open, such as `PNG`."""
    Image.init()
    return frozenset(Image.OPEN)


def identify(data: bytes, name: str, *, formats: Sequence[str], where: str) -> ImageFile.ImageFile:
    """Opens encoded bytes by their header, without decoding a pixel.

    Args:
        data: The encoded image.
        name: The image's name in errors.
        formats: The formats that may be opened.
        where: The path inside the sample, for errors.

    Returns:
        The image, not loaded.

    Raises:
        MediaError: If the bytes have another format, or are broken.
    """
    # Image.open would do the same, but warns and raises by a process-wide pixel limit, and
    # silencing a warning is not thread-safe; upright_rgb checks the size from the header
    fault: MediaError | None = None
    for format_name in formats:
        factory, accepts = Image.OPEN.get(format_name) or _late_plugin(format_name)
        if factory is None or (accepts and accepts(data[:16]) is not True):
            continue
        try:
            return _open(data, factory, name, where)
        except MediaError as error:
            fault = error
    raise fault or _not_allowed(data, name, formats, where)


def _not_allowed(data: bytes, name: str, formats: Sequence[str], where: str) -> MediaError:
    """The error for an image of another format, which names it if this Pillow can decode it."""
    remedy = "re-encode it as PNG or JPEG"
    for format_name in sorted(known_formats()) if len(data) >= 16 else ():
        accepts = Image.OPEN[format_name][1]
        if accepts is not None and accepts(data[:16]) is True:
            remedy = (
                f"allow {format_name} with LocalMedia(formats=[..., {format_name!r}]), or {remedy}"
            )
            break
    return MediaError(
        f"{name} has none of the allowed formats {', '.join(formats)}: it starts with "
        f"{data[:16]!r}; {remedy}",
        where=where,
    )


def upright_rgb(
    image: Image.Image,
    name: str,
    *,
    formats: Sequence[str],
    max_pixels: int,
    background: Colour,
    gray_range: GrayRange | None = None,
    encoded: bytes | None = None,
    where: str,
) -> Image.Image:
    """Decodes an opened image as RGB, upright and with transparency filled.

    Args:
        image: Any Pillow image, loaded or not. Its pixels and info stay as they are.
        name: The image's name in errors.
        formats: The formats that may be decoded.
        max_pixels: The maximum number of pixels, checked before decoding.
        background: The colour behind transparent pixels.
        gray_range: The values of black and white of images with more than 8 bits, or `None` for
            what their file declares.
        encoded: The bytes of the file, from which a JPEG image may be decoded by a faster decoder;
            `None` to decode the image with Pillow.
        where: The path inside the sample, for errors.

    Returns:
        An upright image of mode RGB; the same object if it already is one.

    Raises:
        MediaError: If the image is refused, too large, animated or broken.
    """
    _check_header(image, name, formats, max_pixels, where)
    with decoding_errors(name, where):
        _check_still(image, name, where)
        if encoded is not None and image.format in _JPEG_FORMATS:
            pixels = _decode_upright_jpeg(encoded, image)
            if pixels is not None:
                return PixelImage(pixels, image.info)
        if not isinstance(image, PixelImage):  # whose pixels stay in their array
            image.load()
        orientation = read_orientation(image)
        if image.mode == "RGB" and not image.info and orientation == 1:
            return image
        rgb = as_rgb(image, name, background=background, gray_range=gray_range, where=where)
        return make_upright(rgb, orientation)


def _decode_upright_jpeg(encoded: bytes, image: Image.Image) -> Pixels | None:
    """The pixels of a JPEG that needs no conversion, if another decoder gives Pillow's."""
    if image.mode not in ("RGB", "L") or read_orientation(image) != 1:
        return None  # Pillow turns images faster than NumPy and torch do
    return decode_jpeg(encoded, image.size)


def upright_size(
    image: Image.Image, name: str, *, formats: Sequence[str], max_pixels: int, where: str
) -> tuple[int, int]:
    """Reads the size that `upright_rgb` would give from an image's header.

    Args:
        image: Any Pillow image, loaded or not.
        name: The image's name in errors.
        formats: The formats that may be opened.
        max_pixels: The maximum number of pixels.
        where: The path inside the sample, for errors.

    Returns:
        The height and the width in pixels.

    Raises:
        MediaError: If the image is refused, too large, animated or broken.
    """
    _check_header(image, name, formats, max_pixels, where)
    with decoding_errors(name, where):
        _check_still(image, name, where)
        if image.format == "TIFF":
            image.load()  # which turns it
        width, height = image.size
        return (width, height) if swaps_sides(read_orientation(image)) else (height, width)


def check_pixels(size: tuple[int, int], name: str, max_pixels: int, where: str) -> None:
    """Refuses images that are empty or above the limit.

    Args:
        size: The width and the height in pixels.
        name: The image's name in errors.
        max_pixels: The maximum number of pixels.
        where: The path inside the sample, for errors.

    Raises:
        MediaError: If the image is empty or too large.
    """
    width, height = size
    if width * height > max_pixels:
        raise MediaError(
            f"{name} has {width}x{height} pixels, more than max_pixels={max_pixels}; make it "
            "smaller, or raise max_pixels",
            where=where,
        )
    if width < 1 or height < 1:
        raise MediaError(f"{name} is empty ({width}x{height}); drop it", where=where)


def _late_plugin(format_name: str) -> Any:
    # a worker process starts without Pillow's plugins
    Image.init()
    return Image.OPEN.get(format_name, (None, None))


def _open(data: bytes, factory: _Factory, name: str, where: str) -> ImageFile.ImageFile:
    with decoding_errors(name, where):
        image = factory(io.BytesIO(data), "")
        if image.format == "PNG":
            check_png(data)
            if (bits := significant_bits_of_png(data)) is not None:
                image.info[SIGNIFICANT_BITS] = bits
            if is_deep_gray_with_alpha(data):
                image.info[UPPER_BITS] = True
        return image


def _check_header(
    image: Image.Image, name: str, formats: Sequence[str], max_pixels: int, where: str
) -> None:
    """Checks all that is known of an opened image before it is loaded."""
    _check_format(image, name, formats, where)
    check_pixels(image.size, name, max_pixels, where)
    _check_open(image, name, where)


def _check_format(image: Image.Image, name: str, formats: Sequence[str], where: str) -> None:
    if not isinstance(image, ImageFile.ImageFile):
        return
    found = "JPEG" if image.format in _JPEG_FORMATS else image.format
    if found not in formats:
        raise MediaError(
            f"{name} has format {found}, which is not among the allowed {', '.join(formats)}; "
            f"allow it with LocalMedia(formats=[..., {found!r}]), or pass image.convert('RGB')",
            where=where,
        )


def _check_open(image: Image.Image, name: str, where: str) -> None:
    # an image that was loaded or unpickled has no file, and needs none
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return
    if getattr(image, "fp", None) is None:
        raise _closed_error(name, where)


def _check_still(image: Image.Image, name: str, where: str) -> None:
    if image.format != "MPO" and _is_animated(image, name, where):
        raise MediaError(
            f"{name} is animated or has several pages ({_frames_of(image)} frames), expected one "
            "image; pick a frame (image.seek(0); image = image.copy()), or pass "
            "it as a video",
            where=where,
        )


def _is_animated(image: Image.Image, name: str, where: str) -> bool:
    if image.info.get(FRAMES) == 0:
        raise _closed_error(name, where)
    try:
        return FRAMES in image.info or bool(getattr(image, "is_animated", False))
    except ValueError as error:  # Pillow counts the frames of a GIF late, and reads its file
        if "closed" not in str(error):
            raise
        raise _closed_error(name, where) from error


def _frames_of(image: Image.Image) -> Any:
    return image.info.get(FRAMES) or getattr(image, "n_frames", "?")


def _closed_error(name: str, where: str) -> MediaError:
    return MediaError(
        f"{name} has a file that was closed before it was read to its end; pass image.copy() made "
        "while the file is open, or the path",
        where=where,
    )


@contextmanager
def decoding_errors(name: str, where: str) -> Iterator[None]:
    """Turns what Pillow raises on broken data into a MediaError."""
    try:
        yield
    except MediaError:
        raise
    except BROKEN_IMAGE_ERRORS as error:
        if isinstance(error, TypeError | AttributeError) and not _comes_from_pillow(error):
            raise  # a bug around the parser
        raise MediaError(
            f"{name} cannot be decoded ({type(error).__name__}: {error}); expected a whole, "
            "undamaged image; fetch or encode it again, or drop the sample",
            where=where,
        ) from error


def _comes_from_pillow(error: Exception) -> bool:
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("PIL.") for frame in frames)
