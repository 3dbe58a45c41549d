"""The draws of a mixture, shared among ranks and resumed anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import attrs
from torch.utils.data import Sampler

from vlmcollate.errors import ConfigError
from vlmcollate.mixture.states import position_of
from vlmcollate.validators import at_least_one, check_count


class Drawn(Protocol):
    """What a sampler needs of a mixture."""

    def __len__(self) -> int:
        """Returns the number of draws of an epoch."""

    def identity(self) -> dict[str, Any]:
        """Returns what a state has to agree with."""


@attrs.define(kw_only=True, eq=False)
class MixtureSampler(Sampler[int]):
    """Yields the draws of one rank, epoch after epoch; `mixture.sampler()` makes it.

    Rank r of n takes every n-th draw from r on, and all ranks take the same number. If an epoch is
    not divisible by `num_ranks`, its last draws are those of the next epoch, which continues
    after them, so that none is lost or drawn twice.

    The state is one number, the draws of all ranks so far, so that a run resumes with another
    number of ranks, of workers or of rows in a batch. The sampler runs in the main process, so
    the workers of a DataLoader do not change the order.

    An interrupted pass restarts, unless `load_state_dict` was called.

    Args:
        mixture: The mixture.
        rank: This process's rank.
        num_ranks: The number of ranks.
    """

    mixture: Drawn
    rank: int = 0
    num_ranks: int = attrs.field(default=1, validator=at_least_one)
    _start: int = attrs.field(default=0, init=False)
    _position: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Refuses a rank out of range."""
        check_count("rank", self.rank, least=0)
        if self.rank >= self.num_ranks:
            raise ConfigError(f"rank must be from 0 to {self.num_ranks - 1}, not {self.rank}")

    def __len__(self) -> int:
        return -(-len(self.mixture) // self.num_ranks)

    def __iter__(self) -> Iterator[int]:
        # this runs at the first `next`, so a loader may create the iterator before it loads a state
        start, length = self._start, len(self.mixture)
        left = length - start % length
        for first in range(start, start + left, self.num_ranks):
            self._position = first + self.num_ranks
            yield first + self.rank
        if self._start == start:  # no state was loaded, and no epoch was set
            self._start = self._position

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; without this call, epochs follow each other.

        Trainers call this before each epoch, and also after `load_state_dict`: setting the epoch of
        the loaded state resumes it.
        """
        check_count("epoch", epoch, least=0)
        length = len(self.mixture)
        if epoch != self._start // length:
            self._start = self._position = epoch * length

    def state_dict(self, *, position: int | None = None) -> dict[str, Any]:
        """Returns the state.

        Args:
            position: The draws of all ranks that were trained, such as `steps * batch_size *
                num_ranks`; by default those that this sampler has yielded, of which the workers
                of a plain DataLoader hold some in advance.

        Raises:
            ConfigError: The position is no number.
        """
        if position is None:
            position = self._position
        check_count("position", position, least=0)
        return {"mixture": self.mixture.identity(), "position": int(position)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from the state of a sampler of the same mixture, with any number of ranks.

        Raises:
            ConfigError: The state is no state of a sampler, or of one with another seed, weights,
                numbers of rows or order of sources.
        """
        self._start = self._position = position_of(state, self.mixture.identity())
