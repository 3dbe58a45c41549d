"""An iterable mixture of streams and map-style datasets."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

import attrs
from torch.utils.data import IterableDataset, get_worker_info

from vlmcollate.errors import ConfigError
from vlmcollate.mixture.mixture import draw_of
from vlmcollate.mixture.reading import check_map_style, is_map_style, read_row
from vlmcollate.mixture.rows import MixtureRow
from vlmcollate.mixture.settings import MixtureSettings
from vlmcollate.mixture.shared_number import SharedNumber
from vlmcollate.mixture.states import count_of, position_of
from vlmcollate.mixture.streams import StreamReader, check_stream
from vlmcollate.validators import at_least_one, check_count


class _OverError(Exception):
    """The epoch has ended; never leaves the module."""


@attrs.define(eq=False)
class IterableMixture(MixtureSettings, IterableDataset[MixtureRow]):
    """Draws rows of streams and of map-style datasets by weight.

    The order of the sources, and the rows of map-style sources, are those of a `Mixture` for any
    number of workers and ranks. A stream is iterated: its own order, its own shuffling. When it has
    ended it starts again, with the next number in its `set_epoch` if it has one.

    Rank r of n takes every n-th draw from r on, and each worker of a DataLoader every n-th of
    those. A stream that is a `torch.utils.data.IterableDataset`, such as those of `datasets` and
    WebDataset, has to distribute its rows among workers itself, and to be split among ranks. Of any
    other iterable, each worker reads all rows and keeps its own.

    `state_dict` holds the place in each stream with a digest of the rows before it, or the stream's
    own state if it has one. A stream that comes in another order when it resumes is refused.
    Another number of ranks or workers can resume if no stream distributes its rows itself and all
    ranks and workers have drawn the same number. The state of a stream of `datasets` lacks the rows
    that wait in its shuffle buffer, which are lost; shuffle only its shards, by `buffer_size=1`.

    Args:
        sources: A dataset and its weight, by name. A dataset is map-style, an iterable, or a
            function that returns an iterable.
        seed: The seed of all orders, together with the epoch.
        samples: The draws of an epoch of all ranks: a number, rounded up so that all ranks draw the
            same; `"first_exhausted"`, until a source would start again; or `"all_exhausted"`, until
            the last of them would. Ranks may end at different draws unless it is a number.
        shuffle: Whether the rows of map-style sources are shuffled.
        per_source: As for `Mixture`.
        rank: This process's rank.
        num_ranks: The number of ranks.

    Raises:
        ConfigError: A source is of another type, or an option is wrong; see `Mixture`.
    """

    rank: int = attrs.field(default=0, kw_only=True)
    num_ranks: int = attrs.field(default=1, validator=at_least_one, kw_only=True)
    _epoch: int = attrs.field(default=0, init=False)
    _shared_epoch: SharedNumber = attrs.field(factory=SharedNumber, init=False, repr=False)
    _position: int = attrs.field(default=0, init=False)
    _shards: int | None = attrs.field(default=None, init=False)
    _readers: dict[str, StreamReader] = attrs.field(factory=dict, init=False, repr=False)
    _ends: tuple[int, ...] = attrs.field(default=(), init=False, repr=False)
    _resumes: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Checks the sources and the rank."""
        MixtureSettings.__attrs_post_init__(self)
        check_count("rank", self.rank, least=0)
        if self.rank >= self.num_ranks:
            raise ConfigError(f"rank must be from 0 to {self.num_ranks - 1}, not {self.rank}")
        streams: dict[int, str] = {}
        for name, source in self.sources.items():
            if isinstance(source.dataset, MixtureSettings):
                raise ConfigError(
                    f"source {name!r} is a mixture; name its sources in this mixture instead"
                )
            if not is_map_style(source.dataset):
                check_stream(source.dataset, name, num_ranks=self.num_ranks)
                other = streams.setdefault(id(source.dataset), name)
                if other != name and isinstance(source.dataset, Iterable):
                    raise ConfigError(
                        f"sources {other!r} and {name!r} are one stream, which has one place; load "
                        "it twice, or pass a function that returns it"
                    )
            elif source.weight:
                check_map_style(source.dataset, name)

    def __iter__(self) -> Iterator[MixtureRow]:
        """Reads the rows of this worker and this rank.

        Raises:
            ConfigError: A stream has no rows, or the state is of another number of ranks.
            SourceError: A source raised an error; the message names the source and the row.
        """
        # a state is resumed by the iterator that is created next, even if nothing is read from it
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        self._start(workers * self.num_ranks)
        return self._rows(number * self.num_ranks + self.rank, workers * self.num_ranks)

    def _rows(self, shard: int, shards: int) -> Iterator[MixtureRow]:
        for first in count(self._position, shards):
            try:
                row = self._read(first + shard)
            except _OverError:
                return
            self._position = first + shards
            yield row

    def _start(self, shards: int) -> None:
        """Starts an epoch, or resumes from the state that was loaded."""
        self._take_epoch()
        if not self._resumes:
            self._position, self._readers = 0, self._make_readers(self._epoch)
        elif self._shards not in (None, shards) and any(
            reader.distributes_itself for reader in self._readers.values()
        ):
            raise ConfigError(
                f"the state is of {self._shards} workers of all ranks, found {shards}, and a "
                "stream distributes its rows itself; resume with the same number"
            )
        self._resumes, self._shards = False, shards
        map_style = [name for name in self.drawn if name not in self._readers]
        self._ends = tuple(self.ends_of(map_style, self._epoch))

    def _make_readers(self, epoch: int) -> dict[str, StreamReader]:
        return {
            name: StreamReader(
                name=name,
                dataset=self.sources[name].dataset,
                mixture_epoch=epoch,
                num_ranks=self.num_ranks,
            )
            for name in self.drawn
            if not is_map_style(self.sources[name].dataset)
        }

    def _read(self, index: int) -> MixtureRow:
        """Reads the row of a draw.

        Raises:
            _OverError: The epoch ends before the draw.
        """
        self._check_over(index)
        number, times = self.schedule(self._epoch).source_at(index)
        name = self.names[number]
        if name in self._readers:
            place, row = self._readers[name].read(times, partial(self._check_over, index, name))
            return MixtureRow(source=name, index=place, row=row)
        place = draw_of(self, name, times, self._epoch).index
        row = read_row(name, place, partial(operator.getitem, self.sources[name].dataset, place))
        return MixtureRow(source=name, index=place, row=row)

    def _check_over(self, index: int, ending: str | None = None) -> None:
        """Ends the epoch before a draw if `samples` is reached, with a stream that is ending."""
        if not isinstance(self.samples, str):
            if index >= -(-self.samples // self.num_ranks) * self.num_ranks:
                raise _OverError
            return
        ends = [index >= end for end in self._ends]
        ends += [name == ending or reader.epoch > 0 for name, reader in self._readers.items()]
        if all(ends) or (self.samples == "first_exhausted" and any(ends)):
            raise _OverError

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, of which each has orders of its own; 0 by default."""
        check_count("epoch", epoch, least=0)
        self._shared_epoch.set(int(epoch))
        self._take_epoch()

    def _take_epoch(self) -> None:
        """Takes the epoch that was set, in this process or in the one that started it."""
        epoch = self._shared_epoch.get()
        if epoch != self._epoch:
            self._epoch, self._resumes = epoch, False

    def state_dict(self) -> dict[str, Any]:
        """Returns the draws so far, and the place in each stream."""
        return {
            "mixture": self.identity(),
            "epoch": self._epoch,
            "position": self._position,
            "shards": self._shards,
            "streams": {name: reader.state_dict() for name, reader in self._readers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from the state of the same mixture.

        Raises:
            ConfigError: The state is of another mixture.
        """
        position, epoch = position_of(state, self.identity()), count_of(state, "epoch")
        shards = None if state.get("shards") is None else count_of(state, "shards")
        streams = state.get("streams")
        readers = self._make_readers(epoch)
        for name, reader in readers.items():
            if isinstance(streams, Mapping) and name in streams:
                reader.load_state_dict(streams[name])
            elif position:
                raise ConfigError(
                    f"the state has no place in the stream {name!r}: found streams="
                    f"{streams!r:.60}, expected a result of state_dict; pass one"
                )
        self._shared_epoch.set(epoch)
        self._epoch, self._position, self._shards = epoch, position, shards
        self._readers, self._resumes = readers, True
