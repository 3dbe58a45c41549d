"""Processes images without what a processor's call does around them each time.

A processor's call merges and checks its options, arranges its arguments, and writes and tokenizes
its text. For the images of one sample none of that changes from call to call.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any

import attrs
from torch import Tensor

from vlmcollate.media.processing.overrides import is_changed
from vlmcollate.media.processing.result import NOT_MEDIA

_Options = dict[str, Any]

_CALLED = frozenset({"_preprocess", "process_image", "replace_image_token"})
"""The methods that a direct call does not skip, and that always get tensors."""


@attrs.define
class DirectCalls:
    """What a processor's calls have in common; its first call fills it.

    Attributes:
        options: The options of the calls.
        preprocessing: Those that `_preprocess` of the image processor gets.
        replacing: Those that `replace_image_token` of the processor gets.
        keys: The keys of the media that is returned.
    """

    options: _Options | None = None
    preprocessing: _Options = attrs.field(factory=dict)
    replacing: _Options = attrs.field(factory=dict)
    keys: frozenset[str] = frozenset()


def is_own_code(processor: Any) -> bool:
    """Returns whether a subclass of a processor, or of one of its parts, replaces methods.

    What they do may depend on whether they get an image or a tensor, and a call may not skip them.

    Args:
        processor: A processor that was not stripped.
    """
    names = "image_processor", "video_processor"
    parts = (processor, *(getattr(processor, name, None) for name in names))
    return any(is_changed(part, but=_CALLED) for part in parts)


def only_converts(kind: Hashable) -> bool:
    """Returns whether `process_image` of an image processor only makes (3, H, W) of an image."""
    from transformers.image_processing_backends import TorchvisionBackend

    return getattr(kind, "process_image", None) is TorchvisionBackend.process_image


def call_directly(processor: Any, calls: DirectCalls) -> None:
    """Lets a processor give images straight to the methods of its call that process them.

    Args:
        processor: A copy of a processor with a copy of its image processor, of whose calls only the
            media and the replacements of placeholders are used; changed.
        calls: What its calls have in common.
    """
    processor.direct_calls = calls
    processor.__class__ = _direct_class(processor.__class__)


@cache
def _direct_class(kind: type) -> type:
    return type(kind.__name__, (_CallsDirectly, kind), {"__module__": kind.__module__})


class _CallsDirectly:
    """Mixed into a class of processors."""

    direct_calls: DirectCalls
    image_processor: Any
    replace_image_token: Callable[..., str]

    def __call__(
        self, *, images: Sequence[Sequence[Any]], text: Sequence[str], **options: Any
    ) -> Mapping[str, Any]:
        """Returns what is made of the images of one sample, and the text for each of them."""
        calls = self.direct_calls
        if calls.options != options:
            if calls.options is None:
                return self._first_call(images, text, options)
            return super().__call__(images=images, text=text, **options)  # type: ignore[misc,no-any-return]  # of the other class
        (items,) = images
        output = self.image_processor._preprocess(list(items), **calls.preprocessing)
        # Python tries to multiply a text by a tensor's number as torch does, which raises first
        counts = {k: v if k in calls.keys else _numbers(v) for k, v in output.items()}
        replacements = [
            {"replacement": self.replace_image_token(counts, image_idx=i, **calls.replacing)}
            for i in range(len(items))
        ]
        media = {key: output[key] for key in calls.keys}
        return {**media, "text_replacement_offsets": [replacements]}

    def _first_call(
        self, images: Sequence[Sequence[Any]], text: Sequence[str], options: _Options
    ) -> Mapping[str, Any]:
        calls, noting = self.direct_calls, copy.copy(self)
        noting.image_processor = part = copy.copy(self.image_processor)
        part._preprocess = _noting(part._preprocess, calls.preprocessing)
        noting.replace_image_token = _noting(self.replace_image_token, calls.replacing)
        output: Mapping[str, Any] = super(_CallsDirectly, noting).__call__(  # type: ignore[misc]  # as above
            images=images, text=text, **options
        )
        calls.keys = frozenset(output) - NOT_MEDIA
        calls.options = options
        return output


def _numbers(value: Any) -> Any:
    """Returns a tensor as an array."""
    return value.numpy() if isinstance(value, Tensor) else value


def _noting(method: Callable[..., Any], options: _Options) -> Callable[..., Any]:
    """Returns a method that notes its options, but not which image it is called for."""

    def noted(*given: Any, **named: Any) -> Any:
        options.update(named)
        options.pop("image_idx", None)
        return method(*given, **named)

    return noted
