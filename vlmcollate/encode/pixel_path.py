"""Keeps the pixels of a processor's output as bytes, where a table gives the processor's values.

A copy of the processor that neither rescales nor normalises resizes, tiles and cuts bytes. Whether
its output and the table give exactly what the processor itself returns is tried on probe media.
"""

from __future__ import annotations

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
from vlmcollate.encode.processor_settings import settings_of
from vlmcollate.encode.stripping import stripped
from vlmcollate.media import MediaRequest, ProcessedMedia, Video
from vlmcollate.media.processing.resizing import RESIZED
from vlmcollate.media.processing.result import as_tensor
from vlmcollate.pixels import PixelTable, as_bytes, table_of
from vlmcollate.tokens.identity_cache import IdentityCache

_MOST_PATHS = 32
"""The most settings of a processor that are tried."""


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
        settings = settings_of(request.processor, kind)
        path = known.get(settings)
        if path is None:
            path = _kept(known, settings, pixel_path(process, request, kind))
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
    key = name, settings_of(request.processor, kind)
    tried = _TRIED.get_or_make(request.processor, _Tried)
    found = tried.paths.get(key)
    if found is None and len(tried.paths) < _MOST_PATHS and tried.changes < 2:
        found = tried.paths[key] = _probed(process, request, kind, part)
        tried.changes += key[1] != settings_of(request.processor, kind)
    return found or PixelPath()  # trying again and again would take longer than floats


def _probed(process: Process, request: MediaRequest, kind: MediaKind, part: Any) -> PixelPath:
    table = table_of(part)
    if table is None:
        return PixelPath()
    calls = DirectCalls()
    strip = partial(stripped, calls=calls)
    tables, is_joint, shortcuts = probe_pixels(process, request, kind, table, strip)
    return PixelPath(tables=tables, is_joint=is_joint, shortcuts=shortcuts, calls=calls)


def _kept(known: dict[Any, PixelPath], key: Any, path: PixelPath) -> PixelPath:
    """Keeps and returns a result, among a limited number if settings change again and again."""
    if len(known) >= _MOST_PATHS:
        known.clear()
    known[key] = path
    return path


@attrs.define
class _Tried:
    """What was tried on a processor.

    Attributes:
        paths: What was found, by the function that processes media and the settings.
        changes: How often a call of the processor changed its settings, as the first call may.
    """

    paths: dict[Any, PixelPath] = attrs.field(factory=dict)
    changes: int = 0


_TRIED = IdentityCache[_Tried]()


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
