"""The law that a batch holds its samples and nothing else.

Shapes: B rows, L a sample's tokens.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.media import Join, Stack
from vlmcollate.packing import split_microbatches
from vlmcollate.pixels import dtype_of
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.alone import check_row_is
from vlmcollate.testing.laws.failure_messages import failure
from vlmcollate.testing.laws.for_all import Chat, LawFailure, Trial, forall
from vlmcollate.testing.laws.joins import is_built_in, join_by_definition
from vlmcollate.testing.laws.probes import batch_probes, six_rows, unequal_images
from vlmcollate.testing.laws.rows import split_rows
from vlmcollate.testing.laws.subject import Subject


def check_unstacking_returns_the_samples(collator: BaseCollator, trial: Trial) -> None:
    """The rows of a batch hold the tokens and media of its samples."""
    subject = Subject.of(collator)
    whole = attrs.evolve(subject.collator, shift_labels=False)
    plain = attrs.evolve(subject, collator=whole)

    def check(examples: list[Chat]) -> None:
        samples, batch = [whole.encode(messages) for messages in examples], whole(examples)
        rows = split_rows(plain, samples, batch)
        for row, (sample, found) in enumerate(zip(samples, rows, strict=True)):
            for key in found:
                check_row_is(key, row, found[key], sample.tokens.get(key), examples[row])
        for key in dict.fromkeys(key for sample in samples for key in sample.media):
            _check_media(key, whole, samples, batch, examples)

    few = subject.chats(max_turns=min(2, subject.turns), max_images=min(2, subject.images))
    also = [
        *batch_probes(subject, "long", "a video"),
        six_rows(subject),
        *unequal_images(subject),
    ]
    forall(trial, batches(few), check, also=also)


def _check_media(
    key: str,
    collator: BaseCollator,
    samples: list[EncodedSample],
    batch: dict[str, Tensor],
    examples: list[Chat],
) -> None:
    """Compares one media key of the batch with the tensors of the samples."""
    join = collator.family.joins[key]
    dtype = dtype_of(collator.pixels)
    values = [s.pixels(key, dtype) if key in s.media else None for s in samples]
    context: dict[str, Any] = {"messages": examples[0]}
    if key not in batch:
        raise failure(f"{key} is missing from the batch", "keep every key in stack", **context)
    is_flat = len(batch["input_ids"]) < len(samples)
    if join.rows is None or is_flat or not is_built_in(join):
        expected = join_by_definition(join, key, values)
        if expected.shape != batch[key].shape or not torch.equal(batch[key], expected):
            raise _media_failure(key, "the batch", expected, batch[key], context)
        return
    for row, (value, part) in enumerate(
        zip(values, _parts(key, collator, batch, context), strict=True)
    ):
        _check_part(key, join, f"row {row}", value, part, {"messages": examples[row]})


def _parts(
    key: str, collator: BaseCollator, batch: dict[str, Tensor], context: dict[str, Any]
) -> list[Tensor | None]:
    """Splits a media key into rows by the counts in the batch."""
    joins = {k: rule for k, rule in collator.family.joins.items() if rule.rows is not None}
    counts = {k: v for k, v in batch.items() if k.startswith("n_") and k.endswith("_per_sample")}
    media = {k: batch[k] for k in joins if k in batch}
    cut_batch = {"input_ids": batch["input_ids"], **counts, **media}
    try:
        parts = split_microbatches(cut_batch, len(batch["input_ids"]), items=joins)
    except (ConfigError, RuntimeError) as error:
        raise failure(
            f"{key} cannot be split into rows by the counts in the batch",
            f"keep the counts and grids in the order of the rows, and declare the rows of {key} in "
            f"the joins of the family",
            found=error,
            **context,
        ) from error
    return [part.get(key) for part in parts]


def _check_part(
    key: str,
    join: Join,
    where: str,
    value: Tensor | None,
    part: Tensor | None,
    context: dict[str, Any],
) -> None:
    if part is None:
        if value is not None:
            raise _media_failure(key, where, value, None, context)
        return
    padding = torch.ones(part.shape, dtype=torch.bool)
    if value is not None:
        value = value[None] if isinstance(join, Stack) else value
        inside = tuple(slice(size) for size in value.shape)
        if len(part) != len(value) or not torch.equal(part[inside], value):
            raise _media_failure(key, where, value, part, context)
        padding[inside] = False
    fill = getattr(join, "value", None)
    if padding.any() and (fill is None or (part[padding] != fill).any()):
        raise failure(
            f"the padding of {key} in {where} is wrong: expected {fill}",
            f"declare the padding value of {key} in the joins of the family",
            **context,
        )


def _media_failure(
    key: str, where: str, expected: Tensor, found: Tensor | None, context: dict[str, Any]
) -> LawFailure:
    return failure(
        f"{key} of {where} differs from that of its samples",
        f"let stack join {key} as the joins of the family declare",
        expected=f"{tuple(expected.shape)} beginning with {expected.flatten()[:4].tolist()}",
        found=None
        if found is None
        else f"{tuple(found.shape)} beginning with {found.flatten()[:4].tolist()}",
        **context,
    )
