"""Keeps the pixels of a processor's output as bytes, where a table gives the processor's values.

A copy of the processor that neither rescales nor normalises resizes, tiles and cuts bytes. Whether
its output and the table give exactly what the processor itself returns is tried on probe media.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Sequence
from functools import partial, reduce
from operator import and_
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from vlmcollate.conversation import MediaKind
from vlmcollate.encode.direct_call import DirectCalls, is_own_code
from vlmcollate.encode.pixel_probe import (
    NO_SHORTCUTS,
    Process,
    Shortcuts,
    Tables,
    probe_pixels,
)
from vlmcollate.encode.stripping import stripped
from vlmcollate.media import MediaRequest, ProcessedMedia, Video
from vlmcollate.media.processing.resizing import RESIZED
from vlmcollate.media.processing.result import as_tensor
from vlmcollate.pixels import PixelTable, as_bytes, table_of
from vlmcollate.tokens.identity_cache import IdentityCache

_OPTIONS = (
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "resample"),
    *("patch_size", "merge_size", "size"),
)
"""Options that a processor may have from its class."""
_NUMBERS = int, float
_MOST_PATHS = 32


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
    paths: list[PixelPath] = []
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
        paths.append(path)
    if not tables:
        return None
    shortcuts = NO_SHORTCUTS
    if not is_resized and not is_own_code(request.processor):
        shortcuts = reduce(and_, (path.shortcuts for path in paths))
    return _processed(process, stripped(request, shortcuts, paths[-1].calls), tables)


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
    strip = partial(stripped, calls=calls)
    tables, is_joint, shortcuts = probe_pixels(process, request, kind, table, strip)
    return PixelPath(tables=tables, is_joint=is_joint, shortcuts=shortcuts, calls=calls)


def _kept(known: dict[Any, PixelPath], key: Any, path: PixelPath) -> PixelPath:
    """Keeps and returns a result, among a limited number if options change again and again."""
    if len(known) >= _MOST_PATHS:
        known.clear()
    known[key] = path
    return path


def _options(processor: Any, kind: MediaKind) -> Hashable:
    """Returns the classes and options of a processor that may decide what it makes of media.

    Any option of its own may, such as the number of tiles, to which it pads some images, or the
    size of Pixtral's patches, which is one of the whole processor.
    """
    part = getattr(processor, f"{kind}_processor", None)
    declared = getattr(processor, "valid_processor_kwargs", None)
    given = [getattr(processor, name, None) for name in (f"{kind}s_kwargs", "common_kwargs")]
    own = [getattr(part, name, None) for name in _OPTIONS]
    settings = getattr(processor, "__dict__", {}).items()
    numbers = [(key, number) for key, number in settings if isinstance(number, _NUMBERS)]
    given += [getattr(declared, "_defaults", None), getattr(part, "__dict__", None), numbers]
    return processor.__class__, part.__class__, _exact((own, given))


def _exact(values: Any) -> Hashable:
    """Returns a key that differs if any of the values does."""
    try:
        return pickle.dumps(values)
    except Exception:  # noqa: BLE001  # of any object, such as a function without a name
        return repr(values)


_KNOWN = IdentityCache[dict[Any, PixelPath]]()


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
    return ProcessedMedia(replacements=found.replacements, tensors=tensors, pixel_tables=kept)


def _own_memory(pixels: Tensor, items: Sequence[Any]) -> Tensor:
    """Returns a tensor that shares no memory with an item, which may be the caller's."""
    arrays = [item.frames if isinstance(item, Video) else item for item in items]
    shares = any(
        np.may_share_memory(pixels.numpy(), np.asarray(array))
        for array in arrays
        if isinstance(array, np.ndarray | Tensor)
    )
    return pixels.clone() if shares else pixels
