"""Copies of processors that neither rescale nor normalise, and leave out what need not be done."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Hashable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmcollate.conversation import MediaKind
from vlmcollate.encode.direct_call import DirectCalls, call_directly, only_converts
from vlmcollate.encode.pixel_probe import Shortcuts
from vlmcollate.media import MediaRequest
from vlmcollate.media.loading.pixel_memory import pixels_of, shared_pixels
from vlmcollate.media.processing.patch_grid import cut_patches, cuts_as_qwen
from vlmcollate.media.processing.planes import pixel_words, with_fourth_channel, write_channels

_WEIGHTED = frozenset({1, 2, 3, "LANCZOS", "BILINEAR", "BICUBIC"})
"""The numbers and the names of interpolations that weight pixels."""


def stripped(request: MediaRequest, shortcuts: Shortcuts, calls: DirectCalls) -> MediaRequest:
    """Returns a request with a copy of its processor that neither rescales nor normalises.

    Args:
        request: The media of one sample.
        shortcuts: What the copy leaves out.
        calls: What the calls of such copies have in common; updated by the first.
    """
    bare = stripped_processor(request.processor, request.kinds, shortcuts, calls)
    return for_processor(request, bare, shortcuts)


def for_processor(request: MediaRequest, bare: Any, shortcuts: Shortcuts) -> MediaRequest:
    """Returns a request as `stripped` does.

    Args:
        request: The media of one sample.
        bare: What `stripped_processor` returned for such media.
        shortcuts: What the copy leaves out.
    """
    items = request.items
    if shortcuts.as_tensors:
        items = [_as_tensor(item, shares=shortcuts.shared_memory) for item in items]
    return MediaRequest(
        processor=bare, kinds=request.kinds, items=items, texts=request.texts, joins=request.joins
    )


def stripped_processor(
    processor: Any, kinds: Collection[MediaKind], shortcuts: Shortcuts, calls: DirectCalls
) -> Any:
    """Returns a copy of a processor that neither rescales nor normalises.

    Args:
        processor: The processor.
        kinds: The kinds of media that the copy gets.
        shortcuts: What the copy leaves out.
        calls: What the calls of such copies have in common; updated by the first.
    """
    bare = copy.copy(processor)
    if shortcuts.without_tokens:
        bare.tokenizer = _NoTokens(bare.tokenizer)
        bare._check_special_mm_tokens = _unchecked
    has_videos = "video" in kinds
    for name in ("image_processor", "video_processor") if has_videos else ("image_processor",):
        part = getattr(bare, name, None)
        if part is not None:
            own, kind = copy.copy(part), part.__class__
            own.__dict__.update(_replaced(kind, shortcuts))
            if shortcuts.shared_memory and _resizes_tensors(kind):
                method = _resized if cuts_as_qwen(kind) else _resized_planes
                own.resize = partial(method, part.resize)  # which refers to no copy
            setattr(bare, name, own)
    only_images = not has_videos and "audio" not in kinds
    if shortcuts.direct_calls and only_images and only_converts(bare.image_processor.__class__):
        call_directly(bare, calls)
    return bare


def _replaced(kind: Hashable, shortcuts: Shortcuts) -> dict[str, Any]:
    """Returns the attributes that a copy of an image or video processor gets."""
    found: dict[str, Any] = {"do_rescale": False, "do_normalize": False}
    if cuts_as_qwen(kind):
        found["patchify"] = cut_patches
    if shortcuts.as_tensors and only_converts(kind):
        found["process_image"] = _unchanged
    if shortcuts.as_tensors and _only_permutes(kind):
        found["_prepare_input_videos"] = _permuted
    return found


def _unchanged(image: Tensor, **options: Any) -> Tensor:
    """Returns an image that is (3, H, W) already, without the copy to planes of colour."""
    del options
    return image


def _resizes_tensors(kind: Hashable) -> bool:
    """Returns whether a class of image processors resizes by a method of transformers on torch."""
    from transformers.image_processing_backends import TorchvisionBackend

    method = getattr(kind, "resize", None)
    return (
        isinstance(kind, type)
        and issubclass(kind, TorchvisionBackend)
        and getattr(method, "__module__", "").startswith("transformers.")
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    )


def _resized(resize: Callable[..., Tensor], *given: Any, **options: Any) -> Tensor:
    """Resizes images by a processor's method, with the fourth byte of each pixel if it has one.

    Each channel is resized by itself, and torch's vectors hold four. Only the nearest neighbours of
    four channels are found by code of their own, which rounds otherwise.
    """
    resample = options.get("resample")
    if getattr(resample, "name", resample) in _WEIGHTED:
        given, options = tuple(map(_whole, given)), {k: _whole(v) for k, v in options.items()}
    return resize(*given, **options)[..., :3, :, :]


def _resized_planes(resize: Callable[..., Tensor], *given: Any, **options: Any) -> Tensor:
    """Returns what `_resized` does as planes of colour, which torch pads and stacks faster."""
    resized = _resized(resize, *given, **options)
    if resized.stride(-3) != 1:
        return resized
    planes, words = np.empty(resized.shape, np.uint8), pixel_words(resized)
    if words is None:
        planes[...] = resized.numpy()
    else:
        write_channels(words, planes)
    return torch.from_numpy(planes)


def _whole(value: Any) -> Any:
    """Returns four channels for images (..., 3, H, W) that lie in memory of four bytes a pixel."""
    whole = with_fourth_channel(value) if isinstance(value, Tensor) else None
    return value if whole is None else whole


def _only_permutes(kind: Hashable) -> bool:
    """Returns whether a class of video processors first makes (T, 3, H, W) by the usual method."""
    from transformers.video_processing_utils import BaseVideoProcessor

    known = getattr(BaseVideoProcessor, "_prepare_input_videos", None)
    return known is not None and getattr(kind, "_prepare_input_videos", None) is known


def _permuted(videos: Sequence[Any], **options: Any) -> list[Any]:
    """Returns frames (T, H, W, 3) as (T, 3, H, W), without the copy to planes of colour."""
    del options
    return [
        torch.from_numpy(video).permute(0, 3, 1, 2) if isinstance(video, np.ndarray) else video
        for video in videos
    ]


class _NoTokens:
    """A tokenizer that makes no token of any text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: Sequence[str], **options: Any) -> dict[str, Any]:
        """Returns an empty row for each text."""
        del options
        return {"input_ids": [[] for _ in text], "attention_mask": [[] for _ in text]}


def _unchecked(*arguments: Any, **options: Any) -> None:
    """Compares no number of tokens."""


def _as_tensor(item: Any, *, shares: bool) -> Any:
    """Returns an RGB image as (3, H, W) uint8, whose channels are the innermost in memory."""
    if not isinstance(item, Image.Image):
        return item
    pixels = shared_pixels(item) if shares else None
    if pixels is None:
        pixels = pixels_of(item)
    return torch.from_numpy(pixels).permute(2, 0, 1)[:3]
