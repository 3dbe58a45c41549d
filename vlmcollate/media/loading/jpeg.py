"""Decoding JPEG files with torchvision if its pixels are Pillow's.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image

_START, _END, _START_OF_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_SIZE = struct.Struct(">BHHB")
_PROGRESSIVE = 0xC2
_FRAMES = frozenset({0xC0, 0xC1, _PROGRESSIVE})
"""The markers of frames in Huffman code: baseline, extended and progressive."""
_SEGMENTS = frozenset({*_FRAMES, 0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""The markers of segments with a length that every decoder skips or reads alike."""
_GRAY_COMPONENTS, _COLOUR_COMPONENTS = 1, 3
_SAMPLINGS = ((0x11, 0x11, 0x11), (0x21, 0x11, 0x11), (0x22, 0x11, 0x11))
"""The sampling factors of 4:4:4, 4:2:2 and 4:2:0, which Pillow can encode and so are tried."""


@attrs.frozen
class _Frame:
    """What the header of a JPEG file declares of its pixels."""

    width: int
    height: int
    samplings: tuple[int, ...]
    is_progressive: bool

    @property
    def is_tried(self) -> bool:
        """Whether the equality of pixels is tried for this kind of file."""
        return len(self.samplings) == _GRAY_COMPONENTS or self.samplings in _SAMPLINGS


def decode_jpeg(data: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """Decodes a JPEG file of 8 bits in colour or greyscale, if Pillow would give the same pixels.

    Args:
        data: The encoded image, whose header Pillow has read.
        size: The width and the height that Pillow found, which were checked.

    Returns:
        (H, W, 3) uint8, contiguous, not turned by EXIF; `None` if Pillow has to decode the file:
        because it has another layout, is damaged, or torchvision decodes otherwise on this machine.
    """
    frame = _read_frame(data)
    if frame is None or (frame.width, frame.height) != size or not frame.is_tried:
        return None
    return _decoded(data) if _agrees_with_pillow(frame.is_progressive) else None


def _decoded(data: bytes) -> npt.NDArray[np.uint8] | None:
    import torch
    import torchvision.io as torchvision

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        pixels = torchvision.decode_jpeg(encoded, mode=torchvision.ImageReadMode.RGB)
    except RuntimeError:  # damaged, or more than this decoder reads
        return None
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def _read_frame(data: bytes) -> _Frame | None:
    """Reads the only frame header before the first scan, or nothing if the file is unusual.

    Decoders skip bytes between segments in different ways, so that each may find another header,
    with another size. A file in which the segments follow each other has one reading.
    """
    frames: list[_Frame] = []
    for kind, segment in _segments(data):
        if kind == _START_OF_SCAN:
            return frames[0] if len(frames) == 1 else None
        if kind not in _SEGMENTS:
            return None
        if kind in _FRAMES:
            found = _frame_of(segment, is_progressive=kind == _PROGRESSIVE)
            if found is None:
                return None
            frames.append(found)
    return None


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the marker and the content of each segment, as long as they follow each other."""
    at = 2 if data[:2] == _START else len(data)
    while at + 4 <= len(data) and data[at] == 0xFF:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at + 4 : end]
        at = end


def _frame_of(segment: bytes, *, is_progressive: bool) -> _Frame | None:
    if len(segment) < _SIZE.size:
        return None
    bits, height, width, components = _SIZE.unpack_from(segment)
    if bits != 8 or len(segment) != _SIZE.size + 3 * components:
        return None
    if components not in (_GRAY_COMPONENTS, _COLOUR_COMPONENTS):
        return None
    return _Frame(width, height, tuple(segment[_SIZE.size + 1 :: 3]), is_progressive)


@cache
def _agrees_with_pillow(is_progressive: bool) -> bool:  # noqa: FBT001  # of a cache
    """Returns whether torchvision decodes probe images to Pillow's pixels; tried once a process.

    Both carry a JPEG library of their own, and which one depends on the build. Those of
    torchvision 0.21 and Pillow smooth progressive files that lack scans in different ways.
    """
    probes = _progressive_probes() if is_progressive else _sequential_probes()
    try:
        return all(_is_equal(data) for data in probes)
    except (ImportError, OSError, RuntimeError, AttributeError):  # a build without JPEG, or broken
        return False


def _is_equal(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    found = _decoded(data)
    return found is not None and np.array_equal(found, expected)


def _sequential_probes() -> Iterator[bytes]:
    for image in _images():
        yield from _layouts(image, quality=75)
        yield from _layouts(image, quality=98, restart_marker_blocks=4)


def _progressive_probes() -> Iterator[bytes]:
    """Yields whole files, and files that end before a scan."""
    for image in _images():
        for data in _layouts(image, quality=40, progressive=True):
            yield data
            for scan in [*re.finditer(b"\xff\xda", data)][1:]:
                yield data[: scan.start()] + _END


def _images() -> Iterator[Image.Image]:
    """Yields noise, smooth colours and sharp edges."""
    random = np.random.default_rng(0)
    yield Image.fromarray(random.integers(0, 256, (53, 77, 3), np.uint8))
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
    yield coarse.resize((77, 53), Image.Resampling.BICUBIC)
    yield coarse.resize((75, 50), Image.Resampling.NEAREST)


def _layouts(image: Image.Image, **options: Any) -> Iterator[bytes]:
    """Yields JPEG files of an image in every layout that is decoded."""
    yield _encoded(image.convert("L"), **options)
    for subsampling in range(len(_SAMPLINGS)):
        yield _encoded(image, subsampling=subsampling, **options)


def _encoded(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()
