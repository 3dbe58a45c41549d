"""Loads and processes the media of one sample, with errors that name the place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import numpy as np
from PIL import Image
from torch import Tensor

from vlmcollate.conversation import NO_OPTIONS, Conversation, MediaKind, MediaPart
from vlmcollate.encode.hooks import check_result, run_hook
from vlmcollate.encode.item_options import FinalSize, Shape, with_options
from vlmcollate.encode.processor_facts import ProcessorTraits
from vlmcollate.errors import CollateError, ConfigError, MediaError
from vlmcollate.family import Family
from vlmcollate.media import MediaStrategy, ProcessedMedia, Video
from vlmcollate.media.processing.refusals import refusal, refuses_media, refuses_number
from vlmcollate.media.processing.resizing import RESIZED, without_mark
from vlmcollate.media.processing.result import NOT_MEDIA, as_tensor
from vlmcollate.prompt.rendering import Rendering

_EXPECTED: dict[MediaKind, tuple[str, Callable[[Any], bool]]] = {
    "image": (
        "an RGB Pillow image with at least one pixel",
        lambda item: isinstance(item, Image.Image) and item.mode == "RGB" and min(item.size) > 0,
    ),
    "video": ("a vlmcollate.Video", lambda item: isinstance(item, Video)),
    "audio": (
        "a float32 array (N,)",
        lambda item: isinstance(item, np.ndarray) and item.dtype == np.float32 and item.ndim == 1,
    ),
}
"""The item that a media strategy must load for each kind."""


def check_kind(part: MediaPart, traits: ProcessorTraits, *, collator: str) -> None:
    """Refuses a media item of a kind that a processor does not take.

    Args:
        part: The media part of a message.
        traits: The processor's traits.
        collator: The name of the collator's class, for errors.

    Raises:
        MediaError: The processor takes none of this kind.
    """
    if part.kind not in traits.placeholders:
        raise MediaError(
            f"{collator} takes no {part.kind}; it takes "
            f"{', '.join(traits.placeholders) or 'text only'}",
            where=part.where,
        )


def load_media(
    part: MediaPart,
    strategy: MediaStrategy,
    traits: ProcessorTraits,
    *,
    soundtrack_rate: Callable[[MediaPart], int | None],
    final_size: Callable[[MediaPart, Shape], FinalSize | None],
    collator: str,
) -> Any:
    """Loads one media item, checks what the strategy returned, and applies the item's options.

    Args:
        part: The media part of a message.
        strategy: The media strategy.
        traits: The processor's traits.
        soundtrack_rate: A function that returns the sampling rate of a video's own audio in Hz, or
            `None` to skip it.
        final_size: A function that returns the size that an item's options give it, if any.
        collator: The name of the collator's class, for errors.
    """
    check_kind(part, traits, collator=collator)
    options: dict[str, Any] = {}
    if part.kind == "video":
        options["sampling"] = traits.sampling_for(part)
        options["sampling_rate"] = soundtrack_rate(part)
    elif part.kind == "audio":
        if traits.sampling_rate is None:
            raise ConfigError(
                f"the processor of {collator} declares no sampling rate; declare "
                "Family(sampling_rate=...) in a subclass"
            )
        options["sampling_rate"] = traits.sampling_rate
    load = getattr(strategy, f"load_{part.kind}")
    hook = partial(load, part.source, where=part.where, **options)
    item = run_hook(hook, strategy=strategy, place=part.where)
    expected, holds = _EXPECTED[part.kind]
    check_result(item, expected, holds=holds(item), strategy=strategy, where=part.where)
    if RESIZED in getattr(item, "info", ()):  # an image that a collator returned
        item = without_mark(item)
    if part.options is not NO_OPTIONS:
        return with_options(item, part, options, final_size)
    return item


def process_or_refuse(
    process: Callable[[Rendering, Sequence[Any]], ProcessedMedia],
    processor: Any,
    conversation: Conversation,
    rendering: Rendering,
    media: Sequence[Any],
) -> ProcessedMedia:
    """Processes media, and raises a MediaError if the processor refuses it.

    Args:
        process: The collator's `process_media`.
        processor: The processor.
        conversation: The conversation, for the places of its media.
        rendering: Its prompt.
        media: Its decoded media.

    Raises:
        MediaError: The processor refuses the media.
    """
    try:
        return process(rendering, media)
    except CollateError:
        raise
    except (ValueError, RuntimeError) as error:
        name, places = type(processor).__name__, [part.where for _, part in conversation.media]
        if refuses_media(error, processor, media, partial(process, rendering)):
            problem = refusal(error, processor)
        elif refuses_number(
            error,
            processor,
            media,
            [span.kind for span in rendering.media],
            lambda chosen, items: process(with_only(rendering, chosen), items),
        ):
            problem = (
                f"{name} refuses {len(media)} media items in one sample: "
                f"{str(error).rstrip('.')}; remove some, or drop the row"
            )
        else:
            raise
        raise MediaError(problem, where=", ".join(places)) from error


def with_only(rendering: Rendering, chosen: Sequence[int]) -> Rendering:
    """Returns a prompt of some of the placeholders of another, and nothing else.

    Args:
        rendering: The other prompt.
        chosen: The indices of the placeholders.
    """
    spans, text = [], ""
    for span in (rendering.media[place] for place in chosen):
        start, text = len(text), text + rendering.text[span.start : span.end]
        spans.append(attrs.evolve(span, start=start, end=len(text)))
    return Rendering(text=text, caller_spans=(), media=tuple(spans))


def media_tensors(output: Mapping[str, Any], family: Family, *, collator: str) -> dict[str, Tensor]:
    """Returns the declared media tensors of a processor's output.

    Args:
        output: The processor's output.
        family: The model family.
        collator: The name of the collator's class, for errors.

    Raises:
        ConfigError: The output has a key without a joining rule.
    """
    tensors = {}
    for key, value in output.items():
        if key in NOT_MEDIA:
            continue
        if key not in family.joins:
            raise ConfigError(
                f"the processor of {collator} returned the undeclared key {key!r}; add its joining "
                f"rule to {collator}.family"
            )
        tensors[key] = value if isinstance(value, Tensor) else as_tensor(value)
    return tensors


def count_media(rendering: Rendering, media: Sequence[Any]) -> dict[str, int]:
    """Counts the items of each kind; a video's own audio counts as audio too."""
    kinds: list[str] = [span.kind for span in rendering.media]
    kinds += ["audio" for item in media if isinstance(item, Video) and item.audio is not None]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
