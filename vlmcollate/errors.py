"""The exceptions and warnings of vlmcollate.

    CollateError
    ├── ConfigError(ValueError)          options that contradict each other or the processor
    ├── EmptyBatchError(ValueError)      no example is left for a batch
    ├── SourceError(RuntimeError)        a dataset or a stream failed
    ├── UnfinishedPixelsError(AttributeError)  a model takes pixels that are still bytes
    └── LocatedError                     has `.index` and `.where`
        ├── StrategyError(RuntimeError)  a strategy has a bug; the sample may be good
        └── SampleError(ValueError)      one sample is bad
            ├── ConversationError        the example is not a conversation
            ├── MediaError               missing, broken, refused or too large media
            ├── MediaMismatchError       placeholders and media differ in number
            ├── LabelError               an assistant turn cannot be placed
            └── SampleTooLongError       longer than `max_length`, and the policy is to raise

Each of them can be pickled with its attributes, so it passes from a DataLoader worker to the main
process: the loader rebuilds an exception from its message alone, and the message always holds the
sample's index and the place.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

_L = TypeVar("_L", bound="LocatedError")


class CollateError(Exception):
    """The base of every exception of vlmcollate."""


class ConfigError(CollateError, ValueError):
    """Options that contradict each other, or that the processor does not support."""


class EmptyBatchError(CollateError, ValueError):
    """No example is left for a batch."""


class SourceError(CollateError, RuntimeError):
    """A dataset or a stream raised an error, which is the cause."""


class UnfinishedPixelsError(CollateError, AttributeError):
    """Pixels of a batch are used as floats while they are still bytes."""


class LocatedError(CollateError):
    """An error with the index of its sample and the place in it.

    Args:
        problem: The problem, what was found, what was expected, and the remedy.
        where: The path inside the sample, such as `messages[2].content[0]`.
        index: The sample's position in the batch, or `None` until the collator sets it.

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
        """Returns the same error, with the index or the place filled in if it was unknown."""
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
    """One sample is bad."""


class StrategyError(LocatedError, RuntimeError):
    """A strategy raised an undeclared exception, which is the cause: the strategy has a bug."""


class ConversationError(SampleError):
    """The example is not a conversation, or has content that the options forbid."""


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
    """Returns the `stacklevel` that makes a warning point to the caller of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_code.co_filename.startswith(_OWN) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level


class UnreadKeyWarning(UserWarning):
    """An example holds something that nothing reads."""


class SpelledTokenWarning(UserWarning):
    """An answer spells a token of its turn, which is encoded as plain text."""


class TemplateOmissionWarning(UserWarning):
    """The chat template omits or changes a part of the conversation."""


class TooManyFailuresError(CollateError, RuntimeError):
    """More than `max_failures` samples in a row failed; the last failure is its cause."""
