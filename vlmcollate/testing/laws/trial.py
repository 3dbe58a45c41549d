"""How hard a law tries, and what it raises."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from vlmcollate.errors import SampleError
from vlmcollate.sample_encoder import DroppedTextWarning
from vlmcollate.testing.generators import described

T = TypeVar("T")
Chat = list[dict[str, Any]]


class LawFailure(AssertionError):  # noqa: N818  # pytest shows it as the assertion it is
    """A collator breaks a law; the message says where, what was found and what to change.

    Args:
        message: All of that.
        root: What the collator itself raised, without the place, if it did.
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
    """

    examples: int = 10
    seed: int = 0


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

    def one(value: T) -> None:
        try:
            body(value)
        except (LawFailure, NotApplicable):
            raise
        except Exception as error:  # whatever a collator raises, with the example
            raise _raised(error, value) from error

    @seed(trial.seed)
    @settings(
        max_examples=trial.examples,
        deadline=None,
        database=None,
        derandomize=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(strategy)
    def tried(value: T) -> None:
        one(value)

    try:
        tried()
    except LawFailure as error:
        error.__notes__ = []  # the message has the example
        raise
    except Flaky as error:
        raise LawFailure(
            "another result for the same example: the collator keeps state, so that what a "
            f"batch holds depends on what was collated before\n{_first_failure(error)}"
            "what to change: keep no counter, cache or buffer that a later call writes to, and "
            "draw nothing at random"
        ) from error
    for value in also:
        one(value)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silences what a law tells of itself: that the template leaves out what is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedTextWarning)
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


def _first_failure(error: BaseException) -> str:
    """What the example showed when it failed, if hypothesis kept that."""
    found: Sequence[BaseException] = getattr(error, "exceptions", ())
    shown = [str(e).replace("\n", "\n    ") for e in found if isinstance(e, LawFailure)]
    return f"when it failed, it was this:\n    {shown[0]}\n" if shown else ""


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


def indented(text: str) -> str:
    """The text four spaces to the right."""
    return "\n".join(f"    {line}" for line in text.splitlines())
