"""Runs a law on drawn examples, and raises its failure."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from vlmcollate.errors import (
    SampleError,
    SpelledTokenWarning,
    TemplateOmissionWarning,
    UnreadKeyWarning,
)
from vlmcollate.testing.generators import describe
from vlmcollate.validators import at_least_one

T = TypeVar("T")
Chat = list[dict[str, Any]]

EDITED = "the collator edits its input"
"""The root of a failure whose cause is that the collator changed its example."""


class LawFailure(AssertionError):  # noqa: N818  # pytest shows it as the assertion it is
    """A collator breaks a law.

    Args:
        message: The message.
        root: The exception that the collator raised, without its location; `EDITED` if the
            collator changed its example; empty otherwise.
    """

    def __init__(self, message: str, root: str = "") -> None:
        super().__init__(message)
        self.root = root


class NotApplicable(Exception):  # noqa: N818  # it is no error
    """A law does not apply to a collator; the message is the reason."""


@attrs.frozen(kw_only=True)
class Trial:
    """The settings with which a law is checked.

    Attributes:
        examples: The number of examples that the law draws, at least 1.
        seed: The seed of the draws.
        shrink: Whether to search for a smaller example that breaks the law, which takes as long as
            about a hundred more examples.
        known: The roots of earlier failures. The search ends when a failure has one of them.
    """

    examples: int = attrs.field(default=10, validator=at_least_one)
    seed: int = 0
    shrink: bool = True
    known: frozenset[str] = frozenset()


_SHRINK_LIMIT = 150
"""The number of calls after which the search ends with the smallest example so far."""


@attrs.define
class _Search:
    """The search for the smallest example that breaks a law.

    Attributes:
        body: The function that checks the law on one example.
        trial: The settings of the check.
        failure: The last failure, which has the smallest example, because each one that hypothesis
            tries is smaller than the last that failed.
        value: The example of `failure`.
        calls: The number of calls since the first failure.
        is_over: Whether the search has ended, so that every further example passes.
    """

    body: Callable[[Any], None]
    trial: Trial
    failure: LawFailure | None = None
    value: Any = None
    calls: int = 0
    is_over: bool = False

    def __call__(self, value: Any) -> None:
        """Checks the law on one example."""
        if self.is_over:
            return
        self.calls += self.failure is not None
        if self.calls > _SHRINK_LIMIT:
            self.is_over = True
            return
        before = copy.deepcopy(value)
        try:
            self.body(value)
        except NotApplicable:
            raise
        except LawFailure as error:
            self._keep(error, value, before)
        except Exception as error:  # noqa: BLE001  # whatever a collator raises breaks the law
            failure = _failure_of(error, before)
            failure.__cause__ = error
            self._keep(failure, value, before)

    def _keep(self, error: LawFailure, value: Any, before: Any) -> None:
        if error.root != EDITED and not equal(value, before):
            error = LawFailure(
                f"{EDITED}, which may cause this failure; run check_input_is_unchanged\n{error}",
                root=EDITED,
            )
        self.failure, self.value = error, value
        self.is_over = not self.trial.shrink or (
            bool(error.root) and error.root in self.trial.known
        )
        raise error

    def smallest(self) -> LawFailure | None:
        """The failure to raise if the search ended before hypothesis did."""
        if self.failure is None:
            return None
        if self.failure.root == EDITED:
            return self.failure
        try:
            self.body(self.value)
        except Exception:  # noqa: BLE001  # any failure shows that the collator keeps no state
            return self.failure
        return _state_failure(self.failure)


def forall(
    trial: Trial,
    strategy: st.SearchStrategy[T],
    body: Callable[[T], None],
    *,
    also: Sequence[T] = (),
) -> None:
    """Checks a law on drawn examples, and shrinks one that breaks it.

    Args:
        trial: The settings of the check.
        strategy: The strategy that draws the examples.
        body: The function that checks the law on one example.
        also: Further examples, checked after the drawn ones.

    Raises:
        LawFailure: An example breaks the law, the collator raises, or the same example gives
            different results.
    """
    search = _Search(body, trial)

    @seed(trial.seed)
    @settings(
        max_examples=trial.examples,
        deadline=None,
        database=None,
        derandomize=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if trial.shrink else (Phase.generate,),
    )
    @given(strategy)
    def check(value: T) -> None:
        search(value)

    try:
        check()
    except LawFailure as error:
        error.__notes__ = []  # the message has the example
        raise
    except Flaky as error:
        if search.is_over and (found := search.smallest()) is not None:
            raise found from error
        first = _first_failure(error) or search.failure
        raise first if first and first.root == EDITED else _state_failure(first) from error
    for value in also:
        search(value)


def _state_failure(failure: LawFailure | None) -> LawFailure:
    """Returns the failure of a collator that keeps state."""
    shown = str(failure).replace("\n", "\n    ") if failure else ""
    return LawFailure(
        "the results for the same example differ: the collator keeps state, so that a batch "
        "depends on the batches before it\n"
        + (f"the failure was:\n    {shown}\n" if shown else "")
        + "what to change: keep no counter, cache or buffer that a later call writes to, and draw "
        "nothing at random"
    )


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silences the warnings of omitted text, tags and spelled tokens, which the laws draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemplateOmissionWarning)
        warnings.simplefilter("ignore", SpelledTokenWarning)
        warnings.simplefilter("ignore", UnreadKeyWarning)
        yield


def _failure_of(error: Exception, value: object) -> LawFailure:
    """Returns the failure for an exception that the collator raised."""
    if isinstance(error, SampleError):
        problem = f"the collator refuses a conversation of a kind that it accepts: {error}"
    else:
        problem = f"the collator raised {type(error).__name__}: {error}"
    return LawFailure(
        f"{problem}\n{_example(value)}"
        "what to change: fix the cause of the error; a law draws only the kinds of conversation "
        "that the collator accepted before",
        root=root_of(error),
    )


def root_of(error: Exception) -> str:
    """Returns the type and message of an exception, without its location."""
    return f"{type(error).__name__}: {getattr(error, 'problem', error)}"


def _first_failure(error: BaseException) -> LawFailure | None:
    """Returns the first failure of an example, if hypothesis kept it."""
    found: Sequence[BaseException] = getattr(error, "exceptions", ())
    return next((e for e in found if isinstance(e, LawFailure)), None)


def _example(value: object) -> str:
    """Describes a drawn example: texts and conversations, also nested."""
    if isinstance(value, tuple):
        return "".join(_example(part) for part in value)
    if isinstance(value, str):
        return f"text: {value!r}\n"
    if not isinstance(value, list) or not value:
        return ""
    if not isinstance(value[0], dict):
        return "".join(_example(part) for part in value)
    return f"conversation:\n{indent(describe(value))}\n"


def equal(one: Any, other: Any) -> bool:
    """Whether two examples are equal, including their arrays."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)


def indent(text: str) -> str:
    """Indents a text by four spaces."""
    return "\n".join(f"    {line}" for line in text.splitlines())
