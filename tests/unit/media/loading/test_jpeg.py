"""JPEG files give Pillow's pixels or, if they are damaged, its errors, whichever decoder runs."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torchvision.io  # its import takes seconds
from packaging.version import Version
from PIL import Image, ImageFile, ImageOps

from tests.conftest import NIGHTLY
from tests.forking import run_in_fresh_package
from tests.jpeg_bytes import mutant, patched_frame, photo
from vlmcollate import LocalMedia
from vlmcollate.errors import MediaError
from vlmcollate.media.loading import images, jpeg
from vlmcollate.media.loading.pixel_images import PixelImage

PROGRESSIVE_IS_FAST = jpeg._agrees_with_pillow(True)
SIZES = [(16, 16), (1, 1), (17, 31), (33, 7), (8, 200), (640, 480)]


def written(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def load(data: bytes, **options: Any) -> Image.Image:
    return LocalMedia(**options).load_image(data, where="images[0]")


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def check(data: bytes, *, fast: bool) -> None:
    loaded = load(data)
    assert isinstance(loaded, PixelImage) == fast
    expected = by_pillow(data)
    assert loaded.size == expected.shape[1::-1]
    assert np.array_equal(np.asarray(loaded), expected)


@pytest.fixture(autouse=True)
def large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Pillow write small files of noise, which are larger than its buffer."""
    monkeypatch.setattr(ImageFile, "MAXBLOCK", 1 << 23)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
def test_ordinary_files_are_decoded_fast_and_alike(size: tuple[int, int], quality: int) -> None:
    image = photo(size)
    for layout in (
        {},
        {"progressive": True},
        {"optimize": True},
        {"restart_marker_blocks": 3},
        {"restart_marker_rows": 1, "progressive": True},
    ):
        fast = PROGRESSIVE_IS_FAST or "progressive" not in layout
        for subsampling in (0, 1, 2):
            check(written(image, quality=quality, subsampling=subsampling, **layout), fast=fast)
        check(written(image.convert("L"), quality=quality, **layout), fast=fast)


def test_this_torchvision_decodes_both_kinds() -> None:
    assert jpeg._agrees_with_pillow(False)
    if Version(torchvision.__version__) >= Version("0.29"):
        assert jpeg._agrees_with_pillow(True)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_progressive_files_that_lack_scans_have_pillows_pixels(subsampling: int) -> None:
    whole = written(photo((70, 50)), subsampling=subsampling, progressive=True)
    scans = [found.start() for found in re.finditer(b"\xff\xda", whole)]
    for scan in scans[1:]:
        check(whole[:scan] + b"\xff\xd9", fast=PROGRESSIVE_IS_FAST)


def test_a_large_photo() -> None:
    check(written(photo((4000, 3000)), quality=90), fast=True)


def test_rgb_without_a_conversion_and_metadata() -> None:
    image = photo((40, 30))
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    data = written(image, icc_profile=b"profile" * 20_000, exif=exif, comment=b"x" * 300)
    check(data, fast=True)
    check(data + b"trailing bytes", fast=True)
    check(written(image, keep_rgb=True), fast=True)
    assert load(data).info["icc_profile"] == b"profile" * 20_000


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    check(written(photo((40, 30)), exif=exif), fast=orientation == 1)


def test_a_photo_of_several_views_is_its_first() -> None:
    buffer = io.BytesIO()
    photo((40, 30)).save(buffer, "MPO", save_all=True, append_images=[photo((40, 30), seed=1)])
    check(buffer.getvalue(), fast=True)


def test_layouts_that_are_not_tried_go_to_pillow() -> None:
    image = photo((32, 32))
    tall = patched_frame(written(image, subsampling=1), sampling=0x12)  # 4:4:0
    check(tall, fast=False)
    check(patched_frame(written(image, subsampling=2), sampling=0x41), fast=False)  # 4:1:1
    cmyk = written(image.convert("CMYK"))
    assert Image.open(io.BytesIO(cmyk)).mode == "CMYK"
    check(cmyk, fast=False)
    at = cmyk.index(b"Adobe")
    ycck = cmyk[: at + 11] + b"\x02" + cmyk[at + 12 :]
    assert not np.array_equal(by_pillow(ycck), by_pillow(cmyk))
    check(ycck, fast=False)


def test_a_file_whose_header_has_two_readings_goes_to_pillow() -> None:
    data = written(photo((40, 30)))
    assert jpeg.decode_jpeg(data, (40, 30)) is not None
    for unusual in (
        data[:2] + b"\xff" + data[2:],  # a fill byte before a marker
        data[:2] + b"\xff\x01" + data[2:],  # a marker without a length
        data[:2] + data[data.index(b"\xff\xc0") : data.index(b"\xff\xc4")] + data[2:],  # two frames
        data[: data.index(b"\xff\xda")],
        b"",
    ):
        assert jpeg.decode_jpeg(unusual, (40, 30)) is None
    assert jpeg.decode_jpeg(data, (30, 40)) is None  # not the size that was checked


def test_limits_are_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(images, "decode_jpeg", refuse)
    data = written(photo((40, 30)))
    for options, problem in (({"max_pixels": 100}, "max_pixels"), ({"formats": ["PNG"]}, "PNG")):
        with pytest.raises(MediaError, match=problem):
            load(data, **options)


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_file_has_pillows_error(
    kept: float, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(photo((160, 120)), progressive=progressive)
    data = whole[: int(kept * len(whole))]
    with pytest.raises(MediaError) as found:
        load(data)
    monkeypatch.setattr(images, "decode_jpeg", lambda *_: None)
    with pytest.raises(MediaError) as expected:
        load(data)
    assert str(found.value) == str(expected.value)
    monkeypatch.undo()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    check(data, fast=False)


def test_another_decoder_is_used_only_if_it_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(photo((40, 30)))
    agrees = jpeg._agrees_with_pillow.__wrapped__
    assert agrees(False)
    decode = torchvision.io.decode_jpeg
    for other in (
        lambda *a, **k: decode(*a, **k) ^ 1,
        lambda *_, **__: (_ for _ in ()).throw(RuntimeError("built without libjpeg")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(torchvision.io, "decode_jpeg", other)
            assert not agrees(False)
            patch.setattr(jpeg, "_agrees_with_pillow", agrees)
            check(data, fast=False)


def test_a_decoder_that_smooths_otherwise_decodes_no_progressive_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agrees, decode = jpeg._agrees_with_pillow.__wrapped__, torchvision.io.decode_jpeg

    def smooths(encoded: Any, **options: Any) -> Any:
        data = bytes(encoded)
        changed = b"\xff\xc2" in data and data.count(b"\xff\xda") == 2
        return decode(encoded, **options) ^ changed

    monkeypatch.setattr(torchvision.io, "decode_jpeg", smooths)
    monkeypatch.setattr(jpeg, "_agrees_with_pillow", agrees)
    check(written(photo((40, 30))), fast=True)
    check(written(photo((40, 30)), progressive=True), fast=False)


def test_mutated_files_give_pillows_pixels_or_errors() -> None:
    """In a process of its own, which a crash of a decoder would end."""
    run_in_fresh_package(
        f"from tests.jpeg_bytes import compare; compare({5000 if NIGHTLY else 200})"
    )


def test_a_mutant_is_not_always_refused() -> None:
    random = np.random.default_rng(0)
    whole = written(photo((40, 30)))
    mutants = [mutant(whole, random) for _ in range(100)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoded = sum(jpeg.decode_jpeg(data, (40, 30)) is not None for data in mutants)
    assert len(set(mutants)) > 90 and 10 < decoded < 90
