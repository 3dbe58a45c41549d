"""Keeps the pixels of a processor's output as bytes, where a table gives the processor's values.

A copy of the processor that neither rescales nor normalises resizes, tiles and cuts bytes. Whether
its output and the table give exactly what the processor itself returns is tried on probe media.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from PIL.Image import core  # type: ignore[attr-defined]  # not in Pillow's types
from torch import Tensor

from vlmcollate.conversation import MediaKind
from vlmcollate.encode.direct_call import DirectCalls, call_directly, is_own_code, only_converts
from vlmcollate.encode.pixel_probe import (
    ALL_SHORTCUTS,
    NO_SHORTCUTS,
    Process,
    Shortcuts,
    Tables,
    probe_pixels,
)
from vlmcollate.media import MediaRequest, ProcessedMedia, Video
from vlmcollate.media.loading.arrow_capsules import ArrowArray, address_in_capsule
from vlmcollate.media.loading.pixel_images import PixelImage, Pixels
from vlmcollate.media.processing.patch_grid import cut_patches, cuts_as_qwen
from vlmcollate.media.processing.resizing import RESIZED
from vlmcollate.media.processing.result import as_tensor
from vlmcollate.pixels import PixelTable, as_bytes, table_of
from vlmcollate.tokens.identity_cache import IdentityCache

_OPTIONS = (
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample"),
    *("patch_size", "merge_size", "size"),
)
"""Options that a processor may have from its class."""
_MOST_PATHS = 32
_WEIGHTED = frozenset({1, 2, 3, "LANCZOS", "BILINEAR", "BICUBIC"})
"""The numbers and the names of interpolations that weight pixels."""
_BAND = 128
"""The number of rows whose channels are separated at a time, so that they stay in the cache."""
_STRIP_BYTES = 1 << 18
"""The size of the strips in which large images are copied, so that they stay in the cache."""
_LARGE = 1 << 22
"""The number of bytes from which on strips are faster than one copy."""


@attrs.frozen(kw_only=True, eq=False)
class PixelPath:
    """What is known of a processor's pixels of one kind.

    Attributes:
        tables: The table of each media key that holds pixels; empty if they are not bytes.
        is_joint: Whether that holds for several items of one sample, too. Processors that pad
            items to one size after normalising pad with a value that no byte has.
        shortcuts: What the processor's copy leaves out, without which its output is the same.
        calls: What the calls of the processor's copy have in common.
    """

    tables: Tables = attrs.field(factory=dict)
    is_joint: bool = False
    shortcuts: Shortcuts = NO_SHORTCUTS
    calls: DirectCalls = attrs.field(factory=DirectCalls)


def process_as_bytes(
    process: Process, request: MediaRequest, known: dict[Any, PixelPath]
) -> ProcessedMedia | None:
    """Processes one sample's media, with the pixels as bytes.

    Args:
        process: The family's processing.
        request: The media of one sample.
        known: What the collator knows of its processor's pixels; updated.

    Returns:
        The output with its tables, or `None` if the processor's own output has to be used.
    """
    tables: dict[str, PixelTable] = {}
    is_resized = any(
        RESIZED in getattr(item, "info", ()) or getattr(item, "is_resized", False)
        for item in request.items
    )
    is_whole = is_resized or is_own_code(request.processor)
    shortcuts = NO_SHORTCUTS if is_whole else ALL_SHORTCUTS
    calls = DirectCalls()
    for kind in dict.fromkeys(request.kinds):
        if kind == "audio":
            continue
        options = _options(request.processor, kind)
        path = known.get((kind, options))
        if path is None:
            path = _kept(known, (kind, options), pixel_path(process, request, kind))
        if not path.tables or not (path.is_joint or list(request.kinds).count(kind) == 1):
            return None
        for key, table in path.tables.items():
            other = tables.setdefault(key, table)
            if other is not table and other != table:
                return None
        shortcuts, calls = shortcuts & path.shortcuts, path.calls
    return _processed(process, _bare(request, shortcuts, calls), tables) if tables else None


def pixel_path(process: Process, request: MediaRequest, kind: MediaKind) -> PixelPath:
    """Returns what is known of a processor's pixels, which is tried once.

    Args:
        process: The family's processing.
        request: Any media of a sample; only its items are not used.
        kind: `"image"` or `"video"`.
    """
    part = getattr(request.processor, f"{kind}_processor", None)
    if part is None:
        return PixelPath()
    function = getattr(process, "__func__", process)  # of a bound method
    name = function if isinstance(function, Hashable) else repr(function)
    key = kind, name, _options(request.processor, kind)
    known = _KNOWN.get_or_make(request.processor, dict)
    found = known.get(key)
    return found or _kept(known, key, _probed(process, request, kind, part))


def _probed(process: Process, request: MediaRequest, kind: MediaKind, part: Any) -> PixelPath:
    table = table_of(part)
    if table is None:
        return PixelPath()
    calls = DirectCalls()
    strip = partial(_bare, calls=calls)
    tables, is_joint, shortcuts = probe_pixels(process, request, kind, table, strip)
    return PixelPath(tables=tables, is_joint=is_joint, shortcuts=shortcuts, calls=calls)


def _kept(known: dict[Any, PixelPath], key: Any, path: PixelPath) -> PixelPath:
    """Keeps and returns a result, among a limited number if options change again and again."""
    if len(known) >= _MOST_PATHS:
        known.clear()
    known[key] = path
    return path


def _options(processor: Any, kind: MediaKind) -> tuple[type, type, str]:
    """Returns the classes and options of a processor that may decide what it makes of media.

    Any option of its own may, such as the number of tiles, to which it pads some images, or the
    size of Pixtral's patches, which is one of the whole processor.
    """
    part = getattr(processor, f"{kind}_processor", None)
    declared = getattr(processor, "valid_processor_kwargs", None)
    given = [getattr(processor, name, None) for name in (f"{kind}s_kwargs", "common_kwargs")]
    own = [getattr(part, name, None) for name in _OPTIONS]
    settings = getattr(processor, "__dict__", {}).items()
    numbers = [(key, number) for key, number in settings if isinstance(number, int | float)]
    given += [getattr(declared, "_defaults", None), getattr(part, "__dict__", None), numbers]
    return processor.__class__, part.__class__, repr((own, given))


_KNOWN = IdentityCache[dict[Any, PixelPath]]()


def _bare(request: MediaRequest, shortcuts: Shortcuts, calls: DirectCalls) -> MediaRequest:
    """Returns a request with a copy of its processor that neither rescales nor normalises."""
    bare = copy.copy(request.processor)
    if Shortcuts.WITHOUT_TOKENS in shortcuts:
        bare.tokenizer = _NoTokens(bare.tokenizer)
        bare._check_special_mm_tokens = _unchecked
    for name in ("image_processor", "video_processor"):
        part = getattr(bare, name, None)
        if part is not None:
            stripped = copy.copy(part)
            stripped.do_rescale = stripped.do_normalize = False
            if cuts_as_qwen(part.__class__):
                stripped.patchify = cut_patches
            if Shortcuts.AS_TENSORS in shortcuts and only_converts(part.__class__):
                stripped.process_image = _unchanged
            if Shortcuts.AS_TENSORS in shortcuts and _only_permutes(part.__class__):
                stripped._prepare_input_videos = _permuted
            if Shortcuts.SHARED_MEMORY in shortcuts and _resizes_tensors(part.__class__):
                method = _resized if cuts_as_qwen(part.__class__) else _resized_planes
                stripped.resize = partial(method, part.resize)  # which refers to no copy
            setattr(bare, name, stripped)
    only_images = set(request.kinds) == {"image"} and only_converts(bare.image_processor.__class__)
    if Shortcuts.DIRECT_CALLS in shortcuts and only_images:
        call_directly(bare, calls)
    items = request.items
    if Shortcuts.AS_TENSORS in shortcuts:
        shares = Shortcuts.SHARED_MEMORY in shortcuts
        items = [_as_tensor(item, shares=shares) for item in items]
    return attrs.evolve(request, processor=bare, items=items)


def _unchanged(image: Tensor, **options: Any) -> Tensor:
    """Returns an image that is (3, H, W) already, without the copy to planes of colour."""
    del options
    return image


@cache
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
    planes = np.empty(resized.shape, np.uint8)
    channels, whole = np.moveaxis(planes, -3, 0), _whole(resized)
    if whole is resized:
        planes[...] = resized.numpy()
        return torch.from_numpy(planes)
    words = whole.movedim(-3, -1).numpy().view("<u4")[..., 0]
    for top in range(0, words.shape[-2], _BAND):
        band = np.s_[..., top : top + _BAND, :]
        word = words[band]
        for n, channel in enumerate(channels):
            word = word >> 8 if n else word
            channel[band] = word  # its lowest byte
    return torch.from_numpy(planes)


def _whole(value: Any) -> Any:
    """Returns four channels for images (..., 3, H, W) that lie in memory of four bytes a pixel."""
    if not isinstance(value, Tensor) or value.shape[-3:-2] != (3,):
        return value
    strides = value.stride()
    if (strides[-3], strides[-1]) != (1, 4):
        return value
    return value.as_strided((*value.shape[:-3], 4, *value.shape[-2:]), strides)


@cache
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


def shared_pixels(image: Image.Image) -> Pixels | None:
    """Returns Pillow's own memory of an RGB image, which keeps four bytes of each pixel.

    Args:
        image: A loaded image of mode RGB.

    Returns:
        (H, W, 4) uint8, which must not be written to; the memory lives as long as the array. `None`
        if the memory is not in one piece, is not Pillow's, or is not exported by this Pillow.
    """
    if type(image).__array_interface__ is not Image.Image.__array_interface__:
        return None  # such as a PixelImage
    if core.get_alignment() != 1:
        return None
    image.load()
    if image.im.readonly:  # memory of others, with which Pillow before 13 crashes
        return None
    try:
        _, capsule = image.__arrow_c_array__()
    except ValueError:
        return None
    column = ArrowArray.from_address(address_in_capsule(capsule, b"arrow_array"))
    width, height = image.size
    if (column.n_children, column.length, column.offset) != (1, width * height, 0):
        return None
    values = column.children[0].contents
    if (values.n_buffers, values.length, values.offset) != (2, 4 * width * height, 0):
        return None
    interface = {
        "data": (values.buffers[1], False),  # writable, as torch demands
        "shape": (height, width, 4),
        "typestr": "|u1",
        "version": 3,
    }
    return np.asarray(SimpleNamespace(__array_interface__=interface, capsule=capsule))


def pixels_of(image: Image.Image) -> Pixels:
    """Returns the pixels of an RGB image with at most one copy.

    Args:
        image: A loaded image of mode RGB.

    Returns:
        (H, W, 3) uint8, contiguous. It is the array of a `PixelImage`, so it must not be written
        to, and otherwise a copy.
    """
    pixels = image.pixels if isinstance(image, PixelImage) else None
    if pixels is not None:
        return pixels
    width, height = image.size
    if width * height * 3 < _LARGE:
        return np.asarray(image).copy()  # whose memory is writable, as torch demands
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(_STRIP_BYTES // (width * 3), 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


def _processed(process: Process, request: MediaRequest, tables: Tables) -> ProcessedMedia | None:
    try:
        found = process(request)
    except ValueError:  # the processor refuses the media; its own call says why
        return None
    tensors: dict[str, Any] = dict(found.tensors)
    for key, table in tables.items():
        found_pixels = tensors.get(key)
        if found_pixels is None:
            continue
        if getattr(found_pixels, "dtype", None) != torch.uint8:
            found_pixels = as_bytes(as_tensor(found_pixels), table)
        if found_pixels is None:
            return None
        tensors[key] = _own_memory(found_pixels, request.items)
    kept = {key: table for key, table in tables.items() if key in tensors}
    return attrs.evolve(found, tensors=tensors, pixel_tables=kept)


def _own_memory(pixels: Tensor, items: Sequence[Any]) -> Tensor:
    """Returns a tensor that shares no memory with an item, which may be the caller's."""
    arrays = [item.frames if isinstance(item, Video) else item for item in items]
    shares = any(
        np.may_share_memory(pixels.numpy(), np.asarray(array))
        for array in arrays
        if isinstance(array, np.ndarray | Tensor)
    )
    return pixels.clone() if shares else pixels
