"""Channels are separated alike, however the pixels lie in memory."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlmcollate.media.processing.patch_grid import cut_patches
from vlmcollate.media.processing.planes import pixel_words, with_fourth_channel, write_channels

SIZES = st.tuples(*[st.integers(1, 5)] * 3)


def images_of(count: int, height: int, width: int, bytes_a_pixel: int) -> Tensor:
    """Images (count, 3, height, width) of random bytes, whose channels are innermost in memory."""
    pixels = np.random.default_rng(width).integers(0, 256, (count, height, width, 4), np.uint8)
    return torch.from_numpy(pixels[..., :bytes_a_pixel].copy()).permute(0, 3, 1, 2)[:, :3]


@given(size=SIZES)
def test_words_hold_the_channels(size: tuple[int, int, int]) -> None:
    images = images_of(*size, 4)
    words, planes = pixel_words(images), np.empty(tuple(images.shape), np.uint8)
    assert words is not None
    write_channels(words, planes)
    assert np.array_equal(planes, images.numpy())


@given(size=st.tuples(*[st.integers(2, 5)] * 3))  # torch gives axes of one value any strides
def test_other_memory_has_no_fourth_channel(size: tuple[int, int, int]) -> None:
    for images in (images_of(*size, 3), images_of(*size, 4).contiguous()):
        assert with_fourth_channel(images) is None
        assert pixel_words(images) is None


@given(size=SIZES, patch=st.integers(1, 5), merge=st.integers(1, 2))
def test_patches_are_the_same_in_any_memory(
    size: tuple[int, int, int], patch: int, merge: int
) -> None:
    count, *cells = size
    height, width = (patch * merge * n for n in cells)
    layouts = [images_of(count, height, width, n) for n in (3, 4)]
    layouts.append(layouts[0].contiguous())
    cut = images_of(count, height, width, 4).unflatten(-1, (-1, merge, patch))
    cut = cut.unflatten(-4, (-1, merge, patch))  # (B, C, bands, merge, P, tokens, merge, P)
    expected = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(count, -1, 3 * patch**2)
    for images in layouts:
        patches, rows, columns = cut_patches(images, patch, merge, 2)
        assert (rows, columns) == (height // patch, width // patch)
        assert torch.equal(patches, expected)


@given(size=SIZES, width=st.integers(1, 5))
def test_a_part_of_an_image_has_its_channels(size: tuple[int, int, int], width: int) -> None:
    images = images_of(*size, 4)[..., :width]
    words, planes = pixel_words(images), np.empty(tuple(images.shape), np.uint8)
    if words is not None:  # torch gives axes of one value any strides
        write_channels(words, planes)
        assert np.array_equal(planes, images.numpy())
