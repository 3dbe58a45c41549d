"""JPEG files for tests: photos, unusual layouts and damaged files."""

from __future__ import annotations

import io
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

Generator = np.random.Generator


def photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Returns an image with smooth colours, edges and noise."""
    random = np.random.default_rng(seed)
    width, height = size
    coarse = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    noise = random.integers(-12, 13, (height, width, 3), np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def patched_frame(data: bytes, *, sampling: int) -> bytes:
    """Changes the sampling factors of the first component, and so the layout of the same blocks."""
    at = data.index(b"\xff\xc0") + 11
    return data[:at] + bytes([sampling]) + data[at + 1 :]


def mutant(data: bytes, random: Generator) -> bytes:
    """Truncates a file, removes or inserts bytes, or changes some of its header or its pixels."""
    broken, kind = bytearray(data), int(random.integers(0, 6))
    at = int(random.integers(2, len(broken)))
    if kind == 0:
        del broken[at:]
    elif kind == 1:
        del broken[at : at + int(random.integers(1, 50))]
    elif kind == 2:
        broken[at:at] = random.bytes(int(random.integers(1, 20)))
    else:
        top = min(len(broken), 700) if kind == 3 else len(broken)
        for place in random.integers(2, top, int(random.integers(1, 5))):
            broken[place] = random.choice([0, 0xFF, 0xD0, 0xD9, int(random.integers(0, 256))])
    return bytes(broken)


def compare(number: int) -> None:
    """Loads mutated files as LocalMedia does, and with Pillow alone.

    Raises:
        AssertionError: The pixels or the errors differ.
    """
    from vlmcollate import LocalMedia

    random = np.random.default_rng(number)
    media, seeds = LocalMedia(max_pixels=1 << 20), _seeds()
    decoded = 0
    for i in range(number):
        data = mutant(seeds[i % len(seeds)], random)
        found = _loaded(media, data)
        with mock.patch("vlmcollate.media.loading.images.decode_jpeg", return_value=None):
            expected = _loaded(media, data)
        assert type(found) is type(expected), (i, found, expected)
        assert np.array_equal(found, expected), i
        decoded += isinstance(found, np.ndarray)
    assert number < 100 or number / 10 < decoded < number


def _loaded(media: Any, data: bytes) -> Any:
    from vlmcollate.errors import MediaError

    try:
        return np.asarray(media.load_image(data, where="images[0]"))
    except MediaError as error:
        return str(error)


def _seeds() -> list[bytes]:
    found = []
    layouts: tuple[dict[str, Any], ...] = (
        {},
        {"progressive": True},
        {"restart_marker_blocks": 2},
    )
    for size in ((16, 16), (70, 50), (200, 90)):
        for layout in layouts:
            for subsampling in (0, 1, 2, None):
                image = photo(size)
                buffer = io.BytesIO()
                if subsampling is None:
                    image.convert("L").save(buffer, "JPEG", **layout)
                else:
                    image.save(buffer, "JPEG", subsampling=subsampling, **layout)
                found.append(buffer.getvalue())
    return found
