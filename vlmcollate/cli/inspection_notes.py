"""Notes on the turns of inspected rows, each once for all rows that it concerns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from vlmcollate.cli.inspection import InspectedRow


@attrs.define
class _Concerned:
    """The rows that a note concerns: the first one, the last one, and their number."""

    first: str
    last: tuple[str, int]
    count: int = 1


@attrs.define
class RowNotes:
    """Takes the notes on turns out of rows, and counts the rows that they concern.

    Attributes:
        found: The rows of each note, which is what is unusual and what changes it.
    """

    found: dict[tuple[str, str], _Concerned] = attrs.field(factory=dict)

    def taken_from(self, rows: Iterable[InspectedRow]) -> Iterator[InspectedRow]:
        """Yields the rows without these notes."""
        for row in rows:
            yield self._taken(row)

    def _taken(self, row: InspectedRow) -> InspectedRow:
        explanation = row.explanation
        if explanation is None or not explanation.turn_notes:
            return row
        key = row.source, row.number
        for note in explanation.turn_notes:
            concerned = self.found.setdefault(
                (note.summary, note.remedy), _Concerned(first=row.title, last=key)
            )
            concerned.count += concerned.last != key
            concerned.last = key
        own = {str(note) for note in explanation.turn_notes}
        rest = tuple(warning for warning in explanation.warnings if warning not in own)
        return attrs.evolve(row, explanation=attrs.evolve(explanation, warnings=rest))

    def lines(self, total: int) -> list[str]:
        """Returns one sentence for each note.

        Args:
            total: The number of all rows.
        """
        return [
            f"{fact} (in {concerned.count} of {total} rows, first in {concerned.first}); {remedy}"
            for (fact, remedy), concerned in self.found.items()
        ]
