"""Distinguishing media that a processor refuses from bugs."""

from __future__ import annotations

import dis
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import attrs
import numpy as np
from PIL import Image

from vlmcollate.media.loading.videos import Video

_SIDE = 224
_FRAMES = 8
_SAMPLES = 32_000
_OF_SHAPES = re.compile(r"\b(shape|sizes?)\b")
_OF_MEMORY = re.compile(r"memory|alloc|buffer|storage|space|[GM]i?B\b", re.IGNORECASE)
_LIBRARIES = ("torch", "transformers")
"""How the names of modules begin that hold the code of processors, remote code included."""


def may_be_refusal(error: Exception) -> bool:
    """Whether an exception is of a kind that a processor raises for media.

    That is a `ValueError`, or a plain `RuntimeError` of torch about a shape, but not about memory.

    Args:
        error: What was raised.
    """
    return isinstance(error, ValueError) or is_about_shape(error)


def is_about_shape(error: Exception) -> bool:
    """Whether an exception is what torch raises for a shape that does not fit code of others.

    Args:
        error: What was raised.
    """
    if type(error) is not RuntimeError or error.__traceback__ is None:
        return False
    *_, last = _steps(error.__traceback__)
    module, text = str(last.tb_frame.f_globals.get("__name__")), str(error)
    is_theirs = module.startswith(_LIBRARIES)  # and no bug of a class of the user's
    return bool(is_theirs and _OF_SHAPES.search(text) and not _OF_MEMORY.search(text))


def refuses_media(
    error: Exception, processor: Any, media: Sequence[Any], process: Callable[[list[Any]], object]
) -> bool:
    """Whether an exception from processing means that the media is at fault.

    Only what `may_be_refusal` names counts, if it comes out of the processor's own image processor,
    video processor or feature extractor, and only if the same call takes plain media of the same
    kinds. Anything else is a bug in the code around it, or a lack of memory.

    Args:
        error: What was raised.
        processor: The processor.
        media: The decoded items that were processed.
        process: Processes other items in their place.
    """
    if not (may_be_refusal(error) and _comes_from_a_part(error, processor)):
        return False
    try:
        process([_plain(item) for item in media])
    except Exception:  # noqa: BLE001  # whatever it is, it is not the media's fault
        return False
    return True


def refuses_number(
    error: Exception,
    processor: Any,
    media: Sequence[Any],
    kinds: Sequence[str],
    process: Callable[[Sequence[int], list[Any]], object],
) -> bool:
    """Whether an exception from processing means that the processor takes fewer items at once.

    Only a `ValueError` counts that a `raise` statement of the processor itself raises, and only if
    as many plain items raise the same one, while it takes one plain item of each kind alone.

    Args:
        error: What was raised.
        processor: The processor.
        media: The decoded items that were processed.
        kinds: The kind of each.
        process: Processes other items in the place of those with the given indices.
    """
    if len(media) < 2 or not _is_raised_by(error, processor):
        return False
    plain = list(map(_plain, media))
    try:
        process(range(len(plain)), plain)
    except ValueError as other:
        if str(other) != str(error) or not _is_raised_by(other, processor):
            return False
    except Exception:  # noqa: BLE001  # a bug
        return False
    else:
        return False
    try:
        for place in {kind: place for place, kind in enumerate(kinds)}.values():
            process([place], [plain[place]])
    except Exception:  # noqa: BLE001  # the processor takes no media of the kind, or has a bug
        return False
    return True


def refusal(error: Exception, processor: Any) -> str:
    """Returns the problem of a `MediaError` for media that a processor refuses.

    Args:
        error: What was raised.
        processor: The processor.
    """
    remedy = "; resize it, or drop the row" if is_about_shape(error) else ""
    return f"{type(processor).__name__} refuses the media of this sample: {error}{remedy}"


def _is_raised_by(error: Exception, processor: Any) -> bool:
    """Whether a `raise` statement in a method of the processor raised a `ValueError`."""
    if not isinstance(error, ValueError) or error.__traceback__ is None:
        return False
    *_, last = _steps(error.__traceback__)
    code = last.tb_frame.f_code.co_code
    is_own = last.tb_frame.f_locals.get("self") is processor
    return is_own and code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _steps(step: TracebackType | None) -> Iterator[TracebackType]:
    while step is not None:
        yield step
        step = step.tb_next


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
