"""Keeps the pixels of a processor's output as bytes, where a table gives the processor's values.

A copy of the processor that neither rescales nor normalises resizes, tiles and cuts bytes. Whether
its output and the table give exactly what the processor itself returns is tried on probe media.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial, reduce
from operator import and_, is_
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
from vlmcollate.encode.stripping import for_processor, stripped, stripped_processor
from vlmcollate.media import MediaRequest, ProcessedMedia, Video
from vlmcollate.media.processing.refusals import may_be_refusal
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


@attrs.frozen(kw_only=True, eq=False)
class PixelPlan:
    """How a collator processes samples with media of the same kinds.

    Attributes:
        tables: The table of each media key that holds pixels; empty if they are not bytes.
        alone: The kinds of which that holds for a single item only.
        shortcuts: What the processor's copy leaves out.
        calls: What the calls of the processor's copy have in common.
        attributes: Those of the processor, of which a setting may be replaced by an equal one.
        processor: The copy, or `None` if each sample needs one of its own, since methods of
            somebody else may change it.
    """

    tables: Tables = attrs.field(factory=dict)
    alone: frozenset[MediaKind] = frozenset()
    shortcuts: Shortcuts = NO_SHORTCUTS
    calls: DirectCalls = attrs.field(factory=DirectCalls)
    attributes: tuple[Any, ...] = ()
    processor: Any = None

    def fits(self, processor: Any) -> bool:
        """Returns whether the processor, whose settings are equal, has the same parts."""
        attributes = _attributes(processor)
        return len(attributes) == len(self.attributes) and all(
            map(is_, attributes, self.attributes)
        )


def process_as_bytes(
    process: Process, request: MediaRequest, known: dict[Hashable, PixelPlan]
) -> ProcessedMedia | None:
    """Processes one sample's media, with the pixels as bytes.

    Args:
        process: The family's processing.
        request: The media of one sample.
        known: What the collator knows of its processor's pixels; updated.

    Returns:
        The output with its tables, or `None` if the processor's own output has to be used.
    """
    processor, kinds = request.processor, tuple(dict.fromkeys(request.kinds))
    is_resized = any(
        RESIZED in getattr(item, "info", ()) or getattr(item, "is_resized", False)
        for item in request.items
    )
    settings = tuple(settings_of(processor, kind) for kind in kinds if kind != "audio")
    key = kinds, is_resized, settings
    plan = known.get(key)
    if plan is None or not plan.fits(processor):
        plan = _kept(known, key, _plan(process, request, kinds, is_resized=is_resized))
    if not plan.tables or any(list(request.kinds).count(kind) > 1 for kind in plan.alone):
        return None
    bare = plan.processor
    if bare is None:
        bare = stripped_processor(processor, kinds, plan.shortcuts, plan.calls)
    return _processed(process, for_processor(request, bare, plan.shortcuts), plan.tables)


def _attributes(processor: Any) -> tuple[Any, ...]:
    return tuple(getattr(processor, "__dict__", {}).values())


def _plan(
    process: Process, request: MediaRequest, kinds: Sequence[MediaKind], *, is_resized: bool
) -> PixelPlan:
    processor, tables = request.processor, dict[str, PixelTable]()
    paths: dict[MediaKind, PixelPath] = {}
    for kind in kinds:
        if kind == "audio":
            continue
        path = paths[kind] = pixel_path(process, request, kind)
        agree = all(tables.setdefault(key, table) == table for key, table in path.tables.items())
        if not path.tables or not agree:
            return PixelPlan(attributes=_attributes(processor))
    shortcuts, calls, bare = NO_SHORTCUTS, DirectCalls(), None
    if paths and not is_own_code(processor):
        calls = [*paths.values()][-1].calls
        if not is_resized:
            shortcuts = reduce(and_, (path.shortcuts for path in paths.values()))
        bare = stripped_processor(processor, kinds, shortcuts, calls)
    return PixelPlan(
        tables=tables,
        alone=frozenset(kind for kind, path in paths.items() if not path.is_joint),
        shortcuts=shortcuts,
        calls=calls,
        attributes=_attributes(processor),
        processor=bare,
    )


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


def _kept(known: dict[Hashable, PixelPlan], key: Hashable, plan: PixelPlan) -> PixelPlan:
    """Keeps and returns a result, among a limited number if settings change again and again."""
    if len(known) >= _MOST_PATHS:
        known.clear()
    known[key] = plan
    return plan


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
    except (ValueError, RuntimeError) as error:
        if not may_be_refusal(error):
            raise
        return None  # the processor refuses the media; its own call says why
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
