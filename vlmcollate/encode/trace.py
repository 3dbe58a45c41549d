"""Looking on while a collator encodes: what each stage took, gave, and how long it was at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Literal, TypeVar

import attrs

Stage = Literal["read", "load", "render", "process", "tokenize", "label", "fit"]
STAGES: tuple[Stage, ...] = ("read", "load", "render", "process", "tokenize", "label", "fit")

T = TypeVar("T")


@attrs.frozen
class Call:
    """One run of a stage."""

    stage: Stage
    arguments: tuple[Any, ...]
    result: Any


@attrs.define(eq=False)
class Trace:
    """Keeps what the stages do while it is entered, in this thread alone.

    Attributes:
        calls: The runs of the stages, in the order in which they ended.
        seconds: The time of each stage, without that of the stages inside it.

    Example:
        >>> with Trace() as watch:
        ...     run_stage("read", str.upper, "hi")
        'HI'
        >>> watch.calls[0].result
        'HI'
    """

    calls: list[Call] = attrs.field(factory=list)
    seconds: dict[Stage, float] = attrs.field(factory=dict)
    _token: Token[Trace | None] | None = None

    def __enter__(self) -> Trace:
        self._token = _WATCH.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _WATCH.reset(self._token)

    def of(self, stage: Stage) -> list[Call]:
        """The runs of one stage."""
        return [call for call in self.calls if call.stage == stage]

    def run(self, stage: Stage, call: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """Runs a stage and keeps what it did."""
        inside, start = sum(self.seconds.values()), time.perf_counter()
        result = call(*arguments)
        taken = time.perf_counter() - start - (sum(self.seconds.values()) - inside)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + taken
        self.calls.append(Call(stage, arguments, result))
        return result


_WATCH: ContextVar[Trace | None] = ContextVar("watch", default=None)


def run_stage(stage: Stage, call: Callable[..., T], *arguments: Any) -> T:
    """Runs a stage, under the eyes of whoever watches."""
    watch = _WATCH.get()
    return call(*arguments) if watch is None else watch.run(stage, call, arguments)


@contextmanager
def untraced() -> Iterator[None]:
    """Runs what is inside out of sight of whoever watches."""
    token = _WATCH.set(None)
    try:
        yield
    finally:
        _WATCH.reset(token)
