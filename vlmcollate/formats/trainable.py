"""Recognises media, messages and masks in values that nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from vlmcollate.formats.fields import is_filler
from vlmcollate.formats.weights import SPELLINGS
from vlmcollate.plain_values import unwrap

_MASKS = re.compile(r"\w*_?(mask|masks|weights?)|labels|train_detail|" + "|".join(SPELLINGS))
_WORDS = frozenset(
    {
        *("loss", "losses", "train", "trains", "trained", "training", "trainable"),
        *("mask", "masks", "masked", "supervise", "supervised", "unsupervised", "backprop"),
    }
)
_OTHER_ENDS = frozenset(
    {
        *("id", "ids", "idx", "index", "step", "steps", "size", "count", "num", "length", "tokens"),
        *("date", "time", "source", "set", "split", "epoch", "epochs", "hours"),
    }
)
"""The last words of names that count or identify, such as `train_id`."""
_MEDIA_WORDS = (
    *("image", "img", "picture", "photo", "screenshot", "video", "audio", "sound", "frame"),
    "speech",
)
_MEDIA = re.compile(
    rf"({'|'.join(_MEDIA_WORDS)})s?"
    r"(_?\d+|_(path|url|uri|file|byte|base64|b64|data|list|array)s?)?",
    re.IGNORECASE,
)
_MESSAGE_KEYS = ({"role", "content"}, {"from", "value"})
_SMALLEST = 64
"""The length of bytes up to which they are a hash or an id."""
_MAX_VALUES = 2000
_MAX_LEVELS = 8


def is_media_key(key: str) -> bool:
    """Returns whether the name of a field is that of media."""
    return _MEDIA.fullmatch(key) is not None


def is_mask_key(key: str) -> bool:
    """Returns whether the name of a field is that of a mask."""
    return _MASKS.fullmatch(key) is not None


def is_mask(key: str, value: Any) -> bool:
    """Returns whether a field may be a mask, by its words and its numbers."""
    spaced = re.sub("(?<=[a-z])(?=[A-Z])", "_", key).lower()
    words = re.findall("[a-z]+", spaced)
    if _WORDS.isdisjoint(words) or words[-1] in _OTHER_ENDS:
        return False
    value = unwrap(value)
    items = value if isinstance(value, list | tuple) else [value]
    return bool(items) and all(isinstance(unwrap(x), bool | int | float) for x in items[:8])


def is_media(value: Any) -> bool:
    """Returns whether a value is decoded or encoded media."""
    if isinstance(value, Image.Image):
        return True
    if isinstance(value, bytes | bytearray):
        return len(value) > _SMALLEST
    if isinstance(value, np.ndarray | torch.Tensor):
        is_flat = value.ndim == 2 and str(value.dtype).endswith("uint8")
        return (is_flat or value.ndim > 2) and str(value.dtype) != "object"
    value = unwrap(value)
    if not isinstance(value, Mapping) or is_filler(value):
        return False
    # as Hugging Face datasets store media
    return isinstance(value.get("bytes"), bytes) or value.keys() == {"bytes", "path"}


def is_conversation(value: Any) -> bool:
    """Returns whether a value is a message or a list of messages."""
    value = unwrap(value)
    first = unwrap(value[0]) if isinstance(value, list | tuple) and value else value
    return isinstance(first, Mapping) and any(keys <= first.keys() for keys in _MESSAGE_KEYS)


def find_trainable(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Finds media, messages and flags of masks inside a value, such as metadata.

    Args:
        value: Any value.
        path: Its path in the example.

    Yields:
        The path and the value of each.
    """
    left = [(value, path, "", 0)]
    for _ in range(_MAX_VALUES):
        if not left:
            return
        item, at, key, level = left.pop()
        if is_media(item) or is_conversation(item) or (is_mask(key, item) and _are_flags(item)):
            yield at, item
            continue
        is_array = isinstance(item, np.ndarray | torch.Tensor) and str(item.dtype) != "object"
        if level == _MAX_LEVELS or is_array:
            continue
        item = unwrap(item)
        inside: list[tuple[Any, str, str, int]] = []
        if isinstance(item, Mapping):
            inside = [(v, f"{at}.{k}", str(k), level + 1) for k, v in item.items()]
        elif isinstance(item, list | tuple):
            inside = [(v, f"{at}[{i}]", "", level + 1) for i, v in enumerate(item[:_MAX_VALUES])]
        left += reversed(inside)


def _are_flags(value: Any) -> bool:
    """Returns whether a value is 0, 1, a bool or a list of these, unlike a measured loss."""
    value = unwrap(value)
    items = value if isinstance(value, list | tuple) else [value]
    return all(unwrap(item) in (0, 1) for item in items)
