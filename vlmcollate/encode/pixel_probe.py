"""Tries on probe media whether bytes and a table give exactly what a processor returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import product
from operator import and_
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vlmcollate.conversation import MediaKind
from vlmcollate.media import MediaRequest, ProcessedMedia, Video
from vlmcollate.media.processing.result import NOT_MEDIA, as_tensor
from vlmcollate.pixels import Channels, PixelTable, as_bytes

Process = Callable[[MediaRequest], ProcessedMedia]


@attrs.frozen
class Shortcuts:
    """What a copy of a processor leaves out; the last are the first that are given up.

    Attributes:
        as_tensors: It gets images and frames as tensors, which saves two copies.
        without_tokens: It does not tokenize its text, of which only the replacements of
            placeholders are used.
        direct_calls: Images go to the methods that process them, without what a call does around
            these; they have to be tensors.
        shared_memory: The tensors of images are Pillow's own memory, which saves a copy of them.
    """

    as_tensors: bool = False
    without_tokens: bool = False
    direct_calls: bool = False
    shared_memory: bool = False

    def __and__(self, other: Shortcuts) -> Shortcuts:
        """Returns what both leave out."""
        return Shortcuts(*map(and_, attrs.astuple(self), attrs.astuple(other)))


NO_SHORTCUTS = Shortcuts()

Strip = Callable[[MediaRequest, Shortcuts], MediaRequest]
"""Returns a request with a copy of its processor that neither rescales nor normalises."""
Tables = Mapping[str, PixelTable]

_SIZES = ((64, 48), (640, 480), (300, 900), (1200, 500))
"""The widths and heights of probe images, of which models tile, pad, shrink and enlarge some."""
_BY_LIKELIHOOD: tuple[Channels, ...] = ("first", "last", "flat")
"""A width that three divides may be three channels, so "flat" is tried last."""
_TRIED = tuple(
    Shortcuts(*given)
    for given in product((True, False), repeat=len(attrs.fields(Shortcuts)))
    if given[0] or not any(given[2:])
)


def probe_pixels(
    process: Process, request: MediaRequest, kind: MediaKind, table: PixelTable, strip: Strip
) -> tuple[Tables, bool, Shortcuts]:
    """Finds the tables and the shortcuts with which bytes give a processor's output.

    Args:
        process: The family's processing.
        request: Any media of a sample; only its items are not used.
        kind: `"image"` or `"video"`.
        table: What the processor's rescaling and normalisation make of each byte.
        strip: The function that strips the processor of a request.

    Returns:
        The table of each media key that holds pixels, empty if they are not bytes; whether it holds
        for several items of one sample; and what the copy may leave out.
    """
    placeholders = dict(zip(request.kinds, request.texts, strict=True))

    def of(items: Sequence[Any]) -> MediaRequest:
        texts = [placeholders[kind]] * len(items)
        return attrs.evolve(request, kinds=[kind] * len(items), items=items, texts=texts)

    items = [_probe(kind, *size, seed) for seed, size in enumerate(_SIZES)]
    one_each, together = [of([item]) for item in items], [of([items[0], items[2]])]
    trial = _Trial(process, cache(process), strip, table)
    for shortcuts in _TRIED:
        tables = trial.tables(one_each, shortcuts)
        if tables:
            return tables, trial.tables(together, shortcuts) == tables, shortcuts
    return {}, False, NO_SHORTCUTS


@attrs.frozen
class _Trial:
    """A comparison of a processor with stripped copies of it.

    Attributes:
        process: The family's processing.
        own: The same, which keeps its results.
        strip: The function that strips the processor of a request.
        table: What the processor's rescaling and normalisation make of each byte.
    """

    process: Process
    own: Process
    strip: Strip
    table: PixelTable

    def tables(self, requests: Sequence[MediaRequest], shortcuts: Shortcuts) -> Tables:
        """Returns what `_agreed` does, and nothing if a processor refuses what it is given."""
        try:
            return self._agreed(requests, shortcuts)
        except (MemoryError, torch.OutOfMemoryError, OSError):  # which may pass
            raise
        except Exception:  # noqa: BLE001  # code of any processor; its own output serves, or raises
            return {}

    def _agreed(self, requests: Sequence[MediaRequest], shortcuts: Shortcuts) -> Tables:
        """Returns the tables with which bytes give the processor's output for all requests."""
        agreed: Tables | None = None
        for request in requests:
            found = self._fitting(request, shortcuts)
            if found is None or (agreed is not None and found != agreed):
                return {}
            agreed = found
        return agreed or {}

    def _fitting(self, request: MediaRequest, shortcuts: Shortcuts) -> Tables | None:
        """Returns the tables with which bytes give the processor's output for one request."""
        own = self.own(request)
        items = [_copied(item) for item in request.items]
        stripped = self.strip(attrs.evolve(request, items=items), shortcuts)
        given = [_memory_of(item).copy() for item in stripped.items]
        bare = self.process(stripped)
        if not all(map(np.array_equal, given, map(_memory_of, stripped.items))):
            return None  # a processor that writes to what it is given
        keys = own.tensors.keys() - NOT_MEDIA
        if own.replacements != bare.replacements or keys != bare.tensors.keys() - NOT_MEDIA:
            return None
        tables = {}
        for key in keys:
            a, b = as_tensor(own.tensors[key]), as_tensor(bare.tensors[key])
            if a.dtype == b.dtype and torch.equal(a, b):
                continue
            fitting = _fitting(a, b, self.table)
            if fitting is None:
                return None
            tables[key] = fitting
        return tables


def _copied(item: Any) -> Any:
    """Returns an image or a video with memory of its own."""
    return attrs.evolve(item, frames=item.frames.copy()) if isinstance(item, Video) else item.copy()


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
    # some processors pad the videos of a sample to the same number of frames
    number = 6 if seed == 2 else 4
    frames = random.integers(0, 256, (number, height // 2, width // 2, 3), np.uint8)
    count = np.arange(number)
    return Video(
        frames=frames,
        times=count / 2.0,
        indices=count,
        total_frames=number,
        duration=number / 2.0,
    )
