"""Images that keep pixels in an array act as Pillow's own, and share no memory of users."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.jpeg_bytes import photo
from tests.processors import build
from vlmcollate import LocalMedia, collator_for
from vlmcollate.encode.pixel_path import process_as_bytes
from vlmcollate.media import MediaRequest, ProcessedMedia
from vlmcollate.media.loading.pixel_images import PixelImage
from vlmcollate.media.loading.pixel_memory import pixels_of

EXPECTED = np.asarray(photo((60, 40)))


def made() -> PixelImage:
    return PixelImage(EXPECTED.copy(), {"dpi": (72, 72)})


OPERATIONS = {
    "resize": lambda image: image.resize((20, 30)),
    "crop": lambda image: image.crop((5, 6, 25, 36)),
    "rotate": lambda image: image.rotate(30, expand=True),
    "transpose": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "convert": lambda image: image.convert("L"),
    "convert to RGB": lambda image: image.convert("RGB"),
    "copy": lambda image: image.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "split": lambda image: image.split()[1],
    "pad": lambda image: ImageOps.pad(image, (100, 100)),
    "pickle": lambda image: pickle.loads(pickle.dumps(image)),
    "tobytes": lambda image: Image.frombytes("RGB", image.size, image.tobytes()),
    "merge": lambda image: Image.merge("RGB", image.split()),
    "blend": lambda image: Image.blend(image, image, 0.5),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_acts_as_an_ordinary_image(name: str) -> None:
    apply = OPERATIONS[name]
    found, expected = apply(made()), apply(Image.fromarray(EXPECTED))
    assert (found.mode, found.size) == (expected.mode, expected.size)
    assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_it_can_be_saved_compared_and_shown() -> None:
    buffer = io.BytesIO()
    made().save(buffer, "PNG")
    assert np.array_equal(np.asarray(Image.open(buffer)), EXPECTED)
    assert made() == made() and "RGB size=60x40" in repr(made())
    assert made().getpixel((3, 2)) == tuple(EXPECTED[2, 3])
    assert pickle.loads(pickle.dumps(made())).info == made().info == {"dpi": (72, 72)}


def test_a_change_is_seen_and_stays_in_the_image() -> None:
    array = EXPECTED.copy()
    image = PixelImage(array, {})
    before = np.asarray(image)
    assert np.shares_memory(before, array) and not before.flags.writeable
    image.putpixel((3, 2), (1, 2, 3))
    assert np.asarray(image)[2, 3].tolist() == [1, 2, 3]
    assert pixels_of(image)[2, 3].tolist() == [1, 2, 3]
    assert np.array_equal(array, EXPECTED) and np.array_equal(before, EXPECTED)


def test_an_array_outlives_its_image() -> None:
    image = made()
    array = np.asarray(image)
    image.load()
    del image
    assert np.array_equal(array, EXPECTED)


def test_threads_may_load_it() -> None:
    for _ in range(50):
        image = made()
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _, i=image: np.asarray(i.resize((9, 9))), range(4)))
        assert all(np.array_equal(found[0], other) for other in found)


@pytest.mark.parametrize(
    "size", [(1, 1), (60, 40), (1201, 1187), (3, 500_000), (500_000, 3)], ids=str
)
def test_pixels_are_copied_whole_and_writable(size: tuple[int, int]) -> None:
    image = photo(size)
    pixels = pixels_of(image)
    assert np.array_equal(pixels, np.asarray(image))
    assert pixels.flags.c_contiguous and pixels.flags.writeable


def layouts() -> dict[str, Any]:
    large = np.asarray(photo((200, 160)))
    return {
        "array": large.copy(),
        "channels first": np.ascontiguousarray(large.transpose(2, 0, 1)),
        "tensor": torch.from_numpy(large.copy()),
        "gray": large[:, :, 0].copy(),
        "image": Image.fromarray(large),
        "PixelImage": PixelImage(large.copy(), {}),
    }


@pytest.mark.parametrize("name", layouts())
def test_what_the_user_owns_is_neither_changed_nor_shared(name: str) -> None:
    source, before = layouts()[name], layouts()[name]
    image = {"type": "image", "image": source}
    chat = [
        {"role": "user", "content": [image, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "This."},
    ]
    collate = collator_for(build("qwen2_5_vl"))
    sample, loaded = collate.encode(chat), LocalMedia().load_image(source, where="")
    assert np.array_equal(np.asarray(source), np.asarray(before))
    media = {key: value.clone() for key, value in sample.media.items()}
    pixels = np.asarray(loaded).copy()
    if isinstance(source, Image.Image):
        source.paste("black", (0, 0, *source.size))
    else:
        source[:] = 0
    assert all(torch.equal(sample.media[key], media[key]) for key in media)
    assert not torch.equal(collate.encode(chat).media["pixel_values"], media["pixel_values"])
    assert loaded is source or np.array_equal(np.asarray(loaded), pixels)


def test_an_array_and_a_jpeg_stay_arrays() -> None:
    buffer = io.BytesIO()
    photo((60, 40)).save(buffer, "JPEG")
    for source in (EXPECTED, torch.from_numpy(EXPECTED.copy()), buffer.getvalue()):
        image = LocalMedia().load_image(source, where="")
        assert isinstance(image, PixelImage) and image.pixels is not None
        again = LocalMedia().load_image(image, where="")
        assert again is image and image.pixels is not None
        assert pixels_of(again) is image.pixels


def processed(process: Any, image: Image.Image) -> dict[str, torch.Tensor]:
    """What is made of one image by a process of images alone."""
    processor = build("qwen2_5_vl")
    request = MediaRequest(
        processor=processor, kinds=["image"], items=[image], texts=["<image>"], joins={}
    )
    found = process_as_bytes(process, request, {})
    return {} if found is None else dict(found.tensors)


def normalised(request: MediaRequest, pixels: torch.Tensor) -> torch.Tensor:
    part = request.processor.image_processor
    names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    found: torch.Tensor = part.rescale_and_normalize(
        pixels, **{name: getattr(part, name) for name in names}
    )
    return found


def as_tensor(item: Any) -> torch.Tensor:
    if isinstance(item, torch.Tensor):
        return item
    return torch.from_numpy(np.array(item)).permute(2, 0, 1)


def test_a_processor_that_passes_pixels_on_gets_a_copy() -> None:
    def pass_on(request: MediaRequest) -> ProcessedMedia:
        pixels = as_tensor(request.items[0]).permute(1, 2, 0)[None].permute(0, 3, 1, 2)
        return ProcessedMedia(
            replacements=("x",), tensors={"pixel_values": normalised(request, pixels)}
        )

    image = made()
    found = processed(pass_on, image)["pixel_values"]
    assert found.dtype == torch.uint8
    found[:] = 0
    assert np.array_equal(np.asarray(image), EXPECTED)


def test_a_processor_that_writes_to_tensors_gets_images() -> None:
    given = []

    def write(request: MediaRequest) -> ProcessedMedia:
        given.append(request.items[0])
        pixels = as_tensor(request.items[0])
        values = normalised(request, pixels.clone()[None])
        pixels[:] = 0
        return ProcessedMedia(replacements=("x",), tensors={"pixel_values": values})

    image = made()
    assert processed(write, image)["pixel_values"].dtype == torch.uint8
    assert given[-1] is image and np.array_equal(np.asarray(image), EXPECTED)
