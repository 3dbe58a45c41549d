"""What a mixture draws."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs


@attrs.frozen(kw_only=True)
class Draw:
    """A draw of a mixture.

    Attributes:
        source: The name of the source.
        index: The number of the row in the source.
        epoch: How often the source was drawn completely before.
    """

    source: str
    index: int
    epoch: int


@attrs.frozen(kw_only=True, eq=False)
class MixtureRow:
    """A row with its source, for a `MixtureCollator`.

    Attributes:
        source: The name of the source.
        index: The number of the row in the source; in the part of a worker or a rank if the source
            distributes its rows itself.
        row: The row.
    """

    STACKED_BY: ClassVar[str] = "the collator that `mixture.collator` makes"

    source: str
    index: int
    row: Any
