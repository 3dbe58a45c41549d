"""Plans which samples share a pack: best fit, the longest first.

Shapes: N samples, P packs.
"""

from __future__ import annotations

import operator
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.errors import ConfigError, SampleTooLongError
from vlmcollate.validators import check_count, whole_numbers

Ints = npt.NDArray[np.int64]


@attrs.frozen(kw_only=True, eq=False)
class PackPlan(Sequence[Ints]):
    """The samples of each pack, as a sequence of P packs, each an array of sample indices.

    Attributes:
        samples: (N,) int64, the indices of the samples, pack after pack.
        edges: (P + 1,) int64, the start of each pack in `samples`, and the end of the last.
        overlong: The indices of the samples that fit no pack; with the policy `"own_pack"` they
            are also in a pack.
        fill: The share of the packs' room that tokens occupy, without overlong samples.
    """

    samples: Ints
    edges: Ints
    overlong: Ints
    fill: float

    def __len__(self) -> int:
        return len(self.edges) - 1

    @overload
    def __getitem__(self, index: int) -> Ints: ...

    @overload
    def __getitem__(self, index: slice) -> list[Ints]: ...

    def __getitem__(self, index: int | slice) -> Ints | list[Ints]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"pack {index} of {len(self)}")
        index %= len(self)
        return self.samples[self.edges[index] : self.edges[index + 1]]

    def __iter__(self) -> Iterator[Ints]:
        return iter(np.split(self.samples, self.edges[1:-1]) if len(self) else [])

    def __repr__(self) -> str:
        return (
            f"PackPlan({len(self.samples)} samples in {len(self)} packs, fill {self.fill:.1%}, "
            f"{len(self.overlong)} overlong)"
        )


def plan_packs(
    lengths: Sequence[int] | npt.NDArray[np.integer[Any]],
    *,
    max_length: int,
    on_overlong: Literal["raise", "own_pack", "drop"] = "raise",
    media_tokens: Sequence[int] | Ints | None = None,
    num_ranks: int = 1,
) -> PackPlan:
    """Plans packs by best-fit decreasing, in O(N log N).

    Args:
        lengths: (N,) the number of tokens of each sample.
        max_length: The maximum number of tokens of a pack.
        on_overlong: The policy for longer samples, which the plan lists in `overlong`: `"raise"` an
            error, `"own_pack"`, or `"drop"`.
        media_tokens: (N,) the number of media tokens of each sample. If given, the packs are
            ordered so that the `num_ranks` consecutive packs of a step have similar numbers.
        num_ranks: The number of ranks that take packs in turn, as with `DistributedSampler`;
            requires `media_tokens`.

    Returns:
        The plan; every sample is in exactly one pack, or in `overlong`.

    Raises:
        SampleTooLongError: A sample does not fit, and the policy is to raise.
        ConfigError: A length is below 1, or an option is wrong.

    Example:
        >>> [pack.tolist() for pack in plan_packs([3, 5, 2, 7], max_length=8)]
        [[3], [0, 1], [2]]
    """
    sizes = whole_numbers("lengths", lengths)
    if len(sizes) and sizes.min() < 1:
        at = int(sizes.argmin())
        raise ConfigError(f"lengths must be at least 1, found {sizes[at]} for sample {at}")
    for name, value in (("max_length", max_length), ("num_ranks", num_ranks)):
        check_count(name, value)
    if on_overlong not in ("raise", "own_pack", "drop"):
        raise ConfigError(f"on_overlong must be 'raise', 'own_pack' or 'drop', not {on_overlong!r}")
    if media_tokens is None and num_ranks > 1:
        raise ConfigError(
            f"num_ranks={num_ranks} has no effect without media_tokens, which it balances; pass "
            "them too"
        )
    weights = sizes if media_tokens is None else whole_numbers("media_tokens", media_tokens)
    if weights.shape != sizes.shape:
        raise ConfigError(
            f"found {len(weights)} media_tokens, expected {len(sizes)}, one per length"
        )
    overlong = np.flatnonzero(sizes > max_length)
    if len(overlong) and on_overlong == "raise":
        raise SampleTooLongError(
            f"{sizes[overlong[0]]} tokens do not fit a pack of {max_length}, nor do "
            f"{len(overlong) - 1} more samples; filter them, raise max_length, or set "
            "on_overlong",
            index=int(overlong[0]),
        )
    fitting = np.flatnonzero(sizes <= max_length)
    order = fitting[np.argsort(-sizes[fitting], kind="stable")]
    pack_of = _best_fit(sizes[order], max_length)
    count = int(pack_of.max()) + 1 if len(pack_of) else 0
    fill = float(sizes[order].sum() / (count * max_length)) if count else 1.0
    if on_overlong == "own_pack":
        order = np.concatenate([order, overlong])
        pack_of = np.concatenate([pack_of, count + np.arange(len(overlong))])
        count += len(overlong)
    if media_tokens is not None and count:
        per_pack = np.bincount(pack_of, weights=weights[order], minlength=count)
        pack_of = _balanced(per_pack, num_ranks)[pack_of]
    by_pack = np.lexsort((order, pack_of))
    edges = np.concatenate([[0], np.cumsum(np.bincount(pack_of, minlength=count))])
    return PackPlan(
        samples=order[by_pack], edges=edges.astype(np.int64), overlong=overlong, fill=fill
    )


def _best_fit(sizes: Ints, room: int) -> Ints:
    """Returns the pack of each of the sizes, which descend.

    Samples of one length are interchangeable, and so are packs with the same room left; whole
    groups of them are matched at once.
    """
    pack_of = np.empty(len(sizes), np.int64)
    open_packs: dict[int, list[Ints]] = {}  # the packs by the room left in them
    rooms: list[int] = []  # its keys in order
    created = placed = 0

    def keep(left: int, packs: Ints) -> None:
        if left and len(packs):
            if left not in open_packs:
                open_packs[left] = []
                insort(rooms, left)
            open_packs[left].append(packs)

    values, counts = np.unique(sizes, return_counts=True)
    for size, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        todo = count
        while todo:
            at = bisect_left(rooms, size)
            if at < len(rooms):
                left = rooms[at]
                packs = open_packs[left].pop()
                if not open_packs[left]:
                    del open_packs[left], rooms[at]
            else:
                left = room
                packs = np.arange(created, created - (-todo // (room // size)))
                created += len(packs)
            each = left // size
            full = min(len(packs), todo // each)
            pack_of[placed : placed + full * each] = np.repeat(packs[:full], each)
            placed, todo = placed + full * each, todo - full * each
            keep(left - each * size, packs[:full])
            if todo and full < len(packs):  # fewer samples are left than this pack could take
                pack_of[placed : placed + todo] = packs[full]
                keep(left - todo * size, packs[full : full + 1])
                placed, todo, full = placed + todo, 0, full + 1
            keep(left, packs[full:])
    return pack_of


def _balanced(weights: npt.NDArray[Any], num_ranks: int) -> Ints:
    """Numbers packs so that neighbours, and ranks, have similar weights."""
    order = np.argsort(-weights, kind="stable")
    for start in range(num_ranks, len(order), 2 * num_ranks):
        order[start : start + num_ranks] = order[start : start + num_ranks][::-1]
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return number
