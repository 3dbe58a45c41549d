"""How hard a law tries, and what it raises."""

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

from vlmcollate.errors import SampleError, TemplateOmissionWarning
from vlmcollate.testing.generators import described

T = TypeVar("T")
Chat = list[dict[str, Any]]

EDITED = "the collator edits its input"
"""The root of what fails because an example was another one when it was read again."""


class LawFailure(AssertionError):  # noqa: N818  # pytest shows it as the assertion it is
    """A collator breaks a law; the message says where, what was found and what to change.

    Args:
        message: All of that.
        root: What the collator itself raised, without the place, if it did, or `EDITED`.
    """

    def __init__(self, message: str, root: str = "") -> None:
        super().__init__(message)
        self.root = root


class NotApplicable(Exception):  # noqa: N818  # it is no error
    """A law has nothing to say of a collator; the message says why."""


@attrs.frozen(kw_only=True)
class Trial:
    """How hard a law tries.

    Attributes:
        examples: How many examples it draws.
        seed: Decides which.
        shrink: Whether to look for a smaller example where a law is broken, which takes the time
            of some hundred more.
        known: The roots of what failed before: a law that meets one again stops there.
    """

    examples: int = 10
    seed: int = 0
    shrink: bool = True
    known: frozenset[str] = frozenset()


_MOST_SHRINKS = 150
"""Calls after which the smallest example so far is shown."""


@attrs.define
class _Search:
    """What broke a law so far, and whether to look further.

    Attributes:
        body: The law of one example.
        trial: How hard.
        failure: The last failure; hypothesis makes each example smaller than the one before.
        value: Its example.
        calls: How many there were since the first failure.
        is_over: Whether whatever comes now counts as kept.
    """

    body: Callable[[Any], None]
    trial: Trial
    failure: LawFailure | None = None
    value: Any = None
    calls: int = 0
    is_over: bool = False

    def __call__(self, value: Any) -> None:
        """Tries one example."""
        if self.is_over:
            return
        self.calls += self.failure is not None
        if self.calls > _MOST_SHRINKS:
            self.is_over = True
            return
        before = copy.deepcopy(value)
        try:
            self.body(value)
        except NotApplicable:
            raise
        except LawFailure as error:
            self._keep(error, value, before)
        except Exception as error:  # noqa: BLE001  # whatever a collator raises, with the example
            told = _raised(error, before)
            told.__cause__ = error
            self._keep(told, value, before)

    def _keep(self, error: LawFailure, value: Any, before: Any) -> None:
        if error.root != EDITED and not equal(value, before):
            error = LawFailure(
                f"{EDITED}, which may be why this fails; try check_input_is_unchanged\n{error}",
                root=EDITED,
            )
        self.failure, self.value = error, value
        self.is_over = not self.trial.shrink or (
            bool(error.root) and error.root in self.trial.known
        )
        raise error

    def smallest(self) -> LawFailure | None:
        """The failure to show, of a search that ended before hypothesis did."""
        if self.failure is None:
            return None
        if self.failure.root == EDITED:
            return self.failure
        try:
            self.body(self.value)
        except Exception:  # noqa: BLE001  # it fails again, as it has to
            return self.failure
        return _unsteady(self.failure)


def forall(
    trial: Trial,
    strategy: st.SearchStrategy[T],
    body: Callable[[T], None],
    *,
    also: Sequence[T] = (),
) -> None:
    """Tries a law on drawn examples, and shows the smallest that breaks it.

    Args:
        trial: How hard.
        strategy: Draws the examples.
        body: The law of one example.
        also: Examples that are tried behind the drawn ones.

    Raises:
        LawFailure: The law is broken, or the collator raises, or gives now this and now that.
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
    def tried(value: T) -> None:
        search(value)

    try:
        tried()
    except LawFailure as error:
        error.__notes__ = []  # the message has the example
        raise
    except Flaky as error:
        if search.is_over and (found := search.smallest()) is not None:
            raise found from error
        first = _first_failure(error) or search.failure
        raise first if first and first.root == EDITED else _unsteady(first) from error
    for value in also:
        search(value)


def _unsteady(failure: LawFailure | None) -> LawFailure:
    shown = str(failure).replace("\n", "\n    ") if failure else ""
    return LawFailure(
        "another result for the same example: the collator keeps state, so that what a batch "
        "holds depends on what was collated before\n"
        + (f"when it failed, it was this:\n    {shown}\n" if shown else "")
        + "what to change: keep no counter, cache or buffer that a later call writes to, and draw "
        "nothing at random"
    )


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silences what a law tells of itself: that the template leaves out what is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemplateOmissionWarning)
        yield


def _raised(error: Exception, value: object) -> LawFailure:
    if isinstance(error, SampleError):
        problem = f"the collator refuses a conversation of a kind that it takes: {error}"
    else:
        problem = f"the collator raises {type(error).__name__}: {error}"
    return LawFailure(
        f"{problem}\n{_example(value)}"
        "what to change: see the error; a law draws only what plain probes were taken for",
        root=root_of(error),
    )


def root_of(error: Exception) -> str:
    """What went wrong, without the place."""
    return f"{type(error).__name__}: {getattr(error, 'problem', error)}"


def _first_failure(error: BaseException) -> LawFailure | None:
    """What the example showed when it failed, if hypothesis kept that."""
    found: Sequence[BaseException] = getattr(error, "exceptions", ())
    return next((e for e in found if isinstance(e, LawFailure)), None)


def _example(value: object) -> str:
    """An example that a law drew: a text or several, a conversation or several."""
    if isinstance(value, tuple):
        return "".join(_example(part) for part in value)
    if isinstance(value, str):
        return f"text: {value!r}\n"
    if not isinstance(value, list) or not value:
        return ""
    if not isinstance(value[0], dict):
        return "".join(_example(part) for part in value)
    return f"conversation:\n{indented(described(value))}\n"


def equal(one: Any, other: Any) -> bool:
    """Whether two examples are the same, arrays included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)


def indented(text: str) -> str:
    """The text four spaces to the right."""
    return "\n".join(f"    {line}" for line in text.splitlines())
