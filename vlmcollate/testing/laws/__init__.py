"""What holds for every collator, one function a law."""

from collections.abc import Callable

from vlmcollate.collator import BaseCollator
from vlmcollate.testing.laws import batching, construction, labels, lengths
from vlmcollate.testing.laws.trial import LawFailure, NotApplicable, Subject, Trial

Law = Callable[[BaseCollator, Trial], None]

LAWS: tuple[Law, ...] = tuple(
    law
    for module in (construction, labels, lengths, batching)
    for name, law in vars(module).items()
    if name.startswith("check_")
)
"""All laws, in the order in which they are tried."""

__all__ = ["LAWS", "Law", "LawFailure", "NotApplicable", "Subject", "Trial"]
