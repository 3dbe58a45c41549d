"""Counts the tokens of an example from the sizes of its media."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import attrs
import numpy as np
from PIL import Image

from vlmcollate.conversation import MediaKind, MediaPart
from vlmcollate.encode.hooks import run_hook
from vlmcollate.encode.item_options import FinalSize, Shape
from vlmcollate.encode.processor_facts import ProcessorTraits
from vlmcollate.errors import CollateError, MediaError
from vlmcollate.media import MediaStrategy, Video
from vlmcollate.media.processing.refusals import refusal, refuses_media

SMALL = (84, 84)
"""The height and width of an image that any processor accepts."""


def small_image() -> Image.Image:
    """Returns the reference image for counting the tokens of other images."""
    return Image.new("RGB", SMALL[::-1])


def media_texts(
    parts: Sequence[MediaPart],
    strategy: MediaStrategy,
    traits: ProcessorTraits,
    processor: Any,
    *,
    count: Callable[[MediaKind, tuple[int, ...]], int],
    final_size: Callable[[MediaPart, Shape], FinalSize | None],
    text_of: Callable[[MediaKind, Any], str],
    text_of_small_image: Callable[[], str],
) -> tuple[str, ...] | None:
    """Returns the text for each placeholder, without decoding the media.

    Args:
        parts: The media parts of a conversation.
        strategy: The media strategy, which reads headers.
        traits: The processor's traits.
        processor: The processor.
        count: A function that returns the number of tokens of one item of a kind and size.
        final_size: A function that returns the size that an item's options give it, if any.
        text_of: A function that returns the text for the placeholder of one decoded item.
        text_of_small_image: The same for `small_image`, cached.

    Returns:
        One text per item, or `None` if the strategy does not know the size of one.

    Raises:
        MediaError: The processor refuses the size of an item.
    """
    sizes = [_size(part, strategy, traits) for part in parts]
    if any(size is None for size in sizes):
        return None
    return tuple(
        _or_refuse(
            partial(_text, part, size, traits, count, final_size, text_of, text_of_small_image),
            part,
            size,
            processor,
            text_of,
        )
        for part, size in zip(parts, sizes, strict=True)
    )


def _text(
    part: MediaPart,
    size: tuple[int, int] | Video | None,
    traits: ProcessorTraits,
    count: Callable[[MediaKind, tuple[int, ...]], int],
    final_size: Callable[[MediaPart, Shape], FinalSize | None],
    text_of: Callable[[MediaKind, Any], str],
    text_of_small_image: Callable[[], str],
) -> str:
    """Returns the text for one placeholder; see `media_texts`."""
    resized = final_size(part, size or SMALL)
    if isinstance(size, Video):
        shape: tuple[int, ...] = size.frames.shape[:3]
        small: tuple[int, ...] = (len(size.frames), *(SMALL if resized is None else resized.unit))
        black = np.zeros((*small, 3), np.uint8)
        text = text_of(part.kind, attrs.evolve(size, frames=black, is_resized=resized is not None))
    else:
        shape, small, text = size or SMALL, SMALL, text_of_small_image()
    if resized is None:
        more = count(part.kind, shape) - count(part.kind, small)
    else:
        more = resized.tokens - text.count(_token_of(text, traits.media_tokens))
    return _stretched(text, more, traits.media_tokens)


def _or_refuse(
    find: Callable[[], str],
    part: MediaPart,
    size: tuple[int, int] | Video | None,
    processor: Any,
    text_of: Callable[[MediaKind, Any], str],
) -> str:
    """Returns what a function finds; a size that the processor refuses is a MediaError."""
    try:
        return find()
    except CollateError:
        raise
    except (ValueError, RuntimeError) as error:
        item = size if isinstance(size, Video) else small_image()
        if not refuses_media(error, processor, [item], lambda items: text_of(part.kind, items[0])):
            raise
        raise MediaError(refusal(error, processor), where=part.where) from error


def _token_of(text: str, media_tokens: Mapping[MediaKind, Sequence[str]]) -> str:
    """Returns the media token of a text; a video may be made of image tokens."""
    return next(t for t in chain.from_iterable(media_tokens.values()) if t in text)


def _stretched(text: str, more: int, media_tokens: Mapping[MediaKind, Sequence[str]]) -> str:
    """Returns the text with more, or fewer, of its media tokens."""
    token = _token_of(text, media_tokens)
    if more > 0:
        return text.replace(token, token * (more + 1), 1)
    return text.replace(token, "", -more)


def _size(
    part: MediaPart, strategy: MediaStrategy, traits: ProcessorTraits
) -> tuple[int, int] | Video | None:
    """Returns an image's height and width, or a video's black frames."""
    hook: Callable[[], tuple[int, int] | Video | None]
    if part.kind == "image":
        hook = partial(strategy.image_size, part.source, where=part.where)
    else:
        sampling = traits.sampling_for(part)
        hook = partial(strategy.probe_video, part.source, sampling=sampling, where=part.where)
    return run_hook(hook, strategy=strategy, place=part.where)
