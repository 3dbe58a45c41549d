"""Encodes the examples of a batch, with the index of each in its errors.

The examples advance together: each runs up to the same pause before one goes on. So the code and
the tables of one stage stay in the CPU's cache, from which decoded pixels would evict them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from traceback import clear_frames
from typing import NoReturn, TypeVar

from vlmcollate.encode.trace import untraced
from vlmcollate.errors import SampleError, StrategyError

T = TypeVar("T")
Steps = Generator[None, None, T]
"""The encoding of one example, which yields where the others of its batch may go first."""


def raise_error(error: SampleError) -> NoReturn:
    """Raises the error of an example, the policy by default."""
    raise error from error.__cause__


def finished(steps: Steps[T]) -> T:
    """Returns the result of the encoding of one example, without pauses.

    Example:
        >>> finished(in_one_step(lambda: 3))
        3
    """
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def in_one_step(encode: Callable[[], T]) -> Steps[T]:
    """Makes an encoding without pauses of a function that returns its result."""
    yield from ()
    return encode()


def encode_each(
    examples: Sequence[object],
    encode: Callable[[object], Sequence[T]],
    on_error: Callable[[SampleError], Sequence[T]] = raise_error,
) -> list[T]:
    """Encodes examples by a function; see `encode_together`.

    Args:
        examples: The dataset's items.
        encode: A function that returns what one example becomes, which may be nothing.
        on_error: As in `encode_together`.

    Raises:
        SampleError: An example is at fault; the error holds its index.
        StrategyError: A strategy has a bug; the error holds the index as well.
    """
    return encode_together(examples, lambda example: in_one_step(lambda: encode(example)), on_error)


def encode_together(
    examples: Sequence[object],
    encode: Callable[[object], Steps[Sequence[T]]],
    on_error: Callable[[SampleError], Sequence[T]] = raise_error,
) -> list[T]:
    """Encodes examples that advance together, with a policy for each that fails.

    The errors are those of encoding one example after another: that of the first is raised.

    Args:
        examples: The dataset's items.
        encode: A function that returns the encoding of one example, which may become nothing.
        on_error: Called with each `SampleError`, which holds its index, in the order of the
            examples, when all are encoded; see `BaseCollator.collate`.

    Raises:
        SampleError: An example is at fault; the error holds its index.
        StrategyError: A strategy has a bug; the error holds the index as well.
    """
    found: list[T] = []
    with untraced():  # a stage of an explained sample may encode others
        results = _run(examples, encode, stops=on_error is raise_error)
    for index in sorted(results):
        try:
            found += _taken(results, index)
        except SampleError as error:
            found += on_error(error.at(index=index))
        except StrategyError as error:
            raise error.at(index=index) from error.__cause__
        except Exception as error:
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(f"while collating sample {index} of the batch")
            raise
    return found


def _run(
    examples: Sequence[object], encode: Callable[[object], Steps[Sequence[T]]], *, stops: bool
) -> dict[int, Sequence[T] | Exception]:
    """Runs the encodings of examples, and returns the result or the error of each.

    Args:
        examples: The dataset's items.
        encode: A function that returns the encoding of one.
        stops: Whether nothing is encoded behind an example that fails.
    """
    running = {index: encode(example) for index, example in enumerate(examples)}
    ended: dict[int, Sequence[T] | Exception] = {}
    while running:
        for index, steps in list(running.items()):
            try:
                next(steps)
            except StopIteration as end:
                ended[index] = end.value
            except Exception as error:  # noqa: BLE001  # raised below, if no earlier one fails
                ended[index] = error
                if stops or not isinstance(error, SampleError):
                    running = {k: other for k, other in running.items() if k <= index}
                    del running[index]
                    break
                _release(error)
            else:
                continue
            del running[index]
    return ended


def _release(error: BaseException | None) -> None:
    """Frees what the frames of an error hold, such as decoded media, while others are encoded."""
    seen: set[int] = set()  # an error may be its own cause
    while error is not None and id(error) not in seen:
        clear_frames(error.__traceback__)
        seen.add(id(error))
        error = error.__cause__


def _taken(results: dict[int, Sequence[T] | Exception], index: int) -> Sequence[T]:
    """Takes out the result of an example, or raises its error.

    The traceback of an error holds the frames that hold the results, so that one left there would
    keep the whole batch in memory until the garbage collector runs.
    """
    result = results.pop(index)
    try:
        if isinstance(result, Exception):
            raise result
        return result
    finally:
        del result
