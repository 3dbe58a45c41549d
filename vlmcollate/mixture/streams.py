"""Streams as sources of a mixture: read once and from the start, and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import attrs
from torch.utils.data import IterableDataset

from vlmcollate.errors import ConfigError
from vlmcollate.mixture.reading import read_row
from vlmcollate.mixture.states import count_of

_END = object()


def check_stream(dataset: Any, name: str, *, num_ranks: int) -> None:
    """Refuses a source that is no stream, or that gives all ranks the same rows.

    Raises:
        ConfigError: It is.
    """
    if isinstance(dataset, str | bytes) or not (isinstance(dataset, Iterable) or callable(dataset)):
        raise ConfigError(
            f"source {name!r} is wrong: found {type(dataset).__name__}, expected a dataset, an "
            "iterable of rows, or a function that returns one"
        )
    if num_ranks > 1 and getattr(dataset, "_distributed", dataset) is None:
        raise ConfigError(
            f"source {name!r} gives all {num_ranks} ranks the same rows; pass "
            "split_dataset_by_node(dataset, rank, world_size) of datasets.distributed"
        )


@attrs.define(kw_only=True, eq=False)
class StreamReader:
    """Reads a stream, again from the start whenever it has ended.

    Attributes:
        name: The name of the source.
        dataset: An iterable of rows, or a function that returns one.
        mixture_epoch: The epoch of the mixture.
        epoch: How often the stream has ended.
        before: The number of rows of the epochs before.
        done: The number of rows that were read in this epoch.
    """

    name: str
    dataset: Any
    mixture_epoch: int = 0
    epoch: int = 0
    before: int = 0
    done: int = 0
    _rows: Iterator[Any] | None = attrs.field(default=None, init=False)
    _given: Any = attrs.field(default=None, init=False)

    @property
    def distributes_itself(self) -> bool:
        """Whether the stream gives each worker rows of its own."""
        return isinstance(self.dataset, IterableDataset)

    def read(self, times: int, on_end: Callable[[], None]) -> tuple[int, Any]:
        """Reads a row.

        Args:
            times: How often the source was drawn before, by all workers and ranks. Rows that
                others draw are skipped, unless the stream distributes its rows itself.
            on_end: Called when the stream has ended, before it starts again.

        Returns:
            The number of the row in the epoch, and the row.

        Raises:
            ConfigError: The stream has no rows.
            SourceError: The stream raised an error.
        """
        while True:
            row = self._next()
            if row is _END:
                self._check_rows()
                on_end()
                self.before, self.done, self.epoch = self.before + self.done, 0, self.epoch + 1
                self._rows = None
            elif self.distributes_itself or self.before + self.done > times:
                return self.done - 1, row

    def state_dict(self) -> dict[str, Any]:
        """Returns the place in the stream, and the stream's own state if it has one."""
        state = {"epoch": self.epoch, "before": self.before, "done": self.done}
        own = getattr(self.dataset, "state_dict", None)
        if own is not None and hasattr(self.dataset, "load_state_dict"):
            state["dataset"] = own() if self._rows is not None else self._given
        return state

    def load_state_dict(self, state: Any) -> None:
        """Resumes from a state, at the next row.

        Raises:
            ConfigError: It is no state of a stream.
        """
        self.epoch, self.before, self.done = (
            count_of(state, name) for name in ("epoch", "before", "done")
        )
        self._given = state.get("dataset")

    def _next(self) -> Any:
        if self._rows is None:
            self._rows = read_row(self.name, self.done, self._open)
        row = read_row(self.name, self.done, lambda: next(self._rows or iter(()), _END))
        if row is not _END:
            self.done += 1
        return row

    def _open(self) -> Iterator[Any]:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(self.mixture_epoch + self.epoch)
        given, self._given = self._given, None
        if given is not None:
            self.dataset.load_state_dict(given)
        stream = self.dataset if isinstance(self.dataset, Iterable) else self.dataset()
        if not isinstance(stream, Iterable):
            raise ConfigError(
                f"source {self.name!r} is wrong: found a function that returns "
                f"{type(stream).__name__}, expected one that returns an iterable of rows"
            )
        rows = iter(stream)
        if given is None:
            self._skip(rows)
        return rows

    def _skip(self, rows: Iterator[Any]) -> None:
        """Skips the rows that were read before the state was saved."""
        found = sum(1 for _ in islice(rows, self.done))
        if found < self.done:
            raise ConfigError(
                f"source {self.name!r} ended after {found} rows, but the state was saved after "
                f"row {self.done}; resume with the same rows"
            )

    def _check_rows(self) -> None:
        if not self.done:
            raise ConfigError(
                f"source {self.name!r} has no rows for this worker, or is an iterator that was "
                "read before; use no more workers than it has shards, or pass a function that "
                "returns an iterable"
            )
