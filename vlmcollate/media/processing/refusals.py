"""Distinguishing media that a processor refuses from bugs."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
from PIL import Image

from vlmcollate.media.loading.videos import Video

_SIDE = 224
_FRAMES = 8
_SAMPLES = 32_000


def refuses_media(
    error: Exception, processor: Any, media: Sequence[Any], process: Callable[[list[Any]], object]
) -> bool:
    """Whether an exception from processing means that the media is at fault.

    Only a `ValueError` counts that comes out of the processor's own image processor, video
    processor or feature extractor, and only if the same call takes plain media of the same kinds.
    Anything else is a bug in the code around it, or a lack of memory.

    Args:
        error: What was raised.
        processor: The processor.
        media: The decoded items that were processed.
        process: Processes other items in their place.
    """
    if not (isinstance(error, ValueError) and _comes_from_a_part(error, processor)):
        return False
    try:
        process([_plain(item) for item in media])
    except Exception:  # noqa: BLE001  # whatever it is, it is not the media's fault
        return False
    return True


def _comes_from_a_part(error: Exception, processor: Any) -> bool:
    """Whether a method of one of the processor's media parts was running."""
    tokenizer = getattr(processor, "tokenizer", None)
    parts = [p for p in getattr(processor, "__dict__", {}).values() if p is not tokenizer]
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(part is frame.f_locals.get("self") for frame in frames for part in parts)


def _plain(item: Any) -> Any:
    """A white image, a black video or a tone, which every processor takes."""
    if isinstance(item, Image.Image):
        return Image.new("RGB", (_SIDE, _SIDE), "white")
    if isinstance(item, Video):
        times = np.arange(_FRAMES) / 2
        return attrs.evolve(
            item,
            frames=np.zeros((_FRAMES, _SIDE, _SIDE, 3), np.uint8),
            times=times,
            indices=np.arange(_FRAMES),
            total_frames=_FRAMES,
            duration=_FRAMES / 2,
            audio=None if item.audio is None else _plain(item.audio),
        )
    return (np.sin(np.arange(_SAMPLES) / 30) / 2).astype(np.float32)
