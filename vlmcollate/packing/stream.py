"""Packs a stream of samples, with a bounded buffer."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

from vlmcollate.errors import ConfigError, SampleTooLongError
from vlmcollate.validators import check_count

T = TypeVar("T")


def stream_packs(
    samples: Iterable[T],
    *,
    max_length: int,
    buffer_size: int = 256,
    on_overlong: Literal["raise", "own_pack", "drop"] = "raise",
    length: Callable[[T], int] = len,  # type: ignore[assignment]  # of what has a length
    dropped: Callable[[T], None] | None = None,
) -> Iterator[list[T]]:
    """Yields packs while it reads samples.

    Every pack begins with the sample that has waited longest and is filled with the longest that
    fit, so that none waits for more than `buffer_size` packs.

    Args:
        samples: Encoded samples, or anything that `length` measures. They wait, so the iterable
            must not write to one that it yielded before.
        max_length: The maximum number of tokens of a pack.
        buffer_size: The maximum number of samples that wait.
        on_overlong: The policy for longer samples: `"raise"` an error, `"own_pack"`, or
            `"drop"`.
        length: A function that returns a sample's number of tokens.
        dropped: A function that is called with every dropped sample; required with `"drop"`.

    Yields:
        The samples of a pack.

    Raises:
        SampleTooLongError: A sample does not fit, and the policy is to raise; its `index` is the
            place in the stream.
        ConfigError: An option is wrong.

    Example:
        >>> list(stream_packs(["aaa", "bb", "c"], max_length=4))
        [['aaa', 'c'], ['bb']]
    """
    check_count("max_length", max_length)
    check_count("buffer_size", buffer_size)
    if on_overlong not in ("raise", "own_pack", "drop"):
        raise ConfigError(f"on_overlong must be 'raise', 'own_pack' or 'drop', not {on_overlong!r}")
    if (on_overlong == "drop") != (dropped is not None):
        raise ConfigError(
            'on_overlong="drop" needs `dropped`, which is called with each dropped sample'
        )
    return _packs(samples, max_length, buffer_size, on_overlong, length, dropped)


def _packs(
    samples: Iterable[T],
    max_length: int,
    buffer_size: int,
    on_overlong: str,
    length: Callable[[T], int],
    dropped: Callable[[T], None] | None,
) -> Iterator[list[T]]:
    waiting: dict[int, T] = {}  # by their place in the stream
    oldest: deque[int] = deque()
    by_length: list[tuple[int, int]] = []

    def taken() -> list[T]:
        while oldest[0] not in waiting:
            oldest.popleft()
        first = oldest.popleft()
        pack = [waiting.pop(first)]
        size = length(pack[0])
        by_length.remove((size, first))
        room = max_length - size
        while (at := bisect_right(by_length, (room, float("inf")))) > 0:
            size, place = by_length.pop(at - 1)
            pack.append(waiting.pop(place))
            room -= size
        return pack

    for place, sample in enumerate(samples):
        size = length(sample)
        if size > max_length:
            if on_overlong == "raise":
                raise SampleTooLongError(
                    f"{size} tokens do not fit a pack of {max_length}; filter it, raise "
                    "max_length, or set on_overlong",
                    index=place,
                )
            if dropped is not None:
                dropped(sample)
            else:
                yield [sample]
            continue
        waiting[place] = sample
        oldest.append(place)
        insort(by_length, (size, place))
        if len(waiting) > buffer_size:
            yield taken()
    while waiting:
        yield taken()
