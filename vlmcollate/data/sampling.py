"""Orders of samples that are shuffled, resumable and shared among ranks.

Shapes: N samples, M samples of one rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from vlmcollate.errors import ConfigError
from vlmcollate.validators import at_least_one, check_count, whole_numbers

_CHUNK = 50


def _as_lengths(value: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    lengths = whole_numbers("lengths", value)
    if not len(lengths):
        raise ConfigError("lengths must hold one number per sample, and at least one")
    return lengths


def _not_negative(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    check_count(attribute.name, value, least=0)


@attrs.define(kw_only=True, eq=False)
class _EpochSampler(Sampler[int]):
    """The epochs, the ranks and the state of a sampler."""

    seed: int = attrs.field(default=0, validator=_not_negative)
    rank: int = attrs.field(default=0, validator=_not_negative)
    num_ranks: int = attrs.field(default=1, validator=at_least_one)
    _epoch: int = attrs.field(default=0, init=False)
    _given: int = attrs.field(default=0, init=False)
    _resumes: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Refuses a rank out of range."""
        if self.rank >= self.num_ranks:
            raise ConfigError(f"rank must be from 0 to {self.num_ranks - 1}, not {self.rank}")

    def __len__(self) -> int:
        return -(-self._count() // self.num_ranks)

    def __iter__(self) -> Iterator[int]:
        # this runs at the first `next`, so a loader may create the iterator before it loads a state
        start, self._resumes = self._given if self._resumes else 0, False
        epoch = self._epoch
        for number, index in enumerate(self._order(start), start + 1):
            self._given = number
            yield index
        if self._epoch == epoch:
            self._given, self._epoch = 0, epoch + 1

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; without this call, epochs are counted from 0.

        Trainers call this before each epoch, and also after `load_state_dict`: setting the epoch of
        the loaded state resumes it.
        """
        check_count("epoch", epoch, least=0)
        if epoch != self._epoch:
            self._epoch, self._given, self._resumes = epoch, 0, False

    def state_dict(self) -> dict[str, Any]:
        """Returns the epoch, and the number of its samples that this rank has drawn.

        All ranks have drawn the same number, so the state of one rank is that of all.
        """
        return {**self._identity(), "epoch": self._epoch, "given": self._given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from the state of a sampler with the same options.

        Raises:
            ConfigError: The state is no state of a sampler, or of one with another seed, batch
                size, number of ranks or lengths.
        """
        if not isinstance(state, Mapping):
            raise ConfigError(
                f"the state is no mapping: found {type(state).__name__}, expected a result of "
                "state_dict; pass one"
            )
        for name, here in self._identity().items():
            if state.get(name) != here:
                raise ConfigError(
                    f"the state is of another sampler: found {name} {state.get(name)!r}, expected "
                    f"{here!r}; resume with the same {name}"
                )
        epoch, given = state.get("epoch"), state.get("given")
        check_count("the state's epoch", epoch, least=0)
        check_count("the state's given", given, least=0)
        if given > len(self):  # type: ignore[operator]  # a number, as just checked
            raise ConfigError(f"the state's given must be at most {len(self)}, not {given}")
        self._epoch, self._given, self._resumes = epoch, given, True  # type: ignore[assignment]

    def _count(self) -> int:
        """Returns N."""
        raise NotImplementedError

    def _identity(self) -> dict[str, Any]:
        """Returns everything that the order depends on, by name."""
        return {"seed": self.seed, "num_ranks": self.num_ranks}

    def _order(self, start: int) -> Iterator[int]:
        """Yields this rank's samples of the epoch, but for the first ones."""
        raise NotImplementedError


@attrs.define(kw_only=True, eq=False)
class LengthGroupedSampler(_EpochSampler):
    """Draws batches of samples of similar length, in an order that the seed determines.

    The sampler shuffles the samples, sorts them by length within chunks of 50 batches, and shuffles
    the batches. The longest full batch comes first, so that a lack of memory shows at once; a
    smaller last batch comes last. Every rank gets the same number of samples: if their number is
    not divisible by `num_ranks`, up to `num_ranks - 1` samples are drawn twice.

    Each pass is an epoch. An interrupted pass does not count: the next pass restarts the same
    epoch, unless `load_state_dict` was called, after which it resumes in the middle.

    Args:
        lengths: (N,) the tokens of each sample.
        batch_size: The samples of a batch on one rank, the same as the DataLoader's.
        seed: The seed of the order, together with the epoch.
        rank: This process's rank.
        num_ranks: The number of ranks.

    Example:
        >>> sampler = LengthGroupedSampler(lengths=[9, 1, 8, 2], batch_size=2)
        >>> sorted(sampler)
        [0, 1, 2, 3]
    """

    lengths: npt.NDArray[np.int64] = attrs.field(converter=_as_lengths)
    batch_size: int = attrs.field(validator=at_least_one)
    _digest: str = attrs.field(init=False)  # cached: loaders take the state with each batch

    @_digest.default
    def _digest_of_lengths(self) -> str:
        return hashlib.blake2b(self.lengths.tobytes(), digest_size=8).hexdigest()

    def _count(self) -> int:
        return len(self.lengths)

    def _identity(self) -> dict[str, Any]:
        return {
            **_EpochSampler._identity(self),
            "batch_size": self.batch_size,
            "lengths": f"{len(self.lengths)} samples, {self._digest}",
        }

    def _order(self, start: int) -> Iterator[int]:
        yield from self._whole_order()[start:].tolist()

    def _whole_order(self) -> npt.NDArray[np.int64]:
        """Returns (M,) this rank's samples of the epoch, batch after batch."""
        random = np.random.default_rng((self.seed, self._epoch))
        step = self.batch_size * self.num_ranks
        order = np.resize(random.permutation(len(self.lengths)), len(self) * self.num_ranks)
        # a last chunk shorter than a step would become a step of any lengths
        cuts = range(step * _CHUNK, len(order) - step + 1, step * _CHUNK)
        parts = np.split(order, cuts)
        order = np.concatenate([p[np.argsort(-self.lengths[p], kind="stable")] for p in parts])
        full = len(order) // step
        steps, rest = order[: full * step].reshape(full, step), order[full * step :]
        if full:
            longest = int(np.argmax(self.lengths[steps].max(axis=1)))
            others = random.permutation([i for i in range(full) if i != longest])
            steps = steps[np.concatenate([[longest], others]).astype(np.int64)]
        # samples of similar length go to different ranks, so that all ranks have equal work
        mine = steps.reshape(full, self.batch_size, self.num_ranks)[..., self.rank]
        return np.concatenate([mine.reshape(-1), rest.reshape(-1, self.num_ranks)[:, self.rank]])


@attrs.define(kw_only=True, eq=False)
class BlockShuffledSampler(_EpochSampler):
    """Draws samples in a shuffled order whose reads are nearly sequential, for large datasets.

    The sampler shuffles blocks of consecutive samples, and the samples within a buffer of several
    blocks, so that a `PreparedDataset` reads each group of rows once while it is cached. Its memory
    and the time to resume do not grow with the samples, but with the blocks. Each rank reads
    blocks of its own. Every rank gets the same number of samples: if their number is not divisible
    by `num_ranks`, up to `num_ranks - 1` samples are drawn twice.

    Epochs, `set_epoch` and states are those of `LengthGroupedSampler`. The sampler runs in the main
    process, so the workers of a DataLoader do not change the order.

    Args:
        num_samples: The number of samples.
        block_size: The number of consecutive samples of a block.
        buffer_blocks: The number of blocks whose samples are shuffled together.
        seed: The seed of the order, together with the epoch.
        rank: This process's rank.
        num_ranks: The number of ranks.

    Example:
        >>> sampler = BlockShuffledSampler(num_samples=10, block_size=2, buffer_blocks=2)
        >>> sorted(sampler)
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    num_samples: int = attrs.field(validator=at_least_one)
    block_size: int = attrs.field(default=256, validator=at_least_one)
    buffer_blocks: int = attrs.field(default=64, validator=at_least_one)

    def _count(self) -> int:
        return self.num_samples

    def _identity(self) -> dict[str, Any]:
        return {
            **_EpochSampler._identity(self),
            "num_samples": self.num_samples,
            "block_size": self.block_size,
            "buffer_blocks": self.buffer_blocks,
        }

    def _order(self, start: int) -> Iterator[int]:
        size = self.block_size * self.buffer_blocks
        blocks = np.random.default_rng((self.seed, self._epoch)).permutation(
            -(-self.num_samples // self.block_size)
        )
        edges = np.concatenate([[0], np.cumsum(self._sizes(blocks))])
        epoch = self._epoch
        for buffer in range(start // size, -(-len(self) // size)):
            first = buffer * size
            places = np.arange(first, min(first + size, len(self))) + self.rank * len(self)
            samples = self._samples(blocks, edges, places % self.num_samples)
            random = np.random.default_rng((self.seed, epoch, self.rank, buffer))
            yield from random.permutation(samples)[max(start - first, 0) :].tolist()

    def _sizes(self, blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns the number of samples of each block; the last one in the dataset may be short."""
        return np.minimum(self.block_size, self.num_samples - blocks * self.block_size)

    def _samples(
        self,
        blocks: npt.NDArray[np.int64],
        edges: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        """Returns the samples at places in the order of the blocks."""
        number = np.searchsorted(edges, places, side="right") - 1
        found: npt.NDArray[np.int64] = blocks[number] * self.block_size + places - edges[number]
        return found
