"""The memory of Pillow's images is read without a copy, is kept alive, and is never written to."""

from __future__ import annotations

import gc
import io
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.jpeg_bytes import photo
from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.encode import pixel_path, stripping
from vlmcollate.encode.stripping import _resized
from vlmcollate.media.loading.pixel_images import PixelImage
from vlmcollate.media.loading.pixel_memory import pixels_of, shared_pixels


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def shared(image: Image.Image) -> np.ndarray:
    """The pixels of an image in Pillow's memory, which have to be its own."""
    pixels = shared_pixels(image)
    assert pixels is not None and pixels.shape == (image.height, image.width, 4)
    assert np.array_equal(pixels[..., :3], np.asarray(image))
    return pixels


def opened(image: Image.Image, kind: str) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return Image.open(buffer)


@given(width=st.integers(1, 400), height=st.integers(1, 400))
def test_images_of_any_size_share_their_memory(width: int, height: int) -> None:
    image = noise(width, height)
    pixels = shared(image)
    pixels.setflags(write=False)
    image.putpixel((width - 1, height - 1), (1, 2, 3))
    assert pixels[-1, -1, :3].tolist() == [1, 2, 3]


MADE: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cropped": lambda image: image.crop((3, 5, 40, 31)),
    "flipped": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "converted": lambda image: image.convert("RGBA").convert("RGB"),
    "resized": lambda image: image.resize((31, 17)),
    "copied": lambda image: image.copy(),
    "from bytes": lambda image: Image.frombytes("RGB", image.size, image.tobytes()),
    "from a buffer": lambda image: Image.frombuffer("RGB", image.size, image.tobytes()),
    "lazy BMP": partial(opened, kind="BMP"),
    "lazy PPM": partial(opened, kind="PPM"),
    "lazy TIFF": partial(opened, kind="TIFF"),
    "lazy PNG": partial(opened, kind="PNG"),
    "lazy JPEG": partial(opened, kind="JPEG"),
}


@pytest.mark.parametrize("name", MADE)
def test_images_share_their_memory_however_they_were_made(name: str) -> None:
    shared(MADE[name](photo((60, 40))))


def test_a_mapped_file_is_read(tmp_path: Path) -> None:
    photo((60, 40)).save(tmp_path / "image.bmp")
    with Image.open(tmp_path / "image.bmp") as image:
        pixels = shared(image)
    assert np.array_equal(pixels[..., :3], np.asarray(photo((60, 40))))


def test_memory_that_pillow_borrowed_is_not_shared() -> None:
    arrow = pytest.importorskip("pyarrow")
    source = noise(33, 50)
    image = Image.fromarrow(arrow.array(source.convert("RGBX")), "RGB", source.size)
    assert shared_pixels(image) is None
    assert np.array_equal(pixels_of(image), np.asarray(source))


@pytest.mark.parametrize(
    "image",
    [
        noise(2100, 2001),  # 16 MB, which lie in two blocks
        PixelImage(np.zeros((4, 6, 3), np.uint8), {}),
    ],
    ids=["blocks", "PixelImage"],
)
def test_other_memory_is_not_shared(image: Image.Image) -> None:
    assert shared_pixels(image) is None
    assert not isinstance(image, PixelImage) or image.pixels is not None


def test_rows_with_room_between_them_are_not_shared() -> None:
    core: Any = Image.core  # type: ignore[attr-defined]  # not in Pillow's types
    core.set_alignment(64)
    try:
        assert shared_pixels(noise(33, 7)) is None
    finally:
        core.set_alignment(1)


def test_memory_outlives_its_image() -> None:
    expected = np.asarray(photo((300, 200)))
    closed, deleted, changed = (opened(photo((300, 200)), "PNG") for _ in range(3))
    kept = [torch.from_numpy(shared(image)) for image in (closed, deleted, changed)]
    closed.close()
    changed.thumbnail((20, 20))
    del closed, deleted, changed
    gc.collect()
    fresh = [noise(300, 200, seed) for seed in range(20)]  # which take memory that was given back
    assert all(np.array_equal(pixels[..., :3].numpy(), expected) for pixels in kept)
    assert len(fresh) == 20


def test_nothing_is_leaked() -> None:
    image = noise(1000, 500)
    made = sys.getrefcount(image), sys.getrefcount(image.im)
    shared_pixels(image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(10_000):
        pixels = shared_pixels(image if number % 100 else image.copy())
        assert pixels is not None
    del pixels
    assert (sys.getrefcount(image), sys.getrefcount(image.im)) == made
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 40_000  # in KB, where 100 copies alone would be 200 MB


def test_threads_may_share_an_image() -> None:
    image = noise(200, 100)
    expected = np.asarray(image)

    def read(_: int) -> bool:
        return all(np.array_equal(shared(image)[..., :3], expected) for _ in range(50))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(8)))


@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    target=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    resample=st.sampled_from([0, 1, 2, 3]),
    cut=st.booleans(),
)
def test_resized_images_are_those_of_three_channels(
    size: tuple[int, int], target: tuple[int, int], resample: int, cut: bool
) -> None:
    from transformers import LlavaNextImageProcessor
    from transformers.image_utils import SizeDict

    resize = LlavaNextImageProcessor().resize
    image = noise(*size)
    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()[None]
    view = torch.from_numpy(shared(image)).permute(2, 0, 1)[None, :3]
    if cut:
        planes, view = (
            planes[..., size[1] // 3 :, size[0] // 3 :],
            view[..., size[1] // 3 :, size[0] // 3 :],
        )
    options = {"size": SizeDict(height=target[0], width=target[1]), "resample": resample}
    found = _resized(resize, view, **options)
    assert torch.equal(found, resize(planes, **options))


@pytest.mark.parametrize("name", ["internvl", "qwen2_5_vl", "gemma3", "llava_onevision"])
def test_a_sample_keeps_nothing_of_its_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[Any] = []

    def remembered(image: Image.Image) -> Any:
        images.append(shared_pixels(image))
        return images[-1]

    monkeypatch.setattr(stripping, "shared_pixels", remembered)
    collate = collator_for(build(name))
    source = noise(160, 120)
    before = np.array(source)
    question = [{"type": "image", "image": source}, {"type": "text", "text": "What?"}]
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": "This."}]
    collate.encode(chat)
    images.clear()
    media = collate.encode(chat).media
    assert len(images) == 1 and images[0] is not None
    assert not any(np.may_share_memory(images[0], value.numpy()) for value in media.values())
    assert np.array_equal(np.asarray(source), before)


def test_a_processor_that_writes_to_its_images_gets_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = build("qwen2_5_vl")
    kind = type(processor.image_processor)
    plain = kind._preprocess

    def writes(self: Any, images: list[torch.Tensor], **options: Any) -> Any:
        found = plain(self, images, **options)
        for image in images:
            image.zero_()
        return found

    monkeypatch.setattr(kind, "_preprocess", writes)
    source = noise(64, 48)
    before = np.array(source)
    question = [{"type": "image", "image": source}, {"type": "text", "text": "What?"}]
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": "This."}]
    collate = collator_for(processor)
    media = collate.encode(chat).media
    assert media["pixel_values"].dtype == torch.uint8
    assert np.array_equal(np.asarray(source), before)
    (path,) = pixel_path._TRIED.get_or_make(processor, pixel_path._Tried).paths.values()
    assert not path.shortcuts.shared_memory
