"""Rows of a dataset with their explanations, and the packs that they make."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from vlmcollate.cli.data_parts import DataPart, data_parts
from vlmcollate.cli.flags import in_flags
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import (
    ConfigError,
    SampleError,
    SpelledTokenWarning,
    TemplateOmissionWarning,
)
from vlmcollate.explain import Explanation
from vlmcollate.labels import (
    GenerationTagLabels,
    LabelStrategy,
    PrefixMaskLabels,
    RenderedSpanLabels,
    TemplateMarkerLabels,
    TextSearchLabels,
)
from vlmcollate.packing import plan_packs, unpack
from vlmcollate.sample import EncodedSample

STRATEGIES: dict[str, type[LabelStrategy]] = {
    strategy.__name__: strategy
    for strategy in (
        RenderedSpanLabels,
        TemplateMarkerLabels,
        TextSearchLabels,
        PrefixMaskLabels,
        GenerationTagLabels,
    )
}


@attrs.frozen(kw_only=True, eq=False)
class InspectedRow:
    """One row of a dataset, or one of its samples with `split_turns`.

    Attributes:
        number: Its number in the dataset.
        source: The name of its source in a mixture, or "".
        explanation: The explanation of its sample, or `None` if it failed.
        error: Why it failed, or "".
        note: The result of comparing label strategies, or "".
        sample: The sample's number from 1 and the number of samples, if they are several.
    """

    number: int
    source: str = ""
    explanation: Explanation | None = None
    error: str = ""
    note: str = ""
    sample: tuple[int, int] | None = None

    @property
    def title(self) -> str:
        """The row's title in the output."""
        row = f"{self.source}, row {self.number}" if self.source else f"row {self.number}"
        if self.sample is None:
            return row
        place, count = self.sample
        return f"{row}, sample {place} of {count}"


@attrs.frozen(kw_only=True, eq=False)
class InspectedPack:
    """Rows that share a pack.

    Attributes:
        rows: The rows in order, each a document.
        max_length: The maximum tokens of a pack.
    """

    rows: tuple[InspectedRow, ...]
    max_length: int

    @property
    def lengths(self) -> list[int]:
        """The tokens of each document."""
        return [len(row.explanation.sample) for row in self.rows if row.explanation is not None]

    @property
    def title(self) -> str:
        """The number of documents, and how full the pack is."""
        used, count = sum(self.lengths), len(self.rows)
        if used > self.max_length:
            return f"1 document of {used:,} tokens, too long for a pack of {self.max_length:,}"
        return (
            f"{count} document{'' if count == 1 else 's'}, {used:,} of {self.max_length:,} tokens "
            f"({used / self.max_length:.0%})"
        )


def inspect_rows(
    collator: BaseCollator, data: str | Path, *, rows: str = "0:10", diff: str = ""
) -> Iterator[InspectedRow]:
    """Explains rows one after another.

    Args:
        collator: Encodes the rows.
        data: A file or a folder, as for `data_parts`.
        rows: A row or a range, as for `data_parts`.
        diff: The name of a label strategy to compare with, or "".

    Yields:
        Each row with its explanation or its error.

    Raises:
        ConfigError: The data cannot be read, or an option is invalid.
    """
    if diff and diff not in STRATEGIES:
        near = difflib.get_close_matches(diff, STRATEGIES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"diff must be one of {', '.join(STRATEGIES)}, not {diff!r}{hint}")
    for part in data_parts(collator, data, rows):
        other = attrs.evolve(part.collator, labels=STRATEGIES[diff]()) if diff else None
        for number, row in part:
            for found in _inspect_row(part, other, number, row):
                yield attrs.evolve(found, source=part.source)


def _inspect_row(
    part: DataPart, other: BaseCollator | None, number: int, row: Any
) -> Iterator[InspectedRow]:
    try:
        if isinstance(row, SampleError):
            raise row
        with warnings.catch_warnings():
            # the explanation reports it
            warnings.simplefilter("ignore", TemplateOmissionWarning)
            warnings.simplefilter("ignore", SpelledTokenWarning)
            explanations = part.collator.explain_all(row)
            encoders = other.turn_encoders(row) if other is not None else []
            pairs = [
                (found, "") if other is None else _compare(found, other, encoders[place])
                for place, found in enumerate(explanations)
            ]
    except SampleError as error:
        yield InspectedRow(number=number, error=part.shown(str(error)))
        return
    for place, (explanation, note) in enumerate(pairs, 1):
        sample = (place, len(pairs)) if len(pairs) > 1 else None
        yield InspectedRow(number=number, explanation=explanation, note=note, sample=sample)


def _compare(
    explanation: Explanation, other: BaseCollator, encode: Callable[[], EncodedSample]
) -> tuple[Explanation, str]:
    """Compares a sample's label mask with that of another collator; returns a note on it, too."""
    name = type(other.labels).__name__
    try:
        explanation = explanation.compared(encode())
    except SampleError as error:
        return explanation, f"{name} refuses this row: {in_flags(str(error))}"
    here, there = (int((explanation.differences == which).sum()) for which in (1, 2))
    if not here and not there:
        return explanation, f"{name} trains the same tokens"
    return explanation, f"{name} omits {here} trained tokens and trains {there} others"


def pack_rows(
    collator: BaseCollator, rows: Sequence[InspectedRow], max_length: int
) -> list[InspectedPack]:
    """Plans packs of the rows that did not fail.

    Args:
        collator: Packs the samples; encoded them, too.
        rows: The rows.
        max_length: The maximum tokens of a pack.

    Returns:
        The packs. As in training, the first token of each document has no label. A row that is
        longer than `max_length` has a pack of its own.

    Raises:
        ConfigError: The model takes no packs.
    """
    good = [(row, row.explanation) for row in rows if row.explanation is not None]
    lengths = [len(explanation.sample) for _, explanation in good]
    packs = []
    for indices in plan_packs(lengths, max_length=max_length, on_overlong="own_pack"):
        members = [good[i] for i in indices]
        documents = unpack(collator.pack([e.sample for _, e in members]))
        packed = tuple(
            attrs.evolve(row, explanation=explanation.within(document))
            for (row, explanation), document in zip(members, documents, strict=True)
        )
        packs.append(InspectedPack(rows=packed, max_length=max_length))
    return packs
