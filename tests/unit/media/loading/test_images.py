"""Unusual and broken images load as RGB, or raise an error that names their place."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.media.loading.image_checks import (
    BLUE,
    RED,
    WHERE,
    WHITE,
    encoded,
    load,
    pixels,
    refused,
    within_two_seconds,  # noqa: F401  # a fixture of every test here
)
from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media import LocalMedia


def noise(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IEND", b"")]
    )


# Broken files


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0, 1, 3, 12, 30, 0.5, 0.9])
def test_a_truncated_file_is_refused(format: str, kept: float, tmp_path: Path) -> None:
    whole = encoded(Image.fromarray(noise()), format)
    data = whole[: int(len(whole) * kept) if isinstance(kept, float) else kept]
    path = tmp_path / "cut.jpg"
    path.write_bytes(data)
    refused(data)
    refused(path, "cut.jpg")


def test_the_cause_of_a_broken_file_is_kept() -> None:
    whole = encoded(Image.fromarray(noise()), "JPEG")
    assert isinstance(refused(whole[: len(whole) // 2]).__cause__, OSError)


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"IEND"])
def test_a_flipped_checksum_byte_in_a_png_is_refused(kind: bytes) -> None:
    data = bytearray(encoded(Image.fromarray(noise()), "PNG"))
    start = data.index(kind)
    length = int.from_bytes(data[start - 4 : start], "big")
    data[start + 4 + length] ^= 0xFF
    assert refused(bytes(data), "undamaged").__cause__ is not None


def test_a_png_without_its_end_chunk_is_refused() -> None:
    refused(encoded(Image.fromarray(noise()), "PNG")[:-12], "truncated")


def test_a_truncated_pil_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(Image.fromarray(noise()), "JPEG")[:-600])
    with Image.open(path) as image:
        refused(image, "truncated")


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        b"%PDF-1.7\n",
        b"\x00" * 64,
    ],
)
def test_other_content_under_a_jpg_name_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    refused(path, "photo.jpg", "none of the allowed formats JPEG, PNG")
    refused(data, "none of the allowed formats")


def test_an_unloaded_eps_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    eps = encoded(Image.new("RGB", (4, 4)), "EPS")
    image = Image.open(io.BytesIO(eps))
    monkeypatch.setattr(image, "load", lambda: pytest.fail("Ghostscript would run"))
    refused(image, "EPS", "formats")


def test_broken_exif_does_not_make_an_image_unusable() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.info["exif"] = b"Exif\x00\x00nonsense"
    assert pixels(load(image)) == [[[255, 0, 0], [255, 0, 0]]]


def test_a_damaged_file_gives_an_image_or_a_media_error() -> None:
    random = np.random.default_rng(1)
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = encoded(Image.fromarray(noise(8, 8)), format)
        for _ in range(40):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 3):
                data[place] = random.integers(0, 256)
            try:
                load(bytes(data))
            except MediaError as error:
                assert error.where == WHERE


# Large images


def test_a_header_that_claims_50000_pixels_a_side_is_refused() -> None:
    data = png(50_000, 50_000, 8, 2, png_chunk(b"IDAT", zlib.compress(b"\x00")))
    refused(data, "50000x50000", "max_pixels=64000000")


def test_a_header_that_claims_11000_pixels_a_side_raises_no_warning() -> None:
    # above Pillow's limit it warns, and above twice that it raises
    data = png(11_000, 11_000, 8, 2, png_chunk(b"IDAT", zlib.compress(b"\x00")))
    refused(data, "11000x11000")


def test_a_small_file_of_12000_x_12000_pixels_is_refused() -> None:
    packed = zlib.compressobj()
    row = b"\x00" + bytes(1500)
    body = b"".join(packed.compress(row) for _ in range(12_000)) + packed.flush()
    data = png(12_000, 12_000, 1, 0, png_chunk(b"IDAT", body))
    assert len(data) < 30_000
    refused(data, "12000x12000", "max_pixels")


def test_a_large_pil_image_and_array_are_refused() -> None:
    media = LocalMedia(max_pixels=100)
    refused(Image.new("RGB", (11, 10)), "11x10", "max_pixels=100", media=media)
    refused(np.zeros((10, 11, 3), np.uint8), "11x10", media=media)
    assert load(Image.new("RGB", (10, 10)), media).size == (10, 10)


def test_too_many_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    media = LocalMedia(max_bytes=1000)
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(10**12)
    refused(path, "1000000000000 bytes", "max_bytes=1000", media=media)
    refused(bytes(1001), "1001 bytes", media=media)
    refused(memoryview(bytes(2000)).cast("I"), "2000 bytes", media=media)
    refused("data:image/png;base64," + "A" * 2000, "max_bytes", media=media)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_slim_images_load(size: tuple[int, int]) -> None:
    assert load(encoded(Image.new("RGB", size, RED), "PNG")).size == size


def test_an_image_without_pixels_is_refused() -> None:
    refused(Image.new("RGB", (0, 5)), "empty")
    refused(np.zeros((0, 5, 3), np.uint8), "empty")


# Modes


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    colour = load(encoded(image, "JPEG", quality=100)).getpixel((8, 8))
    assert isinstance(colour, tuple)
    assert colour[0] > 250 and colour[1] < 5 and colour[2] < 5


def test_a_palette_with_a_transparent_colour_is_filled() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    data = encoded(image, "PNG", transparency=0)
    assert pixels(load(data)) == [[list(WHITE), list(BLUE)]]
    partly = encoded(image, "PNG", transparency=b"\xff\x00")
    assert pixels(load(partly)) == [[list(RED), list(WHITE)]]
    assert pixels(load(encoded(image, "GIF", transparency=1))) == [[list(RED), list(WHITE)]]


def test_a_palette_with_alpha_is_filled() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, *BLUE, 255], "RGBA")
    image.putdata([0, 1])
    assert pixels(load(image)) == [[list(WHITE), list(BLUE)]]


def test_rgb_and_grey_with_a_transparent_colour_are_filled() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    assert pixels(load(encoded(image, "PNG", transparency=RED))) == [[list(WHITE), list(BLUE)]]
    grey = Image.new("L", (1, 1), 7)
    assert pixels(load(encoded(grey, "PNG", transparency=7))) == [[list(WHITE)]]


@pytest.mark.parametrize(
    ("mode", "hidden"),
    [
        ("RGBA", (200, 100, 50, 0)),
        ("LA", (200, 0)),
        ("La", (0, 0)),
        ("RGBa", (0, 0, 0, 0)),
        ("PA", (1, 0)),
    ],
)
def test_hidden_colours_do_not_show(mode: str, hidden: tuple[int, ...]) -> None:
    image = Image.new(mode, (1, 1), hidden)
    assert pixels(load(image)) == [[list(WHITE)]]
    assert pixels(load(image, LocalMedia(background=BLUE))) == [[list(BLUE)]]


def test_half_transparent_is_mixed_with_the_background() -> None:
    image = Image.new("RGBA", (1, 1), (0, 0, 0, 51))
    assert pixels(load(image)) == [[[204, 204, 204]]]
    assert pixels(load(image, LocalMedia(background="#000"))) == [[[0, 0, 0]]]


def test_opaque_alpha_changes_nothing() -> None:
    opaque = noise()
    image = Image.fromarray(opaque).convert("RGBA")
    assert np.array_equal(np.asarray(load(image)), opaque)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, WHITE),
        ("L", 7, (7, 7, 7)),
        ("YCbCr", (255, 128, 128), WHITE),
        ("HSV", (0, 255, 255), RED),
        ("LAB", (128, 128, 128), (119, 119, 119)),
        ("CMYK", (255, 255, 0, 0), BLUE),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
    ],
)
def test_other_modes_become_rgb(
    mode: str, colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    image = Image.new(mode, (2, 2), colour)
    assert load(image).getpixel((1, 1)) == expected


def test_a_16_bit_png_is_scaled_to_8_bits() -> None:
    samples = [0, 128, 129, 257, 32896, 65535]
    body = zlib.compress(b"\x00" + struct.pack(">6H", *samples))
    image = load(png(6, 1, 16, 0, png_chunk(b"IDAT", body)))
    assert [pixel[0] for pixel in pixels(image)[0]] == [0, 0, 1, 1, 128, 255]


def test_a_16_bit_png_with_a_transparent_grey_is_filled() -> None:
    body = zlib.compress(b"\x00" + struct.pack(">2H", 257, 514))
    key = png_chunk(b"tRNS", struct.pack(">H", 257))
    image = load(png(2, 1, 16, 0, key, png_chunk(b"IDAT", body)), LocalMedia(gray_range=(0, 65535)))
    assert pixels(image) == [[list(WHITE), [2, 2, 2]]]


def test_a_16_bit_rgb_png_with_a_transparent_colour_loads_or_is_refused() -> None:
    body = zlib.compress(b"\x00" + struct.pack(">3H", 65535, 0, 0))
    key = png_chunk(b"tRNS", struct.pack(">3H", 65535, 0, 1))
    try:
        assert pixels(load(png(1, 1, 16, 2, key, png_chunk(b"IDAT", body)))) in (
            [[list(RED)]],
            [[list(WHITE)]],
        )
    except MediaError as error:
        assert error.where == WHERE


def test_integer_pixels_in_and_out_of_range() -> None:
    assert load(Image.new("I", (1, 1), 65535)).getpixel((0, 0)) == WHITE
    assert load(Image.new("I;16B", (1, 1), 65535)).getpixel((0, 0)) == WHITE
    refused(Image.new("I", (1, 1), 65536), "65536", "0 to 65535", "gray_range")
    refused(Image.new("I", (1, 1), -1), "-1")


def test_integer_pixels_of_an_unknown_range() -> None:
    grey = np.array([[0, 90], [200, 255]], np.int32)
    refused(Image.fromarray(grey), "up to 255", "mode I", "astype('uint8')")
    assert load(Image.fromarray(grey.astype(np.uint8))).getpixel((1, 1)) == WHITE
    sixteen_bit = Image.fromarray(grey.astype(np.uint16))
    refused(sixteen_bit, "up to 255", "gray_range")
    assert load(sixteen_bit, LocalMedia(gray_range=(0, 65535))).getpixel((1, 1)) == (1, 1, 1)
    assert load(Image.fromarray(grey * 257)).getpixel((0, 1)) == (200, 200, 200)
    assert load(Image.new("I", (1, 1), 0)).getpixel((0, 0)) == (0, 0, 0)  # black in any range


def test_a_float_tiff_is_refused() -> None:
    refused(encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "float", "scale them")


def test_threads_may_share_it_and_nothing_global_changes() -> None:
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    bomb = png(11_000, 11_000, 8, 2, png_chunk(b"IDAT", zlib.compress(b"\x00")))
    whole = encoded(Image.new("RGB", (8, 8), RED), "PNG")
    media = LocalMedia()

    def one(number: int) -> None:
        if number % 2:
            refused(bomb, "max_pixels", media=media)
        else:
            assert load(whole, media).getpixel((7, 7)) == RED

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(200)))
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def gradient(bits):
    return np.linspace(0, (1 << bits) - 1, 16).round().astype(np.uint16).reshape(4, 4)


EIGHT_BITS = np.linspace(0, 255, 16).round().astype(int).reshape(4, 4)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("kind", ["object", "PNG", "TIFF"])
def test_an_undeclared_depth_is_refused_until_the_option_declares_it(bits, kind):
    source: Image.Image | bytes = Image.fromarray(gradient(bits))
    if kind != "object":
        file = io.BytesIO()
        Image.fromarray(gradient(bits)).save(file, kind)
        source = file.getvalue()
    with pytest.raises(MediaError, match=r"LocalMedia\(gray_range="):
        LocalMedia().load_image(source, where="images[0]")
    found = LocalMedia(gray_range=(0, (1 << bits) - 1)).load_image(source, where="images[0]")
    assert np.abs(np.asarray(found)[..., 0] - EIGHT_BITS).max() <= 1
    with pytest.raises(MediaError, match="outside of its range"):
        LocalMedia(gray_range=[0, 100]).load_image(source, where="images[0]")


def test_a_depth_that_the_file_declares_is_read():
    png, tiff = io.BytesIO(), io.BytesIO()
    Image.fromarray(gradient(12)).save(png, "PNG")
    chunk = b"sBIT\x0c"
    chunk = (1).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    data = png.getvalue()
    Image.fromarray(gradient(12)).save(tiff, "TIFF", tiffinfo={281: 4095})
    for source in (data[:33] + chunk + data[33:], tiff.getvalue()):
        found = LocalMedia().load_image(source, where="images[0]")
        assert np.abs(np.asarray(found)[..., 0] - EIGHT_BITS).max() <= 1


@pytest.mark.parametrize("image", [("F", 0.25), ("I", -500), ("I", 1 << 20), ("I;16", 1000)])
def test_a_stated_range_serves_every_image_of_many_values(image):
    mode, value = image
    for black, white, expected in ((value, value + 4, 0), (value - 1, value + 1, 128)):
        found = LocalMedia(gray_range=(black, white)).load_image(
            Image.new(mode, (2, 2), value), where="images[0]"
        )
        assert found.getpixel((0, 0)) == (expected,) * 3
    gray = Image.new("L", (2, 2), 7)  # its 8 bits are its range
    assert LocalMedia(gray_range=(0, 4095)).load_image(gray, where="x").getpixel((0, 0)) == (7,) * 3


@pytest.mark.parametrize(
    "wrong", [0, 17, (0,), (0, "1"), (4095, 0), (1, 1), (0, True), (0, float("inf")), "12"]
)
def test_an_impossible_range_is_refused(wrong):
    with pytest.raises(ConfigError, match="gray_range"):
        LocalMedia(gray_range=wrong)


@pytest.mark.parametrize("name", ["AVIF", "JPEG2000", "PPM"])
def test_a_format_that_is_not_decoded_names_the_option(name):
    file = io.BytesIO()
    try:
        Image.new("RGB", (32, 32), "teal").save(file, name)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {name}")
    with pytest.raises(MediaError, match=r"LocalMedia\(formats="):
        LocalMedia().load_image(file.getvalue(), where="images[0]")
    assert LocalMedia(formats=[name]).load_image(file.getvalue(), where="x").size == (32, 32)
