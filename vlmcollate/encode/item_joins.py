"""Finds how the outputs of single media items make a processor's output for several.

Nothing is assumed of a processor: its output for several probe items is compared, bit for bit, with
what joins make of its outputs for each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain, cycle, zip_longest
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.conversation import MediaKind
from vlmcollate.encode.dummy_media import bare_placeholders
from vlmcollate.encode.item_probes import Sort, probe_items
from vlmcollate.encode.processor_settings import settings_of
from vlmcollate.errors import CollateError
from vlmcollate.media import Concatenate, Join, ProcessedMedia
from vlmcollate.media.processing.result import NOT_MEDIA, as_tensor
from vlmcollate.prompt.rendering import Rendering

Process = Callable[[Rendering, Sequence[Any]], ProcessedMedia]

_MOST_ITEMS = 8
"""The most items of a sort that are tried at once."""
_MOST_TRIALS = 64
"""The most numbers of items and settings of a processor that are tried."""
_ON_THE_SECOND_AXIS = Concatenate(axis=1)
"""Joins items of a family with one row per sample, such as all tiles of a sample."""


@attrs.frozen(kw_only=True)
class ItemJoins:
    """What makes the output for several items of those for each.

    Attributes:
        joins: The join of each media key.
        byte_keys: The keys whose pixels stay bytes; others become the processor's values first.
        only_alike: Whether that was found for videos of one shape only.
    """

    joins: Mapping[str, Join]
    byte_keys: frozenset[str]
    only_alike: bool = False

    def __call__(
        self, outputs: Sequence[ProcessedMedia], whole: ProcessedMedia | None = None
    ) -> ProcessedMedia:
        """Joins the outputs for single items.

        Args:
            outputs: The outputs, in order.
            whole: The joined output for more items, of which these are the first; tensors that are
                concatenated share its memory.

        Raises:
            CollateError: The tensors do not fit together.
            KeyError: An output has a key that the probe items did not have.
        """
        keys = dict.fromkeys(chain.from_iterable(map(_media_keys, outputs)))
        tables = {key: found for key in keys if (found := _table(key, outputs, self.byte_keys))}
        values = {key: _values(key, outputs, as_bytes=key in tables) for key in keys}
        known = {} if whole is None else whole.tensors
        return ProcessedMedia(
            replacements=tuple(chain.from_iterable(output.replacements for output in outputs)),
            tensors={k: self._joined(k, found, known.get(k)) for k, found in values.items()},
            pixel_tables=tables,
        )

    def _joined(self, key: str, values: Sequence[Tensor], whole: Tensor | None) -> Tensor:
        """Returns the joined tensors of a key, as the first part of another if they are that."""
        join = self.joins[key]
        if whole is not None and whole.dtype == values[0].dtype and type(join) is Concatenate:
            part = whole.narrow(join.axis, 0, sum(value.shape[join.axis] for value in values))
            if part.is_contiguous():
                return part
        return join(values, key=key)


@attrs.frozen(kw_only=True, eq=False)
class ItemTrials:
    """Tries a collator's processor, once for each number of items of each kind.

    Attributes:
        process: The stage that calls the processor.
        processor: The processor.
        placeholders: The text that the chat template writes for each kind of media.
        joins: The family's joins.
        sampling_rate: The model's audio sampling rate in Hz, or `None` if it takes no audio.
        known: What was found; updated.
    """

    process: Process
    processor: Any
    placeholders: Mapping[MediaKind, str]
    joins: Mapping[str, Join]
    sampling_rate: int | None
    known: dict[Hashable, ItemJoins | None]

    def __call__(self, kinds: Sequence[MediaKind], items: Sequence[Any]) -> ItemJoins | None:
        """Returns what joins single items to the output for all, or `None` if nothing does.

        Args:
            kinds: The kind of each item.
            items: The items, of which only the number and the properties of `Sort` count.
        """
        counts = Counter(map(Sort.of, kinds, items))
        numbers = tuple(sorted((sort, _rounded(count)) for sort, count in counts.items()))
        parts = set(kinds)
        if any(sort.has_audio for sort in counts):
            parts.add("audio")
        key = numbers, tuple(settings_of(self.processor, kind) for kind in sorted(parts))
        if key not in self.known:
            if len(self.known) >= _MOST_TRIALS:  # the settings change again and again
                return None
            self.known[key] = self._tried(dict(numbers))
        found = self.known[key]
        shapes = {
            item.frames.shape for kind, item in zip(kinds, items, strict=True) if kind == "video"
        }
        return None if found is not None and found.only_alike and len(shapes) > 1 else found

    def _processed(self, kinds: Sequence[MediaKind], items: Sequence[Any]) -> ProcessedMedia:
        return self.process(bare_placeholders(kinds, self.placeholders), items)

    def _tried(self, numbers: Mapping[Sort, int]) -> ItemJoins | None:
        """Returns what makes the processor's output for all probe lists."""
        found = self._attempt(numbers)
        if found is None and any(sort.kind == "video" for sort in numbers):
            found = self._attempt(numbers, alike=True)
            return None if found is None else attrs.evolve(found, only_alike=True)
        return found

    def _attempt(self, numbers: Mapping[Sort, int], *, alike: bool = False) -> ItemJoins | None:
        try:
            return self._agreed(numbers, alike=alike)
        except (MemoryError, torch.OutOfMemoryError, OSError):  # which may pass
            raise
        except Exception:  # noqa: BLE001  # code of any processor; it takes the items together
            return None

    def _agreed(self, numbers: Mapping[Sort, int], *, alike: bool) -> ItemJoins | None:
        """Returns the first joins that give the output for the items in several orders."""
        rate = self.sampling_rate or 0
        probes = {s: probe_items(s, rate, alike=alike)[:count] for s, count in numbers.items()}
        alone = {id(p): self._processed([s.kind], [p]) for s in probes for p in probes[s]}
        found = []
        for order in _orders(numbers):
            rest = {sort: cycle(items) for sort, items in probes.items()}
            items = [next(rest[sort]) for sort in order]
            together = self._processed([sort.kind for sort in order], items)
            found.append(_Comparison(together, [alone[id(item)] for item in items]))
        fitting = {key: self._fitting(key, found) for key in _media_keys(found[0].together)}
        joins = {key: join for key, join in fitting.items() if join is not None}
        kept = {comparison.byte_keys for comparison in found}
        if len(kept) > 1 or len(joins) < len(fitting) or not all(c.agrees for c in found):
            return None
        return ItemJoins(joins=joins, byte_keys=kept.pop())

    def _fitting(self, key: str, comparisons: Sequence[_Comparison]) -> Join | None:
        """Returns the first join of a key that gives the output for several items."""
        for join in (self.joins[key], _ON_THE_SECOND_AXIS):
            if all(comparison.fits(key, join) for comparison in comparisons):
                return join
        return None


@attrs.frozen
class _Comparison:
    """The output for several items, and the outputs for each of them."""

    together: ProcessedMedia
    outputs: Sequence[ProcessedMedia]

    @property
    def byte_keys(self) -> frozenset[str]:
        """The keys whose pixels are bytes."""
        return frozenset(self.together.pixel_tables)

    @property
    def agrees(self) -> bool:
        """Whether the texts and the keys are those of the single items."""
        texts = chain.from_iterable(output.replacements for output in self.outputs)
        keys = chain.from_iterable(map(_media_keys, self.outputs))
        return self.together.replacements == (*texts,) and {*_media_keys(self.together)} == {*keys}

    def fits(self, key: str, join: Join) -> bool:
        """Returns whether a join of the single outputs gives the tensor and table of all items."""
        table = self.together.pixel_tables.get(key)
        if _table(key, self.outputs, self.byte_keys) != table:
            return False
        try:
            found = join(_values(key, self.outputs, as_bytes=table is not None), key=key)
        except (CollateError, IndexError):  # the shapes need another join
            return False
        expected = as_tensor(self.together.tensors[key])
        return found.dtype == expected.dtype and torch.equal(found, expected)


def _rounded(count: int) -> int:
    """Returns a number of items of which few are tried: 1, 2, 3, 4 and the most."""
    return count if count < 5 else _MOST_ITEMS


def _orders(numbers: Mapping[Sort, int]) -> list[list[Sort]]:
    """Returns an order of the items in which the sorts alternate, and its reverse."""
    columns = zip_longest(*([sort] * number for sort, number in numbers.items()))
    order = [sort for sort in chain.from_iterable(columns) if sort is not None]
    return [order, order[::-1]] if len(numbers) > 1 else [order]


def _media_keys(output: ProcessedMedia) -> Iterable[str]:
    return [key for key in output.tensors if key not in NOT_MEDIA]


def _table(key: str, outputs: Sequence[ProcessedMedia], byte_keys: frozenset[str]) -> Any:
    """Returns the one table of a key whose pixels are bytes in all outputs, if they may stay so."""
    tables = [output.pixel_tables.get(key) for output in outputs if key in output.tensors]
    is_one = all(table is not None and table == tables[0] for table in tables)
    return tables[0] if is_one and key in byte_keys else None


def _values(key: str, outputs: Sequence[ProcessedMedia], *, as_bytes: bool) -> list[Tensor]:
    """Returns the tensors of a key, as bytes or as the processor's own values."""
    values = []
    for output in outputs:
        if key in output.tensors:
            value, table = as_tensor(output.tensors[key]), output.pixel_tables.get(key)
            values.append(value if as_bytes or table is None else table(value))
    return values
