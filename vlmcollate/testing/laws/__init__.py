"""What holds for every collator, one function a law."""

from collections.abc import Callable

from vlmcollate.collator import BaseCollator
from vlmcollate.testing.laws import (
    batching,
    construction,
    exchanges,
    labels,
    lengths,
    media,
    packing,
    processor_calls,
    prompts,
    stacking,
    taking,
    unstacking,
)
from vlmcollate.testing.laws.for_all import LawFailure, NotApplicable, Trial
from vlmcollate.testing.laws.subject import NothingTaken, Subject

Law = Callable[[BaseCollator, Trial], None]

LAWS: tuple[Law, ...] = tuple(
    law
    for module in (
        taking,
        construction,
        prompts,
        labels,
        exchanges,
        media,
        processor_calls,
        lengths,
        batching,
        stacking,
        unstacking,
        packing,
    )
    for name, law in vars(module).items()
    if name.startswith("check_") and law.__module__ == module.__name__
)
"""All laws, in the order in which they are tried."""

__all__ = ["LAWS", "Law", "LawFailure", "NotApplicable", "NothingTaken", "Subject", "Trial"]
