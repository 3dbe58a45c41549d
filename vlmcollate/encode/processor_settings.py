"""Keys of a processor's settings, which differ as soon as a setting does."""

from __future__ import annotations

import pickle
from collections.abc import Hashable
from contextlib import suppress
from io import BytesIO
from types import FunctionType
from typing import Any

import attrs
import numpy as np
from torch import Tensor, nn

from vlmcollate.conversation import MediaKind
from vlmcollate.media.processing.overrides import methods_of

_OPTIONS = (
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample"),
    *("patch_size", "merge_size", "size"),
)
"""Options that a processor may have from its class."""
_LARGE = 1 << 16
"""The number of bytes from which on an array is compared by identity."""


def settings_of(processor: Any, kind: MediaKind) -> Hashable:
    """Returns a key of the classes, methods and settings that may decide what becomes of media.

    Any setting may, such as the number of tiles, to which some processors pad images, or the size
    of Pixtral's patches, which is one of the whole processor.

    Args:
        processor: A `transformers` processor.
        kind: The kind of the media.

    Returns:
        A key that keeps the settings alive that it compares by identity: functions, and what cannot
        be pickled or is large.
    """
    names = ("feature_extractor", "audio_processor") if kind == "audio" else (f"{kind}_processor",)
    parts = [getattr(processor, name, None) for name in names]
    part = next((part for part in parts if part is not None), None)
    of_processor, of_part = (getattr(owner, "__dict__", {}) for owner in (processor, part))
    declared = getattr(processor, "valid_processor_kwargs", None)
    of_tokenizer = getattr(getattr(processor, "tokenizer", None), "init_kwargs", {})
    settings = (
        kind,
        [getattr(part, name, None) for name in _OPTIONS],
        of_part,
        [(name, value) for name, value in of_processor.items() if not is_part(value)],
        [getattr(processor, name, None) for name in (f"{kind}s_kwargs", "common_kwargs")],
        getattr(declared, "_defaults", None),
        # those of images count for images, too
        [(name, of_tokenizer[name]) for name in of_part if name in of_tokenizer],
    )
    methods = methods_of(processor.__class__), methods_of(part.__class__)
    return processor.__class__, part.__class__, methods, _key_of(settings)


def is_part(value: object) -> bool:
    """Returns whether a value is a part of a processor, such as its tokenizer."""
    return hasattr(value, "push_to_hub")


def _key_of(value: object) -> Hashable:
    data, held = BytesIO(), list[Any]()
    _Pickler(data, held).dump(value)
    return data.getvalue(), tuple(map(_Same, held))


@attrs.frozen(eq=False)
class _Same:
    """A value that only equals itself."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


class _Pickler(pickle.Pickler):
    """Pickles what is plain, and collects the rest.

    Args:
        data: Where the pickle is written to.
        held: The values that only their place stands for in the pickle; updated.
    """

    def __init__(self, data: BytesIO, held: list[Any]) -> None:
        super().__init__(data, pickle.HIGHEST_PROTOCOL)
        self._held = held

    def reducer_override(self, value: Any) -> Any:
        """Returns how a value that is not of a built-in type is pickled."""
        if value is _at:
            return NotImplemented
        is_large = isinstance(value, Tensor | np.ndarray) and value.nbytes > _LARGE
        if not is_large and not isinstance(value, type | FunctionType | nn.Module):
            with suppress(Exception):  # of any object, such as a lock
                return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        self._held.append(value)
        counts = isinstance(value, Tensor) and not value.is_inference()
        return _at, (len(self._held), value._version if counts else 0)


def _at(place: int, version: int) -> None:
    """Stands for a value that is held."""
