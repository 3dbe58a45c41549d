"""Everything that vlmcollate raises on purpose.

    CollateError
    ├── ConfigError(ValueError)          options that contradict each other or the processor
    ├── EmptyBatchError(ValueError)      no example is left to make a batch of
    └── LocatedError                     knows `.index` and `.where`
        ├── StrategyError(RuntimeError)  a strategy has a bug; never the sample's fault
        └── SampleError(ValueError)      one sample is at fault
            ├── ConversationError        it is not a conversation
            ├── MediaError               missing, broken, refused or too large media
            ├── MediaMismatchError       placeholders and media differ in number
            ├── LabelError               an assistant turn cannot be placed
            └── SampleTooLongError       longer than `max_length`, and the policy is to raise

Every one of them survives pickling with its attributes, so a DataLoader worker can hand it on: the
loader rebuilds an exception from its message alone, and the message always holds the sample's index
and the place.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

_L = TypeVar("_L", bound="LocatedError")


class CollateError(Exception):
    """The base of every error that vlmcollate raises on purpose."""


class ConfigError(CollateError, ValueError):
    """Options that contradict each other, or that the processor cannot serve."""


class EmptyBatchError(CollateError, ValueError):
    """No example is left to make a batch of."""


class LocatedError(CollateError):
    """An error that knows its sample and the place in it.

    Args:
        problem: What was found, what was expected, and how to mend it.
        where: The path inside the sample, such as `messages[2].content[0]`.
        index: The sample's position in the batch; `None` until the collator knows it.

    Example:
        >>> str(SampleError("no text", where="messages[0]", index=3))
        'sample 3, messages[0]: no text'
    """

    def __init__(self, problem: str, *, where: str | None = None, index: int | None = None) -> None:
        self.problem = problem
        self.where = where
        self.index = index
        place = ", ".join(
            ([f"sample {index}"] if index is not None else []) + ([where] if where else [])
        )
        super().__init__(f"{place}: {problem}" if place else problem)

    def at(self: _L, *, index: int | None = None, where: str | None = None) -> _L:
        """Returns the same error with the index or the place filled in where it was unknown."""
        located = type(self)(
            self.problem,
            where=self.where if self.where is not None else where,
            index=self.index if self.index is not None else index,
        )
        located.__cause__ = self.__cause__
        return located

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.problem, self.where, self.index)


def _rebuild(kind: type[_L], problem: str, where: str | None, index: int | None) -> _L:
    return kind(problem, where=where, index=index)


class SampleError(LocatedError, ValueError):
    """One sample is at fault."""


class StrategyError(LocatedError, RuntimeError):
    """A strategy raised what it does not declare, so it has a bug; the exception is its cause."""


class ConversationError(SampleError):
    """The example is not a conversation, or holds what the policy forbids."""


class MediaError(SampleError):
    """Media that is missing, broken, refused or too large."""


class MediaMismatchError(SampleError):
    """The rendered prompt has more or fewer placeholders than the sample has media."""


class LabelError(SampleError):
    """An assistant turn cannot be placed in the tokens, or nothing would be trained."""


class SampleTooLongError(SampleError):
    """The sample is longer than `max_length`, and the policy does not shorten it."""


_OWN = (str(Path(__file__).parent) + os.sep, contextlib.__file__)


def stack_level() -> int:
    """The `stacklevel` with which its caller's warning points to the first line of other code."""
    frame, level = sys._getframe(1), 1
    while frame.f_code.co_filename.startswith(_OWN) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level


class TemplateOmissionWarning(UserWarning):
    """The chat template omits or changes a part of the conversation."""
