"""What Pillow skips in PNG files: checksums, and the depth of the pixels."""

from __future__ import annotations

import zlib


def check_png(data: bytes) -> None:
    """Checks what Pillow does not: the checksums of the pixel chunks, and the end chunk.

    Args:
        data: The encoded image.

    Raises:
        OSError: If a chunk is truncated or damaged, or the end chunk is missing.
    """
    start = 8
    view = memoryview(data)
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        kind = data[start + 4 : start + 8]
        # a lower-case first letter marks metadata, which Pillow checks itself
        if kind[0] < 0x60 and zlib.crc32(view[start + 4 : end]) != int.from_bytes(
            view[end : end + 4], "big"
        ):
            raise OSError(f"PNG chunk {kind!r} is truncated or fails its checksum")
        if kind == b"IEND":
            return
        start = end + 4
    raise OSError("PNG file is truncated: it has no end chunk")


def is_deep_gray_with_alpha(data: bytes) -> bool:
    """Whether a PNG file holds 16-bit grey with alpha, which Pillow reads as RGBA of 8 bits."""
    return data[12:16] == b"IHDR" and data[24:26] == b"\x10\x04"


def significant_bits_of_png(data: bytes) -> int | None:
    """Reads the greatest depth in the chunk sBIT of a PNG file.

    Args:
        data: The encoded image.

    Returns:
        The depth in bits, or `None` if the file declares none.
    """
    start = 8
    while start + 12 <= len(data):
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        if kind == b"sBIT":
            return max(data[start + 8 : start + 8 + size], default=None)
        if kind == b"IDAT":  # sBIT comes before the pixels
            return None
        start += size + 12
    return None
