"""Laws of the batch as tensors: shapes, padding and shifting.

Shapes: B rows, L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.media import with_float_pixels
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.pixels import dtype_of
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.failure_messages import failure, images_of
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.probes import batch_probes, six_rows
from vlmcollate.testing.laws.rows import split_rows
from vlmcollate.testing.laws.subject import Subject

_AHEAD = ("labels", "loss_weights", "logprobs")
"""The keys whose values a shift takes from the next token."""


def check_the_batch_has_its_keys(collator: BaseCollator, trial: Trial) -> None:
    """The batch has every key, in the declared shape and dtype."""
    subject = Subject.of(collator)
    packs = subject.collator.padding.separates_by is not None

    def check(examples: list[Chat]) -> None:
        samples, batch = _stacked(subject.collator, examples)
        shape = batch["input_ids"].shape
        _check_tensor(batch, "labels", shape, examples)
        _check_tensor(batch, "input_ids", shape, examples)
        if not packs:
            _check_tensor(batch, "attention_mask", shape, examples)
        floats = [with_float_pixels(s, dtype_of(subject.collator.pixels)) for s in samples]
        _check_keys(floats, batch, examples, packs=packs)
        counts = [len(images_of(messages)) for messages in examples]
        found = batch.get("n_images_per_sample")
        if any(counts) and (
            found is None or found.dtype != torch.int64 or found.tolist() != counts
        ):
            raise failure(
                "n_images_per_sample differs from the number of images in each example",
                "leave the counts to BaseCollator, and keep them in the order of the rows",
                messages=examples[0],
                expected=counts,
                found=None if found is None else found.tolist(),
            )

    also = [[subject.chat("Yes"), *_half_weighted(subject)], six_rows(subject)]
    forall(trial, batches(_weighted(subject)), check, also=also)


def check_padding_never_trains(collator: BaseCollator, trial: Trial) -> None:
    """Padding tokens, and only they, are masked and have no label."""
    given = Subject.of(collator)
    plain = attrs.evolve(given.collator, shift_labels=False)
    subject, pad = attrs.evolve(given, collator=plain), given.tokenizer.pad_token_id

    def check(examples: list[Chat]) -> None:
        samples, batch = _stacked(subject.collator, examples)
        real = torch.zeros(batch["input_ids"].shape, dtype=torch.bool)
        marked = split_rows(subject, samples, {**batch, "input_ids": real})
        for row in marked:
            row["input_ids"][:] = True  # views of `real`
        _check_padding(batch, ~real, pad, examples)
        mask = batch.get("attention_mask")
        if isinstance(mask, Tensor) and mask.shape == real.shape:
            expected = torch.zeros(real.shape, dtype=torch.bool)
            rows = split_rows(subject, samples, {**batch, "input_ids": expected})
            for row, sample in zip(rows, samples, strict=True):
                width = len(row["input_ids"])
                row["input_ids"][:] = sample.tokens["attention_mask"][:width] != 0
            if not torch.equal(mask != 0, expected):
                raise failure(
                    "attention_mask does not separate tokens from padding",
                    "pad attention_mask with 0, and do not change the rest of it",
                    expected=expected.sum(dim=1).tolist(),
                    found=(mask != 0).sum(dim=1).tolist(),
                    messages=examples[-1],
                )

    forall(trial, batches(_short(subject), min_size=2), check)


def check_padded_length_is_the_smallest(collator: BaseCollator, trial: Trial) -> None:
    """A batch has the smallest permitted length that holds its rows."""
    subject = Subject.of(collator)
    padding = subject.collator.padding

    def check(examples: list[Chat]) -> None:
        samples, batch = _stacked(subject.collator, examples)
        longest, found = _padded_lengths(subject.collator, samples, batch)
        smallest = next((n for n in range(longest, found + 1) if padding.permits(n)), None)
        announced = padding.padded_length([longest])
        if found == smallest == announced:
            return
        expected: object
        if found != announced:
            problem, expected = "is not padded to padded_length of that row", announced
        elif smallest is None:
            problem = "is padded to a length that is not permitted"
            expected = f"a permitted length of at least {longest}"
        else:
            problem, expected = "is not padded to the smallest permitted length", smallest
        raise failure(
            f"a batch whose longest row has {longest} tokens {problem}",
            "declare the permitted lengths in permits, and return the smallest one that holds the "
            "longest row from padded_length",
            messages=examples[0],
            expected=expected,
            found=found,
        )

    forall(trial, batches(_short(subject)), check, also=batch_probes(subject, "long"))


def _padded_lengths(
    collator: BaseCollator, samples: list[EncodedSample], batch: dict[str, Tensor]
) -> tuple[int, int]:
    """Returns the length of the longest row, before and after padding."""
    lengths = [len(sample) for sample in samples]
    is_flat = len(batch["input_ids"]) < len(samples)
    longest, padded = sum(lengths) if is_flat else max(lengths), batch["input_ids"].shape[1]
    if not collator.shift_labels:
        return longest, padded
    if collator.padding.separates_by is None:  # shifted after padding
        return longest, padded + 1
    return longest - (len(samples) if is_flat else 1), padded  # shifted before padding


def check_shifted_labels_are_the_next(collator: BaseCollator, trial: Trial) -> None:
    """With `shift_labels=True`, each label is that of the next token."""
    subject = Subject.of(collator)
    try:
        shifted = attrs.evolve(subject.collator, shift_labels=True)
    except ConfigError as error:
        raise NotApplicable(str(error)) from error
    plain = attrs.evolve(subject.collator, shift_labels=False)

    def check(examples: list[Chat]) -> None:
        samples, theirs = _stacked(plain, examples)
        ours = shifted.stack(samples)
        rows = split_rows(attrs.evolve(subject, collator=plain), samples, theirs)
        found = split_rows(attrs.evolve(subject, collator=shifted), samples, ours)
        for key in rows[0]:
            for row, tokens in enumerate(rows):
                expected = tokens[key][1:] if key in _AHEAD else tokens[key][:-1]
                if key not in found[row] or not torch.equal(found[row][key], expected):
                    raise failure(
                        f"{key} is not shifted: expected the values of "
                        f"{'the next tokens' if key in _AHEAD else 'all tokens but the last'}",
                        "shift every token-aligned key, once and in stack",
                        messages=examples[row],
                        expected=expected.tolist(),
                        found=found[row][key].tolist() if key in found[row] else ours[key].shape,
                    )

    forall(trial, batches(_weighted(subject)), check, also=[_half_weighted(subject)])


def _stacked(
    collator: BaseCollator, examples: Sequence[Chat]
) -> tuple[list[EncodedSample], dict[str, Tensor]]:
    """Returns the samples and the batch of the examples."""
    return [collator.encode(messages) for messages in examples], collator(examples)


def _short(subject: Subject) -> Any:
    return subject.chats(max_turns=min(2, subject.turns), max_images=min(2, subject.images))


def _weighted(subject: Subject) -> Any:
    return subject.chats(
        max_turns=min(2, subject.turns), max_images=min(2, subject.images), weights=True
    )


def _half_weighted(subject: Subject) -> list[Chat]:
    """Makes a batch of one conversation whose answer has the weight 0.5."""
    messages = subject.chat("No")
    messages[-1]["weight"] = 0.5
    return [messages]


def _check_tensor(
    batch: dict[str, Tensor], key: str, shape: torch.Size, examples: list[Chat]
) -> None:
    found: Any = batch.get(key)
    shown = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else found
    if shown == f"{tuple(shape)} torch.int64" and len(shape) == 2:
        return
    raise failure(
        f"{key} has the wrong shape or dtype",
        "leave stacking to BaseCollator, and do not cast the tensors",
        messages=examples[0],
        expected=f"{tuple(shape)} torch.int64",
        found=shown,
    )


def _check_keys(
    samples: list[EncodedSample], batch: dict[str, Tensor], examples: list[Chat], *, packs: bool
) -> None:
    """Checks the presence, dtype and contiguity of the samples' keys."""
    given = {k: v for sample in samples for k, v in (*sample.tokens.items(), *sample.media.items())}
    for key, value in given.items():
        if key == "attention_mask" and packs:
            continue  # the layout makes its own mask, or none
        found = batch.get(key)
        if found is None or found.dtype != value.dtype or not found.is_contiguous():
            raise failure(
                f"{key} of the samples is missing from the batch, or has the wrong dtype",
                "leave stacking to BaseCollator: keep every key, and do not cast the tensors",
                messages=examples[0],
                expected=f"contiguous {value.dtype}",
                found=None if found is None else found.dtype,
            )


def _check_padding(
    batch: dict[str, Tensor], padding: Tensor, pad: int | None, examples: list[Chat]
) -> None:
    if (batch["labels"][padding] != IGNORE_INDEX).any():
        raise failure(
            "padding is trained",
            "pad labels with -100",
            found=batch["labels"].tolist(),
            messages=examples[-1],
        )
    if pad is not None and (batch["input_ids"][padding] != pad).any():
        raise failure(
            "input_ids is not padded with the tokenizer's pad token",
            "pad input_ids with tokenizer.pad_token_id",
            expected=pad,
            found=batch["input_ids"][padding].tolist(),
            messages=examples[-1],
        )
