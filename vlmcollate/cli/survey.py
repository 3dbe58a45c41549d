"""Counting the tokens of a dataset.

Shapes: N good rows.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import numpy as np

from vlmcollate.cli.flags import in_flags
from vlmcollate.collator import BaseCollator
from vlmcollate.encode.trace import Trace
from vlmcollate.errors import ConfigError, SampleError, TemplateOmissionWarning
from vlmcollate.packing import plan_packs
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.tokens.vocabulary import Ints

BATCH_SIZES = (1, 2, 4, 8, 16, 32)


@attrs.frozen(kw_only=True)
class Shortened:
    """What `on_overlong` cuts off to fit `max_length`.

    Attributes:
        rows: The number of shortened rows.
        tokens: The tokens that they lose.
        trained: The trained tokens among these.
    """

    rows: int = 0
    tokens: int = 0
    trained: int = 0

    def plus(self, whole: EncodedSample, sample: EncodedSample) -> Shortened:
        """Returns the sum with one more row."""
        return Shortened(
            rows=self.rows + 1,
            tokens=self.tokens + len(whole) - len(sample),
            trained=self.trained + _trained(whole) - _trained(sample),
        )


@attrs.frozen(kw_only=True, eq=False)
class Survey:
    """The numbers of a dataset.

    Attributes:
        lengths: (N,) int64, the tokens of each good row.
        trained: (N,) int64, its trained tokens.
        media: (N,) int64, its media tokens.
        items: The number of media items of each kind.
        failures: The number of failed rows and the first message, for each class of error.
        shortened: What rows lose to fit `max_length`.
        drawn: The number of rows, of which some may fail and others have several samples.
    """

    lengths: Ints
    trained: Ints
    media: Ints
    items: dict[str, int]
    failures: dict[str, tuple[int, str]]
    shortened: Shortened = Shortened()
    drawn: int = 0

    def padding_waste(self, batch_size: int, *, grouped: bool = False) -> float:
        """Computes the share of padding among all tokens, with batches padded to their longest row.

        Args:
            batch_size: The rows of a batch.
            grouped: Whether rows of similar length share a batch, instead of consecutive rows.

        Example:
            >>> n = np.array([1, 2, 3])
            >>> Survey(lengths=n, trained=n, media=n, items={}, failures={}).padding_waste(3)
            0.33333333333333337
        """
        lengths = np.sort(self.lengths) if grouped else self.lengths
        starts = np.arange(0, len(lengths), batch_size)
        sizes = np.diff([*starts, len(lengths)])
        padded = int((np.maximum.reduceat(lengths, starts) * sizes).sum())
        return 1 - int(lengths.sum()) / padded

    def packing_fill(self, max_length: int) -> tuple[float, int, int]:
        """Computes how full packs are.

        Args:
            max_length: The maximum tokens of a pack.

        Returns:
            The share of the packs that tokens fill, the number of packs, and the number of rows
            that are too long for one.
        """
        plan = plan_packs(self.lengths, max_length=max_length, on_overlong="drop")
        return plan.fill, len(plan), len(plan.overlong)

    @property
    def pack_lengths(self) -> list[int]:
        """Useful pack lengths: powers of two from the shortest row's to 4 x the longest's."""
        low = max(int(self.lengths.min()), 32)
        high = 4 * int(self.lengths.max())
        return [2**i for i in range(5, 21) if low <= 2**i <= high][-6:]


@attrs.define
class _Tally:
    """The counts of a survey that is under way."""

    shown: Callable[[str], str] = in_flags
    drawn: int = 0
    shortened: Shortened = Shortened()
    rows: list[tuple[int, int, int]] = attrs.field(factory=list)
    items: Counter[str] = attrs.field(factory=Counter)
    failures: dict[str, tuple[int, str]] = attrs.field(factory=dict)

    def add(self, sample: EncodedSample) -> None:
        media = int((sample.media_ids >= 0).sum())
        self.rows.append((len(sample), _trained(sample), media))
        self.items.update(sample.media_counts)

    def add_or_fail(self, number: int, encode: Callable[[], EncodedSample]) -> None:
        try:
            with warnings.catch_warnings(), Trace() as trace:
                warnings.simplefilter("ignore", TemplateOmissionWarning)
                sample = encode()
        except SampleError as error:
            self.fail(number, error)
        else:
            self.add(sample)
            if "shorten" in trace.results:
                self.shortened = self.shortened.plus(trace.first("postprocess"), sample)

    def fail(self, number: int, error: SampleError) -> None:
        name = type(error).__name__
        count, first = self.failures.get(name, (0, f"row {number}: {self.shown(str(error))}"))
        self.failures[name] = (count + 1, first)

    def survey(self) -> Survey:
        if not self.rows:
            reasons = "; ".join(f"{name}: {first}" for name, (_, first) in self.failures.items())
            raise ConfigError(f"no good row to count; {reasons or 'the data holds no rows'}")
        lengths, trained, media = np.array(self.rows, np.int64).T
        return Survey(
            lengths=lengths,
            trained=trained,
            media=media,
            items=dict(self.items),
            failures=self.failures,
            shortened=self.shortened,
            drawn=self.drawn,
        )


def survey_rows(
    collator: BaseCollator,
    rows: Iterable[tuple[int, Any]],
    shown: Callable[[str], str] = in_flags,
) -> Survey:
    """Encodes rows and counts their tokens.

    Args:
        collator: Encodes the rows.
        rows: Numbered rows, from `Rows`.
        shown: A function from the message of an error to the one that is shown.

    Raises:
        ConfigError: No row is good.
    """
    tally = _Tally(shown=shown)
    for number, row in rows:
        tally.drawn += 1
        try:
            for encode in _encoders(collator, row):
                tally.add_or_fail(number, encode)
        except SampleError as error:
            tally.fail(number, error)
    return tally.survey()


def _trained(sample: EncodedSample) -> int:
    return int((sample.labels != IGNORE_INDEX).sum())


def _encoders(collator: BaseCollator, row: Any) -> list[Callable[[], EncodedSample]]:
    if isinstance(row, SampleError):
        raise row
    return collator.turn_encoders(row)
