"""A map-style mixture of map-style datasets."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from functools import partial

import attrs
from torch.utils.data import Dataset

from vlmcollate.errors import ConfigError
from vlmcollate.mixture.reading import check_map_style, is_map_style, read_row
from vlmcollate.mixture.rows import Draw, MixtureRow
from vlmcollate.mixture.sampler import MixtureSampler
from vlmcollate.mixture.schedule import Schedule
from vlmcollate.mixture.settings import MixtureSettings
from vlmcollate.mixture.shuffling import shuffle_key, shuffled_index


@attrs.define(eq=False)
class Mixture(MixtureSettings, Dataset[MixtureRow]):
    """Draws the rows of several datasets by weight, the same for a seed wherever they are drawn.

    A mixture is an endless sequence, of which `len` is one epoch: draw `i` is computed from the
    seed and `i` alone. Each hundred of draws holds the exact share of each source, up to rounding,
    in a shuffled order. A source is drawn completely, each row once, before it is shuffled again.

    Pass `mixture.sampler()` to the DataLoader as its `sampler`, and `mixture.collator(collator)`
    as its `collate_fn`.

    Args:
        sources: A dataset with `__len__` and `__getitem__` and its weight, by name. The weights
            need not sum to 1; a source of weight 0 is not drawn.
        seed: The seed of all orders.
        samples: The draws of an epoch: a number; `"first_exhausted"`, as many as there are before
            a source would start again; or `"all_exhausted"`, before the last of them would. The
            next epoch continues with the draws that follow.
        shuffle: Whether the rows of a source are shuffled.
        per_source: Options of a source by name: those of a collator that encode, such as `format`,
            `media` and `train_on`, and `min_pixels`, `max_pixels` and `total_pixels` for media
            items that set no size of their own.

    Raises:
        ConfigError: A source has no rows or is a stream, a weight is wrong, or `per_source` names
            an unknown source or an option that all rows of a batch share.

    Example:
        >>> mixture = Mixture({"a": ([1, 2, 3], 3), "b": ([4, 5, 6, 7], 1)}, seed=1)
        >>> sorted({row.row for row in mixture if row.source == "a"})
        [1, 2, 3]
    """

    def __attrs_post_init__(self) -> None:
        """Checks the sources."""
        MixtureSettings.__attrs_post_init__(self)
        for name, source in self.sources.items():
            if isinstance(source.dataset, MixtureSettings):
                raise ConfigError(
                    f"source {name!r} is a mixture; name its sources in this mixture instead"
                )
            if not is_map_style(source.dataset):
                raise ConfigError(
                    f"source {name!r} is wrong: found {type(source.dataset).__name__}, expected a "
                    "dataset with __len__ and __getitem__; mix streams with IterableMixture"
                )
            if source.weight:
                check_map_style(source.dataset, name)

    @property
    def _schedule(self) -> Schedule:
        return self.schedule()

    def __len__(self) -> int:
        if not isinstance(self.samples, str):
            return int(self.samples)
        ends = self.ends_of(self.drawn)
        return min(ends) if self.samples == "first_exhausted" else max(ends)

    def __getitem__(self, index: int) -> MixtureRow:
        """Reads the row of a draw.

        Args:
            index: The number of the draw; from `len` on it is one of the next epochs.

        Raises:
            IndexError: The number is below `-len`.
            SourceError: The source raised an error.
        """
        draw = self.draw(index)
        read = partial(operator.getitem, self.sources[draw.source].dataset, draw.index)
        row = read_row(draw.source, draw.index, read)
        return MixtureRow(source=draw.source, index=draw.index, row=row)

    def __iter__(self) -> Iterator[MixtureRow]:
        """Reads the rows of the first epoch."""
        return map(self.__getitem__, range(len(self)))

    def draw(self, index: int) -> Draw:
        """Returns the source, the row and the epoch of a draw, without reading the row."""
        index = operator.index(index)
        if index < 0:
            index += len(self)
            if index < 0:
                raise IndexError(f"draw {index - len(self)} of {len(self)}")
        number, times = self._schedule.source_at(index)
        return draw_of(self, self.names[number], times)

    def counts(self, draws: int) -> Counter[str]:
        """Returns how often each source is among the first draws."""
        schedule = self._schedule
        return Counter({name: schedule.count(k, draws) for k, name in enumerate(self.names)})

    def sampler(self, *, rank: int = 0, num_ranks: int = 1) -> MixtureSampler:
        """Returns the sampler of a rank, which holds the state of the training."""
        return MixtureSampler(mixture=self, rank=rank, num_ranks=num_ranks)


def draw_of(mixture: MixtureSettings, name: str, times: int, epoch: int = 0) -> Draw:
    """Returns a draw of a map-style source.

    Args:
        mixture: The mixture.
        name: The name of the source.
        times: How often the source was drawn before.
        epoch: The epoch of the mixture, if each has an order of its own.
    """
    size = len(mixture.sources[name].dataset)
    round_, place = divmod(times, size)
    if mixture.shuffle:
        place = shuffled_index(place, size, shuffle_key(mixture.seed, "rows", name, epoch, round_))
    return Draw(source=name, index=place, epoch=round_)
