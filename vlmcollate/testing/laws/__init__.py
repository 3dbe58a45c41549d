"""The laws: properties of every collator, one function per law."""

from collections.abc import Callable

from vlmcollate.collator import BaseCollator
from vlmcollate.testing.laws import (
    accepted,
    batching,
    choices,
    completeness,
    completions,
    construction,
    embedding,
    exchanges,
    generation,
    item_options,
    labels,
    lengths,
    media,
    objectives,
    packing,
    pixel_formats,
    processor_calls,
    prompts,
    stacking,
    unstacking,
)
from vlmcollate.testing.laws.for_all import LawFailure, NotApplicable, Trial
from vlmcollate.testing.laws.subject import NothingAccepted, Subject

Law = Callable[[BaseCollator, Trial], None]

LAWS: tuple[Law, ...] = tuple(
    law
    for module in (
        accepted,
        construction,
        prompts,
        labels,
        exchanges,
        choices,
        completeness,
        media,
        processor_calls,
        pixel_formats,
        item_options,
        lengths,
        batching,
        stacking,
        unstacking,
        packing,
        generation,
        objectives,
        completions,
        embedding,
    )
    for name, law in vars(module).items()
    if name.startswith("check_") and law.__module__ == module.__name__
)
"""All laws, in the order in which they are checked."""

__all__ = ["LAWS", "Law", "LawFailure", "NotApplicable", "NothingAccepted", "Subject", "Trial"]
