"""An image gives the same pixels from every source, and other sources are refused."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.unit.media.loading.image_checks import (
    BLACK,
    BLUE,
    GREEN,
    RED,
    WHERE,
    WHITE,
    encoded,
    load,
    pixels,
    refused,
    within_two_seconds,  # noqa: F401  # a fixture of every test here
)
from vlmcollate.media import LocalMedia

# One image from every source


def as_png(image: Image.Image, orientation: int) -> tuple[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return "PNG", encoded(image, "PNG", exif=exif)


def as_jpeg(image: Image.Image, orientation: int) -> tuple[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return "JPEG", encoded(image, "JPEG", exif=exif, quality=100, subsampling=0)


def as_webp(image: Image.Image, orientation: int) -> tuple[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return "WEBP", encoded(image, "WEBP", exif=exif, lossless=True)


def as_tiff(image: Image.Image, orientation: int) -> tuple[str, bytes]:
    return "TIFF", encoded(image, "TIFF", tiffinfo={0x0112: orientation})


# The upright image has 2 rows of 3 tiles. A camera stores it for each orientation as the tag is
# defined (EXIF 2.32, 4.6.4: the places of the 0th row and the 0th column).
UPRIGHT = ["rgb", "kwy"]
STORED = {
    1: ["rgb", "kwy"],
    2: ["bgr", "ywk"],
    3: ["ywk", "bgr"],
    4: ["kwy", "rgb"],
    5: ["rk", "gw", "by"],
    6: ["by", "gw", "rk"],
    7: ["yb", "wg", "kr"],
    8: ["kr", "wg", "yb"],
}
INK = {"r": RED, "g": GREEN, "b": BLUE, "k": BLACK, "w": WHITE, "y": (255, 255, 0)}


def tiles(letters: list[str]) -> Image.Image:
    small = np.array([[INK[letter] for letter in row] for row in letters], np.uint8)
    return Image.fromarray(small.repeat(16, axis=0).repeat(16, axis=1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("encode", [as_png, as_jpeg, as_webp, as_tiff])
def test_every_source_gives_the_same_upright_pixels(
    encode: Callable[[Image.Image, int], tuple[str, bytes]], orientation: int, tmp_path: Path
) -> None:
    _, data = encode(tiles(STORED[orientation]), orientation)
    path = tmp_path / "photo"
    path.write_bytes(data)
    from_path = np.asarray(load(path))
    upright = np.asarray(tiles(UPRIGHT)).astype(int)
    assert from_path.shape == upright.shape
    assert abs(from_path - upright).max() <= (6 if encode is as_jpeg else 0)
    sources: list[object] = [
        str(path),
        path.as_uri(),
        data,
        bytearray(data),
        memoryview(data),
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(path)},
        {"bytes": data, "path": "/nowhere.jpg"},
        Image.open(io.BytesIO(data)),
        from_path,
        torch.from_numpy(from_path.copy()),
        torch.from_numpy(from_path.copy()).permute(2, 0, 1),
        np.ascontiguousarray(from_path[::-1])[::-1],
        load(path),
    ]
    for source in sources:
        assert np.array_equal(np.asarray(load(source)), from_path), type(source)


def test_orientation_in_xmp_and_in_other_modes_is_applied() -> None:
    image = Image.new("L", (4, 2), 9)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "JPEG", exif=exif)
    assert load(data).size == (2, 4)
    assert load(load(data)).size == (2, 4)
    rgb = Image.new("RGB", (4, 2))
    rgb.info["xmp"] = b'<rdf:Description tiff:Orientation="6"/>'
    assert load(rgb).size == (2, 4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_an_orientation_that_is_set_on_an_image_is_applied(mode: str) -> None:
    for orientation in range(1, 9):
        image = Image.effect_noise((6, 4), 90).convert(mode)
        image.getexif()[0x0112] = orientation
        upright = ImageOps.exif_transpose(image).convert("RGB")
        assert pixels(load(image)) == pixels(upright)
        assert LocalMedia().image_size(image, where=WHERE) == upright.size[::-1]
        assert pixels(load(load(image))) == pixels(upright)
    # set back, although the file demands a turn
    turned = Image.open(io.BytesIO(as_png(Image.new("RGB", (4, 2)), 6)[1]))
    turned.getexif()[0x0112] = 1
    assert load(turned).size == (4, 2)


def test_an_mpo_photo_is_its_first_image() -> None:
    data = encoded(
        Image.new("RGB", (16, 16), RED),
        "MPO",
        save_all=True,
        append_images=[Image.new("RGB", (16, 16), BLUE)],
    )
    colour = load(data).getpixel((3, 3))
    assert isinstance(colour, tuple) and colour[0] > 250
    assert load(Image.open(io.BytesIO(data))).getpixel((3, 3)) == colour


def test_a_plain_rgb_image_is_passed_through() -> None:
    image = Image.new("RGB", (4, 4))
    assert load(image) is image


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_the_callers_image_stays_as_it_was(mode: str) -> None:
    image = Image.new(mode, (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.info["exif"] = exif.tobytes()
    before = (image.mode, image.size, image.tobytes(), dict(image.info))
    assert load(image).size == (2, 4)
    assert (image.mode, image.size, image.tobytes(), dict(image.info)) == before


def test_a_plain_rgb_image_takes_microseconds() -> None:
    image, media = Image.new("RGB", (2000, 2000)), LocalMedia()
    start = time.perf_counter()
    for _ in range(1000):
        media.load_image(image, where=WHERE)
    assert time.perf_counter() - start < 0.2


# More than one image


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_refused_from_any_source(format: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, BLUE)]
    path = tmp_path / "moving"
    Image.new("RGB", (4, 4), RED).save(
        path, format, save_all=True, append_images=frames, lossless=True
    )
    refused(path, "3 frames", "pick a frame", "video")
    refused(path.read_bytes(), "3 frames")
    with Image.open(path) as image:
        refused(image, "3 frames")
        image.seek(1)
        assert load(image.copy()).getpixel((0, 0)) == GREEN


# Closed files


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "GIF", "WEBP"])
def test_a_closed_pil_image_is_refused_or_loads(format: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    Image.new("RGB", (4, 4)).save(path, format)
    with Image.open(path) as image:
        pass
    if format == "WEBP":
        assert load(image).size == (4, 4)
    else:
        refused(image, "closed before", "image.copy()", str(path))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "BMP"])
def test_a_pil_image_that_was_read_before_it_was_closed_loads(format: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    Image.new("RGB", (4, 4), WHITE).save(path, format)
    with Image.open(path) as image:
        image.load()
    assert load(image).getpixel((0, 0)) == WHITE


def test_a_closed_gif_is_refused_because_its_frames_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "image.gif"
    Image.new("RGB", (4, 4), WHITE).save(path)
    with Image.open(path) as image:
        image.load()
        kept = image.copy()
    refused(image, "closed before", "image.gif")
    assert load(kept).getpixel((0, 0)) == WHITE


# Arrays


@pytest.mark.parametrize(
    "array",
    [
        np.full((5, 6, 3), 0.5, np.float32),
        np.full((5, 6, 3), np.nan),
        np.ones((5, 6, 3), bool),
        np.ones((5, 6, 3), np.uint16),
        np.ones((5, 6, 3), np.int64),
        torch.ones(3, 5, 6),
        torch.ones(5, 6, dtype=torch.bool),
        torch.ones(5, 6, 3, dtype=torch.bfloat16),
    ],
)
def test_arrays_of_other_dtypes_are_refused(array: object) -> None:
    refused(array, str(getattr(array, "dtype", "")), "uint8", "scale it")


@pytest.mark.parametrize("shape", [(3, 5, 3), (4, 5, 3), (3, 3, 3), (3, 9, 4)])
def test_arrays_with_two_possible_channel_axes_are_refused(shape: tuple[int, ...]) -> None:
    refused(np.zeros(shape, np.uint8), "channels", "transpose(1, 2, 0)")
    refused(torch.zeros(shape, dtype=torch.uint8), "channels")


@pytest.mark.parametrize("shape", [(), (5,), (5, 6, 1), (1, 5, 6), (5, 6, 2), (2, 5, 6, 3)])
def test_arrays_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    refused(np.zeros(shape, np.uint8), "(H, W, 3)", str(shape))


def test_array_layouts() -> None:
    grey = np.array([[1, 2]], np.uint8)
    assert pixels(load(grey)) == [[[1, 1, 1], [2, 2, 2]]]
    alpha = np.array([[[9, 9, 9, 0], [1, 2, 3, 255]]], np.uint8)
    assert pixels(load(alpha)) == [[list(WHITE), [1, 2, 3]]]
    first = np.array([[[1, 4]], [[2, 5]], [[3, 6]]], np.uint8)
    assert pixels(load(first)) == [[[1, 2, 3], [4, 5, 6]]]
    assert pixels(load(grey[:, ::-1])) == [[[2, 2, 2], [1, 1, 1]]]


# Other sources


@pytest.mark.parametrize(
    "source", [None, 7, ["a.jpg"], {}, {"path": None, "bytes": None}, {"bytes": "a.jpg"}]
)
def test_other_sources_are_refused(source: object) -> None:
    refused(source, "expected")
