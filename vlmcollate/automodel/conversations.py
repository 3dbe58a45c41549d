"""What Automodel asks of conversations before it collates them."""

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
    for index, conversation in enumerate(conversations):
        for message in conversation:
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                if isinstance(part, Mapping) and part.get("type") == kind:
                    yield index, part


def _extract_assistant_text(message: Mapping[str, Any]) -> str:
    """The text of a message, of all its parts."""
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
    """All images and all videos in order, or `None` where there is none."""
    images, videos = (
        [part[kind] for _, part in _parts(conversations, kind) if kind in part]
        for kind in ("image", "video")
    )
    return images or None, videos or None


def _count_media_per_sample(conversations: Sequence[Messages]) -> tuple[list[int], list[int]]:
    """How many images and how many videos each conversation has."""
    counts = []
    for kind in ("image", "video"):
        found = [index for index, _ in _parts(conversations, kind)]
        counts.append([found.count(index) for index in range(len(conversations))])
    return counts[0], counts[1]


def _ensure_rgb(conversations: Sequence[Messages]) -> Sequence[Messages]:
    """Converts every PIL image in the conversations to RGB, in place.

    The collate functions of this module do not call it: they convert what they load, and leave the
    caller's conversations as they are.

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
    """Patch size, merge size, and the fewest and most pixels of an image processor."""
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
    """The tokens that a conversation's images add to their placeholders, without decoding them.

    It is exact where the processor tells how many tokens an image becomes; an image whose size is
    not known without decoding, and any video, counts 0.
    """
    count = getattr(processor, "_get_num_multimodal_tokens", None)
    images = [part.get("image") for _, part in _parts([conversation], "image")]
    sizes = [size for image in images if (size := _size_of(image))]
    if count is None or not sizes:
        return 0
    tokens = count(image_sizes=sizes)["num_image_tokens"]
    return sum(int(n) - 1 for n in tokens)


def _size_of(image: object) -> tuple[int, int] | None:
    """Height and width, from the file's header where it is a path."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    if not isinstance(image, str):
        return None
    try:
        with Image.open(image) as opened:
            return opened.height, opened.width
    except (OSError, ValueError, Image.DecompressionBombError):
        return None  # the collator says what is wrong with it


def _drop_overlong_samples(
    conversations: Sequence[Messages], processor: Any, max_length: int | None
) -> tuple[list[Messages], list[int]]:
    """The conversations whose estimated length is at most `max_length`, and their indices.

    Raises:
        EmptyBatchError: None is.
    """
    if max_length is None:
        return conversations, list(range(len(conversations)))  # type: ignore[return-value]
    kept = []
    collator = collator_for(processor)
    for index, conversation in enumerate(conversations):
        try:
            text = collator.render(read_example(list(conversation))).text
        except SampleError:
            kept.append(index)  # the collator says what is wrong with it
            continue
        length = len(processor.tokenizer.encode(text, add_special_tokens=False))
        length += _estimate_media_tokens(conversation, processor)
        if length <= max_length:
            kept.append(index)
        else:
            _LOG.warning("sample %d is left out: about %d tokens", index, length)
    if not kept:
        raise EmptyBatchError(
            f"all {len(conversations)} samples are longer than max_length={max_length}; raise it, "
            "or filter the dataset"
        )
    return [conversations[index] for index in kept], kept
