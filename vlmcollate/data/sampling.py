"""Batches of samples of similar length.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from vlmcollate.errors import ConfigError
from vlmcollate.options import an_instance_of, at_least_one

_CHUNK = 50


def _as_lengths(value: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    lengths = np.asarray(value, np.int64)
    if lengths.ndim != 1 or not len(lengths):
        raise ConfigError("lengths must hold one number a sample, and at least one")
    return lengths


@attrs.define(kw_only=True, eq=False)
class LengthGroupedSampler(Sampler[int]):
    """Draws samples so that those of a batch are about as long, in an order fixed by the seed.

    Samples are shuffled, sorted by length within chunks of 50 batches, and the batches shuffled
    again. The longest batch of all comes first, so that a lack of memory shows at once. Every rank
    gets as many samples; to that end the last batch is filled up from the first.

    Args:
        lengths: (N,) the samples' tokens.
        batch_size: Samples a batch on one rank, as the DataLoader has it.
        seed: Decides the order, with the epoch.
        rank: This process's rank.
        num_ranks: How many ranks there are.

    Example:
        >>> sampler = LengthGroupedSampler(lengths=[9, 1, 8, 2], batch_size=2)
        >>> sorted(sampler)
        [0, 1, 2, 3]
    """

    lengths: npt.NDArray[np.int64] = attrs.field(converter=_as_lengths)
    batch_size: int = attrs.field(validator=at_least_one)
    seed: int = attrs.field(default=0, validator=an_instance_of(int))
    rank: int = attrs.field(default=0, validator=an_instance_of(int))
    num_ranks: int = attrs.field(default=1, validator=at_least_one)
    _epoch: int = attrs.field(default=0, init=False)
    _given: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Refuses a rank that is none of them."""
        if not 0 <= self.rank < self.num_ranks:
            raise ConfigError(f"rank must be from 0 to {self.num_ranks - 1}, not {self.rank}")

    def __len__(self) -> int:
        step = self.batch_size * self.num_ranks
        return -(-len(self.lengths) // step) * self.batch_size

    def __iter__(self) -> Iterator[int]:
        mine = self._order()[self._given :].tolist()
        for index in mine:
            self._given += 1
            yield index
        self._given = 0
        self._epoch += 1

    def set_epoch(self, epoch: int) -> None:
        """Begins an epoch; without it, they follow one another from 0 on."""
        self._epoch, self._given = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands: the epoch, and how many samples of it were given."""
        return {"seed": self.seed, "epoch": self._epoch, "given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where a sampler of the same lengths stood.

        Raises:
            ConfigError: The state is of another seed.
        """
        if state["seed"] != self.seed:
            raise ConfigError(f"the state is of seed {state['seed']}, the sampler's is {self.seed}")
        self._epoch, self._given = state["epoch"], state["given"]

    def _order(self) -> npt.NDArray[np.int64]:
        """This rank's samples of the epoch, batch after batch."""
        random = np.random.default_rng((self.seed, self._epoch))
        step = self.batch_size * self.num_ranks
        order = random.permutation(len(self.lengths))
        chunk = step * _CHUNK
        parts = [order[i : i + chunk] for i in range(0, len(order), chunk)]
        order = np.concatenate([p[np.argsort(-self.lengths[p], kind="stable")] for p in parts])
        order = np.resize(order, -(-len(order) // step) * step)
        steps = order.reshape(-1, step)
        longest = int(np.argmax(self.lengths[steps].max(axis=1)))
        rest = random.permutation([i for i in range(len(steps)) if i != longest])
        steps = steps[np.concatenate([[longest], rest]).astype(np.int64)]
        # neighbours in length go to different ranks, so that all have as much to do
        return steps.reshape(len(steps), self.batch_size, self.num_ranks)[..., self.rank].reshape(
            -1
        )
