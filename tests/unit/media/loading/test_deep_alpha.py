"""16-bit grey with alpha, of which Pillow decodes the upper bits, is right or refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from vlmcollate import LocalMedia
from vlmcollate.errors import MediaError

RAMP = np.arange(48, dtype=np.uint32).reshape(6, 8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def gray_with_alpha(gray: np.ndarray, *extra: bytes) -> bytes:
    height, width = gray.shape
    pixels = np.dstack([gray, np.full_like(gray, 0xFFFF)]).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0)
    chunks = (
        chunk(b"IHDR", header),
        *extra,
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def load(source: object, gray_range: tuple[int, int] | None = None) -> np.ndarray:
    media = LocalMedia(gray_range=gray_range)
    return np.asarray(media.load_image(source, where="images[0]"))[..., 0]


@pytest.mark.parametrize("bits", [9, 12, 14])
def test_a_range_that_may_be_shallower_is_refused(bits, tmp_path):
    gray = RAMP * ((1 << bits) - 1) // RAMP.max()
    data = gray_with_alpha(gray)
    path = tmp_path / "scan.png"
    path.write_bytes(data)
    depth = chunk(b"sBIT", bytes([bits, 16]))
    for source in (data, path, {"bytes": data}, gray_with_alpha(gray, depth)):
        with pytest.raises(MediaError, match=r"16-bit grey with alpha, .* remove the alpha"):
            load(source)
    assert np.array_equal(load(data, (0, 0xFFFF)), gray >> 8)
    # the range cannot be applied to the upper bits
    with pytest.raises(MediaError, match="no range of grey applies"):
        load(data, (0, (1 << bits) - 1))


def test_the_full_range_is_read():
    gray = RAMP * 0xFFFF // RAMP.max()
    assert np.array_equal(load(gray_with_alpha(gray)), gray >> 8)
    assert not load(gray_with_alpha(RAMP * 0)).any()
