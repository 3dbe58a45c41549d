"""Streams as sources of a mixture: read once and from the start, and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import attrs
from torch.utils.data import IterableDataset

from vlmcollate.errors import ConfigError
from vlmcollate.mixture.reading import read_row
from vlmcollate.mixture.row_digest import digest_after
from vlmcollate.mixture.row_snapshot import snapshot
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
    remedy = _split_among_ranks(dataset)
    if num_ranks > 1 and remedy:
        raise ConfigError(
            f"source {name!r} gives all {num_ranks} ranks the same rows; pass {remedy}"
        )


def _split_among_ranks(dataset: Any) -> str | None:
    """Returns how to split a stream of a known library among ranks, if it is not."""
    if getattr(dataset, "_distributed", dataset) is None:
        return "split_dataset_by_node(dataset, rank, world_size) of datasets.distributed"
    stages = getattr(dataset, "pipeline", ())  # of a WebDataset
    if any(getattr(stage, "__name__", "") == "single_node_only" for stage in stages):
        return "nodesplitter=webdataset.split_by_node"
    return None


@attrs.define(kw_only=True, eq=False)
class StreamReader:
    """Reads a stream, again from the start whenever it has ended.

    Attributes:
        name: The name of the source.
        dataset: An iterable of rows, or a function that returns one.
        mixture_epoch: The epoch of the mixture.
        num_ranks: The number of ranks.
        epoch: How often the stream has ended.
        before: The number of rows of the epochs before.
        done: The number of rows that were read in this epoch.
        digest: The digest of these rows.
    """

    name: str
    dataset: Any
    mixture_epoch: int = 0
    num_ranks: int = 1
    epoch: int = 0
    before: int = 0
    done: int = 0
    digest: str = ""
    _is_split: bool | None = attrs.field(default=None, init=False)
    _rows: Iterator[Any] | None = attrs.field(default=None, init=False)
    _given: Any = attrs.field(default=None, init=False)

    @property
    def distributes_itself(self) -> bool:
        """Whether the stream gives each worker rows of its own, as far as it is known."""
        return isinstance(self.dataset, IterableDataset) or bool(self._is_split)

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
                self._rows, self.digest = None, ""
            elif self.distributes_itself or self.before + self.done > times:
                return self.done - 1, snapshot(row)  # a loader draws more before it collates

    def state_dict(self) -> dict[str, Any]:
        """Returns the place in the stream, and the stream's own state if it has one."""
        state: dict[str, Any] = {"epoch": self.epoch, "before": self.before, "done": self.done}
        state |= {"digest": self.digest, "is_split": self.distributes_itself}
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
        self._given, self._is_split = state.get("dataset"), state.get("is_split")
        self.digest = str(state.get("digest") or "")

    def _next(self) -> Any:
        if self._rows is None:
            self._rows = read_row(self.name, self.done, self._open)
        row = read_row(self.name, self.done, lambda: next(self._rows or iter(()), _END))
        if row is not _END:
            self.done, self.digest = self.done + 1, digest_after(self.digest, row)
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
        check_stream(stream, self.name, num_ranks=self.num_ranks)
        self._is_split = isinstance(stream, IterableDataset)
        rows = iter(stream)
        if given is None:
            self._skip(rows)
        return rows

    def _skip(self, rows: Iterator[Any]) -> None:
        """Skips the rows that were read before the state was saved."""
        found, digest = 0, ""
        for row in islice(rows, self.done):
            found, digest = found + 1, digest_after(digest, row)
        if found < self.done:
            raise ConfigError(
                f"source {self.name!r} ended after {found} rows, but the state was saved after "
                f"row {self.done}; resume with the same rows"
            )
        if self.digest and self.digest != digest:
            raise ConfigError(
                f"source {self.name!r} is in another order than when the state was saved: its "
                f"first {found} rows differ, so rows would be lost and read twice; shuffle it with "
                "a seed that all runs share, or, if only the contents of its rows are drawn at "
                "random, remove 'digest' from its state"
            )
        self.digest = digest

    def _check_rows(self) -> None:
        if not self.done:
            raise ConfigError(
                f"source {self.name!r} has no rows for this worker, or is an iterator that was "
                "read before; use no more workers than it has shards, or pass a function that "
                "returns an iterable"
            )
