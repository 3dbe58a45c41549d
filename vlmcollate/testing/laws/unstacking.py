"""The law that a batch holds its samples, and nothing else.

Shapes: B rows, L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.media import Concatenate, Join, PadAndConcatenate, Stack
from vlmcollate.packing import split_microbatches
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.failure_messages import failure
from vlmcollate.testing.laws.for_all import Chat, LawFailure, Trial, forall
from vlmcollate.testing.laws.probes import batch_probes, six_rows, unequal_images
from vlmcollate.testing.laws.rows import cut
from vlmcollate.testing.laws.subject import Subject


def check_unstacking_returns_the_samples(collator: BaseCollator, trial: Trial) -> None:
    """The rows of a batch hold the tokens and media of its samples."""
    subject = Subject.of(collator)
    whole = attrs.evolve(subject.collator, shift_labels=False)
    plain = attrs.evolve(subject, collator=whole)

    def check(examples: list[Chat]) -> None:
        samples, batch = [whole.encode(messages) for messages in examples], whole(examples)
        rows = cut(plain, samples, batch)
        for row, (sample, found) in enumerate(zip(samples, rows, strict=True)):
            for key in found:
                _check_row(key, row, found[key], sample.tokens.get(key), examples[row])
        for key in dict.fromkeys(key for sample in samples for key in sample.media):
            _check_media(key, whole, samples, batch, examples)

    few = subject.chats(max_turns=min(2, subject.turns), max_images=min(2, subject.images))
    also = [
        *batch_probes(subject, "long", "a video"),
        six_rows(subject),
        *unequal_images(subject),
    ]
    forall(trial, batches(few), check, also=also)


def _check_row(key: str, row: int, found: Tensor, value: Tensor | None, messages: Chat) -> None:
    if value is None:
        return  # another sample's key, such as loss_weights
    inside = found[tuple(slice(size) for size in value.shape)]  # padded to the batch's pictures
    if not torch.equal(inside, value):
        raise failure(
            f"row {row} of {key} is not what was encoded",
            "let stack pad, and change nothing",
            messages=messages,
            expected=value.tolist(),
            found=inside.tolist(),
        )


def _check_media(
    key: str,
    collator: BaseCollator,
    samples: list[EncodedSample],
    batch: dict[str, Tensor],
    examples: list[Chat],
) -> None:
    """Compares one media key with what each sample has of it."""
    join = collator.family.joins[key]
    given = [sample.media.get(key) for sample in samples]
    told: dict[str, Any] = {"messages": examples[0]}
    if key not in batch:
        raise failure(f"the batch has no {key}", "keep every key in stack", **told)
    is_flat = len(batch["input_ids"]) < len(samples)
    if join.rows is None or is_flat or not _is_known(join):
        expected = _joined(join, key, given)
        if expected.shape != batch[key].shape or not torch.equal(batch[key], expected):
            raise _other_media(key, "the batch", expected, batch[key], told)
        return
    for row, (value, part) in enumerate(
        zip(given, _parts(key, collator, batch, told), strict=True)
    ):
        _check_part(key, join, f"row {row}", value, part, {"messages": examples[row]})


_KNOWN = (Concatenate, PadAndConcatenate, Stack)


def _is_known(join: Join) -> bool:
    """Whether a rule says what one of the library's does, and declares no other joining."""
    return any(
        isinstance(join, kind)
        and type(join).join is kind.join
        and type(join).fill_missing is kind.fill_missing
        for kind in _KNOWN
    )


def _joined(join: Join, key: str, given: Sequence[Tensor | None]) -> Tensor:
    """What the samples' tensors are together, by what the rule says and not by what it does.

    Only a rule that declares a joining of its own is asked for it.
    """
    held = [value for value in given if value is not None]
    if not _is_known(join):
        filled = [join.fill_missing(held[0]) if value is None else value for value in given]
        return join([value for value in filled if value is not None], key=key)
    if isinstance(join, Concatenate):
        return torch.cat(held, dim=join.axis)
    if isinstance(join, Stack):
        return torch.stack(held)
    assert isinstance(join, PadAndConcatenate)  # noqa: S101  # the last that is known
    tail = [max(sizes) for sizes in zip(*(value.shape[1:] for value in held), strict=True)]
    rows = []
    for value in given:
        if value is not None or join.every_sample:
            row = held[0].new_full((1 if value is None else len(value), *tail), join.value)
            if value is not None:
                row[tuple(slice(size) for size in value.shape)] = value
            rows.append(row)
    return torch.cat(rows)


def _parts(
    key: str, collator: BaseCollator, batch: dict[str, Tensor], told: dict[str, Any]
) -> list[Tensor | None]:
    """What each row has of a media key, by the counts in the batch."""
    joins = {k: rule for k, rule in collator.family.joins.items() if rule.rows is not None}
    counts = {k: v for k, v in batch.items() if k.startswith("n_") and k.endswith("_per_sample")}
    media = {k: batch[k] for k in joins if k in batch}
    cut_batch = {"input_ids": batch["input_ids"], **counts, **media}
    try:
        parts = split_microbatches(cut_batch, len(batch["input_ids"]), items=joins)
    except (ConfigError, RuntimeError) as error:
        raise failure(
            f"the batch cannot be cut into rows by what it says of {key}",
            f"keep the counts of pictures and the grids with their rows, and declare in "
            f"media_joins by what the rows of {key} count",
            found=error,
            **told,
        ) from error
    return [part.get(key) for part in parts]


def _check_part(
    key: str,
    join: Join,
    where: str,
    value: Tensor | None,
    part: Tensor | None,
    told: dict[str, Any],
) -> None:
    if part is None:
        if value is not None:
            raise _other_media(key, where, value, None, told)
        return
    padding = torch.ones(part.shape, dtype=torch.bool)
    if value is not None:
        value = value[None] if isinstance(join, Stack) else value
        inside = tuple(slice(size) for size in value.shape)
        if len(part) != len(value) or not torch.equal(part[inside], value):
            raise _other_media(key, where, value, part, told)
        padding[inside] = False
    fill = getattr(join, "value", None)
    if padding.any() and (fill is None or (part[padding] != fill).any()):
        raise failure(
            f"the padding of {key} in {where} does not hold {fill}",
            f"declare what {key} is padded with in media_joins",
            **told,
        )


def _other_media(
    key: str, where: str, expected: Tensor, found: Tensor | None, told: dict[str, Any]
) -> LawFailure:
    return failure(
        f"{where} does not hold the {key} of its samples, in their order",
        f"let stack join {key} as media_joins says, and change nothing",
        expected=f"{tuple(expected.shape)} beginning with {expected.flatten()[:4].tolist()}",
        found=None
        if found is None
        else f"{tuple(found.shape)} beginning with {found.flatten()[:4].tolist()}",
        **told,
    )
