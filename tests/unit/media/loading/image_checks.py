"""What the tests of images share: colours, loading, refusals, and a limit of time."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torchvision.io  # noqa: F401  # the first JPEG file imports it, which takes seconds
from PIL import Image

from vlmcollate.errors import MediaError
from vlmcollate.media import LocalMedia

WHERE = "messages[0].content[1]"
RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)


@pytest.fixture(autouse=True)
def within_two_seconds() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 2


def load(source: object, media: LocalMedia | None = None) -> Image.Image:
    image = (media or LocalMedia()).load_image(source, where=WHERE)
    assert image.mode == "RGB"
    return image


def refused(source: object, *parts: str, media: LocalMedia | None = None) -> MediaError:
    with pytest.raises(MediaError) as caught:
        load(source, media)
    assert caught.value.where == WHERE
    assert str(caught.value).startswith(f"{WHERE}: ")
    for part in parts:
        assert part in str(caught.value)
    return caught.value


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> list[list[list[int]]]:
    rows: list[list[list[int]]] = np.asarray(image).tolist()
    return rows
