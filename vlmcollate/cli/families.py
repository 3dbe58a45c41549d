"""Which processors of transformers are served, and how well: what a test run has shown.

The rows are data. `tests/conformance/test_families.py` collates with every processor and compares
what came out with them, and `scripts/write_families_table.py` writes them anew.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Literal

import attrs

Support = Literal["exact", "exact with options", "refused", "not proven"]


@attrs.frozen(kw_only=True)
class Family:
    """What is known of a processor class.

    Attributes:
        processor: The name of the class.
        collator: The name of the collator that `collator_for` gives; empty where it gives none.
        support: Whether exactly the answers train, with media in the prompt.
        media: The kinds of media with which that was shown.
        shown_on: What stood in for a checkpoint's own files.
        note: The option to set, or why something is refused.
    """

    processor: str
    collator: str
    support: Support
    media: tuple[str, ...]
    shown_on: str
    note: str


@attrs.frozen
class FamilyTable:
    """The result of a test run.

    Attributes:
        transformers: The release of transformers that it ran with.
        families: The processor classes, by name.
    """

    transformers: str
    families: tuple[Family, ...]


@cache
def family_table() -> FamilyTable:
    """The table that this release of vlmcollate was tested with."""
    found = json.loads(files(__package__).joinpath("families.json").read_text(encoding="utf-8"))
    rows = (Family(**{**row, "media": tuple(row["media"])}) for row in found["families"])
    return FamilyTable(found["transformers"], tuple(rows))
