"""Applies the options that one media item has of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from vlmcollate.conversation import NO_OPTIONS, MediaPart
from vlmcollate.errors import MediaError
from vlmcollate.family import Family
from vlmcollate.media import Video
from vlmcollate.media.processing.resizing import Resizer

Shape = tuple[int, int] | Video
"""The height and the width of an image, or a video."""


@attrs.frozen
class FinalSize:
    """The size that an item's options give it.

    Attributes:
        resizer: The resizing of the processor.
        shape: (H, W) of the image, or (T, H, W) of the video.
        size: The height and the width after resizing.
    """

    resizer: Resizer
    shape: tuple[int, ...]
    size: tuple[int, int]

    @property
    def tokens(self) -> int:
        """The number of tokens of the item."""
        return self.resizer.tokens(self.shape, self.size)

    @property
    def unit(self) -> tuple[int, int]:
        """The height and the width of one token."""
        return self.resizer.factor, self.resizer.factor

    def resize(self, item: Any) -> Any:
        """Resizes the item."""
        return self.resizer.resize(item, self.size)


def final_size(
    part: MediaPart, shape: Shape, processor: Any, family: Family, *, collator: str
) -> FinalSize | None:
    """Returns the size that the options of an image or a video give it.

    Args:
        part: The media part of a message.
        shape: The height and the width of an image, or a video.
        processor: The processor.
        family: Its model family.
        collator: The name of the collator's class, for errors.

    Returns:
        The size, or `None` if the processor chooses it.

    Raises:
        MediaError: The processor has no limits of pixels, or the options contradict each other.
    """
    if part.options == NO_OPTIONS:
        return None
    resizer = Resizer.of(processor, part.kind, family.frame_tokens)
    if resizer is None:
        if part.options.resizes:
            raise MediaError(
                f"sets pixels, but the processor of {collator} takes no limits of pixels for "
                f"{part.kind} media; remove the option, and resize the {part.kind} in the dataset, "
                f"or set processor.{part.kind}_processor.size for all of them",
                where=part.where,
            )
        return None
    of_images = isinstance(shape, Video) and shape.is_of_images
    shape = shape.frames.shape[:3] if isinstance(shape, Video) else shape
    size = resizer.size(shape, part.options, of_images=of_images, where=part.where)
    return None if size is None else FinalSize(resizer, shape, size)


def with_options(
    item: Any,
    part: MediaPart,
    loading: Mapping[str, Any],
    final_size: Callable[[MediaPart, Shape], FinalSize | None],
) -> Any:
    """Gives a decoded item the size, and audio the range, that its options set.

    Args:
        item: An RGB image, a `Video` or (N,) float32 audio.
        part: The media part of a message.
        loading: The arguments with which it was loaded.
        final_size: A function that returns the size that the options give the item, if any.
    """
    if part.kind == "audio":
        return _cut(item, part, loading["sampling_rate"])
    if not isinstance(item, Video):
        size = final_size(part, item.size[::-1])
        return item if size is None else size.resize(item)
    if item.audio is not None:
        item = attrs.evolve(item, audio=_cut(item.audio, part, loading["sampling_rate"]))
    size = final_size(part, item)
    return item if size is None else size.resize(item)


def _cut(audio: Any, part: MediaPart, rate: int) -> Any:
    """The samples (N,) from the start to the end that the options set."""
    start, end = part.options.start, part.options.end
    cut = audio[int((start or 0) * rate) : None if end is None else int(end * rate)]
    if not len(cut):
        raise MediaError(
            f"the audio has no sample from {start or 0:g} s on: it lasts {len(audio) / rate:.3f} "
            "s; correct the start and the end",
            where=part.where,
        )
    return cut
