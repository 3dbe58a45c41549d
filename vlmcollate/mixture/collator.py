"""A collator of rows of several sources, each with options of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.encode.each import Steps, encode_together, raise_error
from vlmcollate.encode.overlong import OverlongPolicy
from vlmcollate.errors import ConfigError, EmptyBatchError, LocatedError, SampleError
from vlmcollate.explain import Explanation
from vlmcollate.mixture.media_sizes import Sizes, check_sizes, sizes_of, with_sizes
from vlmcollate.mixture.reading import named_error
from vlmcollate.mixture.rows import MixtureRow
from vlmcollate.mixture.source_options import collator_of
from vlmcollate.sample import EncodedSample

T = TypeVar("T")


def _checked_collator(value: Any) -> BaseCollator:
    if isinstance(value, BaseCollator):
        return value
    raise ConfigError(
        f"collator is wrong: found {type(value).__name__}, expected a collator of conversations "
        "such as collator_for(processor); pass others the rows themselves: "
        "lambda rows: collate([row.row for row in rows])"
    )


@attrs.frozen(eq=False)
class MixtureCollator:
    """Encodes each row with the options of its source, and stacks all of them alike.

    `mixture.collator(collator)` makes it. An error of a sample names the source and the row.

    Args:
        collator: The collator, which stacks the samples.
        per_source: The options of each source by name.

    Attributes:
        collators: The collator of each source, by name.
        sizes: The sizes of the media of each source, by name.

    Raises:
        ConfigError: An option is unknown or wrong.
    """

    collator: BaseCollator = attrs.field(converter=_checked_collator)
    per_source: Mapping[str, Mapping[str, Any]]
    collators: Mapping[str, BaseCollator] = attrs.field(init=False, repr=False)
    sizes: Mapping[str, Sizes] = attrs.field(init=False, repr=False)

    @collators.default
    def _collators(self) -> Mapping[str, BaseCollator]:
        return {k: collator_of(self.collator, v, k) for k, v in self.per_source.items()}

    @sizes.default
    def _sizes_by_source(self) -> Mapping[str, Sizes]:
        return {k: sizes_of(v, k) for k, v in self.per_source.items()}

    def __attrs_post_init__(self) -> None:
        """Refuses sizes that the processor does not take."""
        for source, sizes in self.sizes.items():
            check_sizes(sizes, self.collator, source)

    @property
    def split_turns(self) -> bool:
        """Whether a source makes several samples of a row."""
        return any(collator.split_turns for collator in self.collators.values())

    @property
    def on_overlong(self) -> OverlongPolicy:
        """`"drop"` if a source drops samples, otherwise the policy of the collator."""
        drops = any(collator.on_overlong == "drop" for collator in self.collators.values())
        return "drop" if drops else self.collator.on_overlong

    def __call__(self, rows: Sequence[object]) -> dict[str, Any]:
        """Collates rows of the mixture into a batch; see `BaseCollator`."""
        return self.collate(rows)

    def collate(
        self,
        rows: Sequence[object],
        *,
        on_error: Callable[[SampleError], Sequence[EncodedSample]] | None = None,
    ) -> dict[str, Any]:
        """Collates rows of the mixture, with a policy for each that fails.

        Args:
            rows: Rows of the mixture.
            on_error: As for `BaseCollator.collate`.

        Raises:
            EmptyBatchError: There is no row, or none is left.
        """
        samples = encode_together(rows, self.encode_in_steps, on_error or raise_error)
        if rows and not samples:
            raise EmptyBatchError(
                f"none of the {len(rows)} rows is left: all failed, or are longer than the "
                "max_length of their source and were dropped"
            )
        return self.stack(samples)

    def encode(self, row: object) -> EncodedSample:
        """Encodes a row; see `BaseCollator.encode`."""
        return self._run(row, lambda collator, example: collator.encode(example), _itself)

    def encode_all(self, row: object) -> list[EncodedSample]:
        """Encodes all samples of a row; see `BaseCollator.encode_all`."""
        return self._run(row, lambda collator, example: collator.encode_all(example), _alone)

    def encode_kept(self, row: object) -> list[EncodedSample]:
        """Encodes a row, and drops samples that are too long if that is the source's policy."""
        return self._run(row, lambda collator, example: collator.encode_kept(example), _alone)

    def encode_in_steps(self, row: object) -> Steps[list[EncodedSample]]:
        """Encodes a row in steps; see `BaseCollator.encode_in_steps`."""
        known = self._known(row)
        if isinstance(known.row, EncodedSample):
            return [self._checked(known)]
        with _naming(known):
            collator = self.collators[known.source]
            return (yield from collator.encode_in_steps(self._read(known)))

    def explain(self, row: object) -> Explanation:
        """Explains a row; see `BaseCollator.explain`."""
        return self._run(row, lambda collator, example: collator.explain(example), _refused)

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Any]:
        """Makes a batch of encoded samples; see `BaseCollator.stack`."""
        return self.collator.stack(samples)

    def pack(self, samples: Sequence[EncodedSample], *, multiple_of: int = 1) -> EncodedSample:
        """Joins encoded samples into one pack; see `BaseCollator.pack`."""
        return self.collator.pack(samples, multiple_of=multiple_of)

    def dummy_sample(self) -> EncodedSample:
        """Returns a sample to use instead of a bad one; see `BaseCollator.dummy_sample`."""
        return self.collator.dummy_sample()

    def _run(
        self,
        row: object,
        call: Callable[[BaseCollator, object], T],
        of_encoded: Callable[[EncodedSample], T],
    ) -> T:
        """Calls the collator of a row's source with the row, unless that is encoded already."""
        known = self._known(row)
        if isinstance(known.row, EncodedSample):
            return of_encoded(self._checked(known))
        with _naming(known):
            return call(self.collators[known.source], self._read(known))

    def _known(self, row: object) -> MixtureRow:
        """Returns a row of the mixture, and refuses others."""
        if not isinstance(row, MixtureRow):
            raise ConfigError(
                f"the row is of no mixture: found {type(row).__name__}, expected a MixtureRow; "
                "pass items of the Mixture"
            )
        if row.source not in self.collators:
            raise ConfigError(
                f"the row is of the unknown source {row.source!r}; make the collator with the "
                "mixture's own `collator`"
            )
        return row

    def _read(self, row: MixtureRow) -> object:
        """Returns the example of a row, read if its media has sizes of the source."""
        sizes = self.sizes[row.source]
        return with_sizes(self.collators[row.source].read(row.row), sizes) if sizes else row.row

    def _checked(self, row: MixtureRow) -> EncodedSample:
        """Returns an encoded row, which no option of the source can change."""
        if self.per_source[row.source]:
            raise ConfigError(
                f"per_source[{row.source!r}] has no effect: the rows of the source are encoded "
                "already; set the options in the collator that encodes them"
            )
        sample: EncodedSample = row.row
        return sample


@contextmanager
def _naming(row: MixtureRow) -> Iterator[None]:
    """Names the source and the row in errors."""
    try:
        yield
    except LocatedError as error:
        raise named_error(error, row.source, row.index) from error.__cause__


def _itself(sample: EncodedSample) -> EncodedSample:
    return sample


def _alone(sample: EncodedSample) -> list[EncodedSample]:
    return [sample]


def _refused(sample: EncodedSample) -> Explanation:
    raise ConfigError(
        f"a sample of {len(sample)} tokens that is encoded already has no explanation; explain the "
        "example that it was made of"
    )
