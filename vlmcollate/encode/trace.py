"""Records the stages of one encoding: the result and the time of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Literal, TypeVar, get_args

import attrs

Stage = Literal["read", "render", "load", "process", "tokenize", "label", "postprocess", "shorten"]
STAGES: tuple[Stage, ...] = get_args(Stage)

T = TypeVar("T")


@attrs.define(eq=False)
class Trace:
    """Records the results of stages while it is entered, in this thread only.

    Attributes:
        results: The results of each stage, in order; a stage may run more than once.
        seconds: The time of each stage, without that of the stages inside it.

    Example:
        >>> trace = Trace()
        >>> trace.run("read", str.upper, ("hi",))
        'HI'
        >>> trace.last("read")
        'HI'
    """

    results: dict[Stage, list[Any]] = attrs.field(factory=dict)
    seconds: dict[Stage, float] = attrs.field(factory=dict)
    _token: Token[Trace | None] | None = None

    def __enter__(self) -> Trace:
        self._token = ACTIVE_TRACE.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            ACTIVE_TRACE.reset(self._token)

    def first(self, stage: Stage) -> Any:
        """Returns the first result of a stage."""
        return self.results[stage][0]

    def last(self, stage: Stage) -> Any:
        """Returns the last result of a stage."""
        return self.results[stage][-1]

    def run(self, stage: Stage, call: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """Runs a stage and records it."""
        inside, start = sum(self.seconds.values()), time.perf_counter()
        result = call(*arguments)
        taken = time.perf_counter() - start - (sum(self.seconds.values()) - inside)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + taken
        self.results.setdefault(stage, []).append(result)
        return result


ACTIVE_TRACE: ContextVar[Trace | None] = ContextVar("active_trace", default=None)
"""The explanation of one encoded example, whose stages this thread runs."""


def run_stage(stage: Stage, call: Callable[..., T], *arguments: Any) -> T:
    """Runs a stage, recording it if a trace is active."""
    trace = ACTIVE_TRACE.get()
    return call(*arguments) if trace is None else trace.run(stage, call, arguments)


@contextmanager
def untraced() -> Iterator[None]:
    """Runs the body without recording it."""
    token = ACTIVE_TRACE.set(None)
    try:
        yield
    finally:
        ACTIVE_TRACE.reset(token)
