"""Automodel's functions that read conversations before they are collated."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from PIL import Image

from vlmcollate.errors import EmptyBatchError, SampleError
from vlmcollate.formats import read_example
from vlmcollate.models import collator_for

_LOG = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, Any]]


def _parts(conversations: Sequence[Messages], kind: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields the parts of a kind, each with the index of its conversation."""
    for index, conversation in enumerate(conversations):
        for message in conversation:
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                if isinstance(part, Mapping) and part.get("type") == kind:
                    yield index, part


def _extract_assistant_text(message: Mapping[str, Any]) -> str:
    """Returns the text of all parts of a message."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(
        part.get("text") or ""
        for part in content or ()
        if isinstance(part, Mapping) and part.get("type", "text") == "text"
    )


def _extract_media_from_conversations(
    conversations: Sequence[Messages],
) -> tuple[list[Any] | None, list[Any] | None]:
    """Returns all images and all videos, each `None` if there are none."""
    images, videos = (
        [part[kind] for _, part in _parts(conversations, kind) if kind in part]
        for kind in ("image", "video")
    )
    return images or None, videos or None


def _count_media_per_sample(conversations: Sequence[Messages]) -> tuple[list[int], list[int]]:
    """Counts the images and the videos of each conversation."""
    counts = []
    for kind in ("image", "video"):
        found = [index for index, _ in _parts(conversations, kind)]
        counts.append([found.count(index) for index in range(len(conversations))])
    return counts[0], counts[1]


def _ensure_rgb(conversations: Sequence[Messages]) -> Sequence[Messages]:
    """Converts every PIL image in the conversations to RGB, in place.

    The collate functions of this module do not call it: they convert images when they load them,
    and do not modify the conversations.

    Returns:
        The same conversations.
    """
    for conversation in conversations:
        for message in conversation:
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                image = part.get("image") if isinstance(part, MutableMapping) else None
                if isinstance(image, Image.Image) and image.mode != "RGB":
                    part["image"] = image.convert("RGB")
    return conversations


def _extract_image_config(processor: Any) -> dict[str, int] | None:
    """Returns the sizes and limits of an image processor."""
    images = getattr(processor, "image_processor", None)
    if images is None:
        return None
    size = getattr(images, "size", None) or {}

    def limit(name: str, edge: str, default: int) -> int:
        return getattr(images, name, None) or size.get(name) or size.get(edge) or default

    patch, merge = getattr(images, "patch_size", 14), getattr(images, "merge_size", 2)
    return {
        "patch_size": patch,
        "merge_size": merge,
        "factor": patch * merge,
        "min_pixels": limit("min_pixels", "shortest_edge", 56 * 56),
        "max_pixels": limit("max_pixels", "longest_edge", 14 * 14 * 4 * 1280),
    }


def _estimate_media_tokens(conversation: Messages, processor: Any) -> int:
    """Estimates the tokens that images add, without decoding them.

    The number is exact if the processor can compute the tokens of an image from its size. Videos,
    and images whose size is unknown without decoding, count as 0.
    """
    count = getattr(processor, "_get_num_multimodal_tokens", None)
    images = [part.get("image") for _, part in _parts([conversation], "image")]
    sizes = [size for image in images if (size := _size_of(image))]
    if count is None or not sizes:
        return 0
    tokens = count(image_sizes=sizes)["num_image_tokens"]
    return sum(int(n) - 1 for n in tokens)


def _size_of(image: object) -> tuple[int, int] | None:
    """Returns the height and width of an image, or of a file's header."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    if not isinstance(image, str):
        return None
    try:
        with Image.open(image) as opened:
            return opened.height, opened.width
    except (OSError, ValueError, Image.DecompressionBombError):
        return None  # the collator raises the error of this image


def _drop_overlong_samples(
    conversations: Sequence[Messages], processor: Any, max_length: int | None
) -> tuple[list[Messages], list[int]]:
    """Drops conversations of more than `max_length` estimated tokens.

    Raises:
        EmptyBatchError: All conversations are longer.
    """
    if max_length is None:
        return conversations, list(range(len(conversations)))  # type: ignore[return-value]
    kept = []
    collator = collator_for(processor)
    for index, conversation in enumerate(conversations):
        try:
            text = collator.render(read_example(list(conversation))).text
        except SampleError:
            kept.append(index)  # the collator raises the error of this sample
            continue
        length = len(processor.tokenizer.encode(text, add_special_tokens=False))
        length += _estimate_media_tokens(conversation, processor)
        if length <= max_length:
            kept.append(index)
        else:
            _LOG.warning(
                "sample %d is dropped: about %d tokens, longer than max_length=%d",
                index,
                length,
                max_length,
            )
    if not kept:
        raise EmptyBatchError(
            f"all {len(conversations)} samples are longer than max_length={max_length}; raise it, "
            "or filter the dataset"
        )
    return [conversations[index] for index in kept], kept
