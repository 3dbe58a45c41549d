"""A PIL image is accepted again and again, loaded, copied or pickled, in every format."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.media.loading.image_checks import WHERE, encoded, refused
from vlmcollate.data.source_hash import hash_rows
from vlmcollate.media import LocalMedia

FORMATS = ["BMP", "DIB", "GIF", "ICO", "JPEG", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF"]
WITH_FRAMES = ["GIF", "PNG", "TIFF", "WEBP"]
MEDIA = LocalMedia(formats=[*FORMATS, "WEBP"])


def frame(red: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (red, 90, 7))


def several(name: str) -> bytes:
    more = [frame(90), frame(130)]
    return encoded(frame(10), name, save_all=True, append_images=more)


def opened(data: bytes, folder: Path) -> Iterator[Image.Image]:
    yield Image.open(io.BytesIO(data))
    (folder / "image").write_bytes(data)
    image = Image.open(folder / "image")
    yield image
    image.close()


def loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image


def hashed(image: Image.Image) -> Image.Image:
    hash_rows([{"image": image}])
    return image


STATES = [
    lambda image: image,
    loaded,
    hashed,
    lambda image: loaded(loaded(image)),
    lambda image: copy.copy(loaded(image)),
    copy.deepcopy,
    lambda image: copy.deepcopy(loaded(image)),
    lambda image: pickle.loads(pickle.dumps(image)),
    lambda image: pickle.loads(pickle.dumps(loaded(image))),
    lambda image: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(image)))),
]


@pytest.mark.parametrize("name", [*FORMATS, "WEBP"])
@pytest.mark.parametrize("number", range(len(STATES)))
def test_an_image_is_accepted_again_and_again(name: str, number: int, tmp_path: Path) -> None:
    data = encoded(frame(10), name)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    for original in opened(data, tmp_path):
        image = STATES[number](original)
        for _ in range(3):
            assert MEDIA.image_size(image, where=WHERE) == (64, 64)
            np.testing.assert_array_equal(MEDIA.load_image(image, where=WHERE), expected)


@pytest.mark.parametrize("name", WITH_FRAMES)
def test_an_image_of_several_frames_is_refused_again_and_again(name: str, tmp_path: Path) -> None:
    for state in (lambda image: image, loaded, hashed):
        for original in opened(several(name), tmp_path):
            image = state(original)
            before = np.asarray(image.convert("RGB"))
            for _ in range(3):
                refused(image, "animated or has several pages (3 frames)")
            np.testing.assert_array_equal(image.convert("RGB"), before)


@pytest.mark.parametrize("name", WITH_FRAMES)
@pytest.mark.parametrize("number", range(5, len(STATES)))
def test_a_copy_is_one_frame(name: str, number: int, tmp_path: Path) -> None:
    image = Image.open(io.BytesIO(several(name)))
    image.seek(1)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(MEDIA.load_image(STATES[number](image), where=WHERE), expected)


def test_a_closed_gif_is_refused_unless_its_frames_were_counted(tmp_path: Path) -> None:
    path, buffer = tmp_path / "image.gif", io.BytesIO(encoded(frame(10), "GIF"))
    path.write_bytes(buffer.getvalue())
    with Image.open(path) as unread:
        pass
    with Image.open(path) as read:
        read.load()
    with Image.open(path) as counted:
        assert not getattr(loaded(counted), "is_animated", None)
    of_buffer = loaded(Image.open(buffer))
    buffer.close()
    for _ in range(2):
        for image in (unread, read, of_buffer):
            refused(image, "closed before")
        assert MEDIA.load_image(counted, where=WHERE).size == (64, 64)
