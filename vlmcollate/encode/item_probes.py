"""Probe items of unequal sizes, on which a processor is tried."""

from __future__ import annotations

from typing import Any, cast

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmcollate.conversation import MediaKind
from vlmcollate.media import Video
from vlmcollate.media.processing.resizing import RESIZED, is_resized

_SIZES = ((64, 48), (300, 900), (640, 480), (64, 48))
"""The widths and heights of probe images, two of them equal, which some processors stack."""
_FRAME_SIZES = ((64, 48), (150, 450), (320, 240), (64, 48))
"""Those of the frames of probe videos."""
_WHOLE_PATCHES = ((224, 448), (672, 224), (224, 224), (224, 448))
"""Those of items that a processor does not resize."""


@attrs.frozen(order=True)
class Sort:
    """What decides how an item is processed, besides its size.

    Attributes:
        kind: Its kind.
        has_audio: Whether it is a video with audio.
        is_resized: Whether it has a size of its own, which the processor keeps.
    """

    kind: MediaKind
    has_audio: bool
    is_resized: bool

    @classmethod
    def of(cls, kind: MediaKind, item: Any) -> Sort:
        """Returns the sort of an item."""
        return cls(kind, getattr(item, "audio", None) is not None, is_resized(item))


def probe_items(sort: Sort, sampling_rate: int, *, alike: bool) -> list[Any]:
    """Returns items of noise.

    Args:
        sort: The sort of the items.
        sampling_rate: That of audio in Hz.
        alike: Whether videos have one size and one number of frames, as some processors need.
    """
    if sort.kind == "audio":
        return [_audio(place, sampling_rate) for place in range(len(_SIZES))]
    usual = _SIZES if sort.kind == "image" else _FRAME_SIZES
    sizes = enumerate(_WHOLE_PATCHES if sort.is_resized else usual)
    if sort.kind == "video":
        videos = [_video(sort, place, *size, sampling_rate) for place, size in sizes]
        return [videos[0], videos[3]] if alike else videos
    images = [Image.fromarray(_noise(place, height, width)) for place, (width, height) in sizes]
    for image in images:
        image.info |= {RESIZED: True} if sort.is_resized else {}
    return images


def _noise(seed: int, *shape: int) -> npt.NDArray[np.uint8]:
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    return cast("npt.NDArray[np.uint8]", pixels)


def _audio(place: int, sampling_rate: int) -> npt.NDArray[np.float32]:
    seconds = (0.5, 1.3, 0.9, 0.5)[place]
    noise = np.random.default_rng(place).normal(0, 0.1, int(seconds * sampling_rate))
    return noise.astype(np.float32)


def _video(sort: Sort, place: int, width: int, height: int, sampling_rate: int) -> Video:
    count = np.arange((4, 6, 5, 4)[place])
    step = (0.5, 0.5, 1.0, 0.25)[place]
    return Video(
        frames=_noise(place, len(count), height, width),
        times=count * np.float64(step),
        indices=count,
        total_frames=len(count),
        duration=len(count) * step,
        audio=_audio(place, sampling_rate) if sort.has_audio else None,
        is_resized=sort.is_resized,
    )
