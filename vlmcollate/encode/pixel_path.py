"""Keeps the pixels of a processor's output as bytes, where a table gives the processor's values.

A copy of the processor that neither rescales nor normalises resizes, tiles and cuts bytes. Whether
its output and the table give exactly what the processor itself returns is tried on probe media.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vlmcollate.conversation import MediaKind
from vlmcollate.media import MediaRequest, ProcessedMedia, Video
from vlmcollate.media.loading.pixel_images import PixelImage, Pixels
from vlmcollate.media.processing.patch_grid import cut_patches, cuts_as_qwen
from vlmcollate.media.processing.resizing import RESIZED
from vlmcollate.media.processing.result import NOT_MEDIA, as_tensor
from vlmcollate.pixels import Channels, PixelTable, as_bytes, table_of
from vlmcollate.tokens.identity_cache import IdentityCache

Process = Callable[[MediaRequest], ProcessedMedia]

_SIZES = ((64, 48), (640, 480), (300, 900), (1200, 500))
"""The widths and heights of probe images, of which models tile, pad, shrink and enlarge some."""
_OPTIONS = (
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample"),
    *("patch_size", "merge_size", "size"),
)
"""Options that a processor may have from its class."""
_MOST_PATHS = 32
_STRIP_BYTES = 1 << 18
"""The size of the strips in which large images are copied, so that they stay in the cache."""
_LARGE = 1 << 22
"""The number of bytes from which on strips are faster than one copy."""


@attrs.frozen
class Shortcuts:
    """What a copy of a processor leaves out.

    Attributes:
        as_tensors: Whether it gets images and frames as tensors, which saves two copies.
        without_tokens: Whether it does not tokenize its text, of which only the replacements of
            the placeholders are used.
    """

    as_tensors: bool = False
    without_tokens: bool = False

    def __and__(self, other: Shortcuts) -> Shortcuts:
        return Shortcuts(
            self.as_tensors and other.as_tensors, self.without_tokens and other.without_tokens
        )


_BY_LIKELIHOOD: tuple[Channels, ...] = ("first", "last", "flat")
"""A width that three divides may be three channels, so "flat" is tried last."""
_ALL_SHORTCUTS = Shortcuts(as_tensors=True, without_tokens=True)
_TRIED = (
    _ALL_SHORTCUTS,
    Shortcuts(as_tensors=True),
    Shortcuts(without_tokens=True),
    Shortcuts(),
)


@attrs.frozen(kw_only=True, eq=False)
class PixelPath:
    """What is known of a processor's pixels of one kind.

    Attributes:
        tables: The table of each media key that holds pixels; empty if they are not bytes.
        is_joint: Whether that holds for several items of one sample, too. Processors that pad
            items to one size after normalising pad with a value that no byte has.
        shortcuts: What the processor's copy leaves out, without which its output is the same.
    """

    tables: Mapping[str, PixelTable] = attrs.field(factory=dict)
    is_joint: bool = False
    shortcuts: Shortcuts = Shortcuts()


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
    shortcuts = Shortcuts() if is_resized else _ALL_SHORTCUTS
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
        shortcuts &= path.shortcuts
    return _processed(process, _bare(request, shortcuts), tables) if tables else None


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
    name = getattr(process, "__qualname__", repr(process))
    key = kind, name, _options(request.processor, kind)
    known = _KNOWN.get_or_make(request.processor, dict)
    found = known.get(key)
    return found or _kept(known, key, _probed(process, request, kind, part))


def _kept(known: dict[Any, PixelPath], key: Any, path: PixelPath) -> PixelPath:
    """Keeps and returns a result, among a limited number if options change again and again."""
    if len(known) >= _MOST_PATHS:
        known.clear()
    known[key] = path
    return path


def _options(processor: Any, kind: MediaKind) -> str:
    """Returns the options of a processor that may decide what it makes of media.

    Any option of its own may, such as the number of tiles, to which it pads some images.
    """
    part = getattr(processor, f"{kind}_processor", None)
    return repr(([getattr(part, name, None) for name in _OPTIONS], getattr(part, "__dict__", None)))


_KNOWN = IdentityCache[dict[Any, PixelPath]]()


def _bare(request: MediaRequest, shortcuts: Shortcuts) -> MediaRequest:
    """Returns a request with a copy of its processor that neither rescales nor normalises."""
    bare = copy.copy(request.processor)
    if shortcuts.without_tokens:
        bare.tokenizer = _NoTokens(bare.tokenizer)
        bare._check_special_mm_tokens = _unchecked
    for name in ("image_processor", "video_processor"):
        part = getattr(bare, name, None)
        if part is not None:
            part = copy.copy(part)
            part.do_rescale = part.do_normalize = False
            if cuts_as_qwen(part.__class__):
                part.patchify = cut_patches
            if shortcuts.as_tensors and _only_converts(part.__class__):
                part.process_image = _unchanged
            if shortcuts.as_tensors and _only_permutes(part.__class__):
                part._prepare_input_videos = _permuted
            setattr(bare, name, part)
    items = [_as_tensor(i) for i in request.items] if shortcuts.as_tensors else request.items
    return attrs.evolve(request, processor=bare, items=items)


@cache
def _only_converts(kind: Hashable) -> bool:
    """Returns whether `process_image` of an image processor only makes (3, H, W) of an image."""
    from transformers.image_processing_backends import TorchvisionBackend

    return getattr(kind, "process_image", None) is TorchvisionBackend.process_image


def _unchanged(image: Tensor, **options: Any) -> Tensor:
    """Returns an image that is (3, H, W) already, without the copy to planes of colour."""
    del options
    return image


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


def _as_tensor(item: Any) -> Any:
    """Returns an RGB image as (3, H, W) uint8, whose channels are the innermost in memory."""
    if not isinstance(item, Image.Image):
        return item
    return torch.from_numpy(pixels_of(item)).permute(2, 0, 1)


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


def _processed(
    process: Process, request: MediaRequest, tables: Mapping[str, PixelTable]
) -> ProcessedMedia | None:
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


def _probed(process: Process, request: MediaRequest, kind: MediaKind, part: Any) -> PixelPath:
    table = table_of(part)
    if table is None:
        return PixelPath()
    placeholders = dict(zip(request.kinds, request.texts, strict=True))

    def of(items: Sequence[Any]) -> MediaRequest:
        texts = [placeholders[kind]] * len(items)
        return attrs.evolve(request, kinds=[kind] * len(items), items=items, texts=texts)

    items = [_probe(kind, *size, seed) for seed, size in enumerate(_SIZES)]
    one_each, together = [of([item]) for item in items], [of([items[0], items[2]])]
    for shortcuts in _TRIED:
        tables = _tried(process, one_each, table, shortcuts)
        if tables:
            joint = _tried(process, together, table, shortcuts)
            return PixelPath(tables=tables, is_joint=joint == tables, shortcuts=shortcuts)
    return PixelPath()


def _tried(
    process: Process,
    requests: Sequence[MediaRequest],
    table: PixelTable,
    shortcuts: Shortcuts,
) -> dict[str, PixelTable]:
    """Returns what `_agreed` does, and nothing if the processor refuses bytes or several items."""
    try:
        return _agreed(process, requests, table, shortcuts)
    except (MemoryError, torch.OutOfMemoryError, OSError):  # which may pass
        raise
    except Exception:  # noqa: BLE001  # code of any processor; its own output serves, or raises
        return {}


def _agreed(
    process: Process,
    requests: Sequence[MediaRequest],
    table: PixelTable,
    shortcuts: Shortcuts,
) -> dict[str, PixelTable]:
    """Returns the tables with which bytes give the processor's output for all requests."""
    agreed: dict[str, PixelTable] | None = None
    for request in requests:
        own, stripped = process(request), _bare(request, shortcuts)
        given = [_memory_of(item).copy() for item in stripped.items]
        bare = process(stripped)
        if not all(map(np.array_equal, given, map(_memory_of, stripped.items))):
            return {}  # a processor that writes to what it is given
        if own.replacements != bare.replacements or own.tensors.keys() != bare.tensors.keys():
            return {}
        found = {}
        for key in own.tensors.keys() - NOT_MEDIA:
            a, b = as_tensor(own.tensors[key]), as_tensor(bare.tensors[key])
            if a.dtype == b.dtype and torch.equal(a, b):
                continue
            fitting = _fitting(a, b, table)
            if fitting is None:
                return {}
            found[key] = fitting
        if agreed is not None and found != agreed:
            return {}
        agreed = found
    return agreed or {}


def _memory_of(item: Any) -> npt.NDArray[np.uint8]:
    """Returns the pixels of an image, of a tensor or of a video, without a copy if it has any."""
    return np.asarray(item.frames if isinstance(item, Video) else item)


def _fitting(own: Tensor, bare: Tensor, table: PixelTable) -> PixelTable | None:
    """Returns the table that makes the processor's own output of the bare one."""
    if own.dtype != table.values.dtype or own.shape[:-1] != bare.shape[:-1]:
        return None
    for channels in _BY_LIKELIHOOD:
        repeats = own.shape[-1] // bare.shape[-1] if channels == "flat" else 1
        candidate = attrs.evolve(table, channels=channels, repeats=max(repeats, 1))
        pixels = as_bytes(bare, candidate)
        if pixels is not None and torch.equal(candidate(pixels), own):
            return candidate
    return None


def _probe(kind: MediaKind, width: int, height: int, seed: int) -> Any:
    """Returns an image or a short video of noise."""
    random = np.random.default_rng(seed)
    if kind == "image":
        return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
    frames = random.integers(0, 256, (4, height // 2, width // 2, 3), np.uint8)
    count = np.arange(4)
    return Video(frames=frames, times=count / 2.0, indices=count, total_frames=4, duration=2.0)
