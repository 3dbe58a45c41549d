"""Laws of the batch."""

from __future__ import annotations

import copy
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, EmptyBatchError, MediaMismatchError, SampleError
from vlmcollate.joining import unpack
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.trial import (
    Chat,
    NotApplicable,
    Subject,
    Trial,
    failure,
    forall,
    same,
)


def check_input_is_unchanged(collator: BaseCollator, trial: Trial) -> None:
    """Examples are only read."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        before = copy.deepcopy(messages)
        _collated(subject, [messages])
        if messages != before:
            raise failure(
                "collating changes the example, which the next epoch reads",
                "copy what you change",
                messages=before,
                expected=before,
                found=messages,
            )

    forall(trial, subject.chats(), check)


def check_output_is_deterministic(collator: BaseCollator, trial: Trial) -> None:
    """The same examples give the same batch."""
    subject = Subject.of(collator)

    def check(examples: list[Chat]) -> None:
        one, other = _collated(subject, examples), _collated(subject, examples)
        if one.keys() != other.keys() or not same(list(one.values()), list(other.values())):
            raise failure(
                "the same examples give another batch the second time",
                "draw nothing at random and keep no state in a collator",
                messages=examples[0],
            )

    forall(trial, batches(subject.chats()), check)


def check_rows_do_not_depend_on_neighbours(collator: BaseCollator, trial: Trial) -> None:
    """A row has the tokens and labels that its example has alone."""
    subject = _padded(collator)

    def check(examples: list[Chat]) -> None:
        batch = _collated(subject, examples)
        for row, messages in enumerate(examples):
            alone = _collated(subject, [messages])
            for key in ("input_ids", "labels"):
                ours = batch[key][row][batch["attention_mask"][row] != 0]
                theirs = alone[key][0][alone["attention_mask"][0] != 0]
                if ours.tolist() != theirs.tolist():
                    raise failure(
                        f"row {row} has other {key} in a batch than alone",
                        "let encode do all that depends on one sample, and stack nothing of it",
                        messages=messages,
                        expected=theirs.tolist(),
                        found=ours.tolist(),
                    )

    forall(trial, batches(subject.chats(), min_size=2), check)


def check_permuting_examples_permutes_rows(collator: BaseCollator, trial: Trial) -> None:
    """The rows come in the order of the examples."""
    subject = _padded(collator)

    def check(examples: list[Chat]) -> None:
        forward, back = _collated(subject, examples), _collated(subject, examples[::-1])
        for key in ("input_ids", "labels", "attention_mask"):
            if not torch.equal(forward[key], back[key].flip(0)):
                raise failure(
                    f"{key} of examples in reverse order are not the rows in reverse order",
                    "keep the order of the examples",
                    messages=examples[0],
                    expected=forward[key].tolist(),
                    found=back[key].flip(0).tolist(),
                )

    forall(trial, batches(subject.chats(), min_size=2), check)


def check_padded_length_is_the_smallest(collator: BaseCollator, trial: Trial) -> None:
    """A batch is as long as its longest row, rounded up as the padding says."""
    subject = _padded(collator)
    padding: Any = subject.collator.padding
    fixed, multiple = getattr(padding, "length", None), getattr(padding, "multiple_of", 1)

    def check(examples: list[Chat]) -> None:
        longest = max(len(subject.collator.encode(messages)) for messages in examples)
        expected = fixed or -(-longest // multiple) * multiple
        found = _collated(subject, examples)["input_ids"].shape[1]
        if found != expected:
            raise failure(
                f"a batch whose longest row has {longest} tokens is padded to another length",
                "return the smallest legal length from padded_length",
                messages=examples[0],
                expected=expected,
                found=found,
            )

    forall(trial, batches(subject.chats()), check)


def check_unstacking_returns_the_samples(collator: BaseCollator, trial: Trial) -> None:
    """The rows and the joined media of a batch hold what `encode` gave, and nothing else."""
    subject = _padded(collator)
    whole = attrs.evolve(subject.collator, shift_labels=False, placeholder_media="never")

    def check(examples: list[Chat]) -> None:
        samples = [whole.encode(messages) for messages in examples]
        batch = _collated(attrs.evolve(subject, collator=whole), examples)
        for row, sample in enumerate(samples):
            seen = batch["attention_mask"][row] != 0
            for key, value in sample.tokens.items():
                found = batch[key][row][seen]
                if key == "cross_attention_mask":
                    continue  # padded to the batch's pictures
                if found.shape == value.shape and not torch.equal(found, value):
                    raise failure(
                        f"row {row} of {key} is not what was encoded",
                        "let stack pad, and change nothing",
                        messages=examples[row],
                        expected=value.tolist(),
                        found=found.tolist(),
                    )
        for key in {key for sample in samples for key in sample.media}:
            given = sum(
                sample.media[key].double().sum() for sample in samples if key in sample.media
            )
            if key in batch and not torch.isclose(
                torch.as_tensor(given).double(), batch[key].double().sum(), rtol=1e-3, atol=1e-2
            ):
                joins = type(whole).media_joins
                join: Any = joins.get(key) if hasattr(joins, "get") else None
                if getattr(join, "value", 0) or type(join).__name__.startswith("_"):
                    continue  # a join that adds or moves numbers
                raise failure(
                    f"the batch's {key} does not hold the pixels of its samples",
                    f"declare how {key} joins in media_joins",
                    messages=examples[0],
                    expected=float(given),
                    found=float(batch[key].double().sum()),
                )

    forall(trial, batches(subject.chats()), check)


def check_an_empty_batch_is_refused(collator: BaseCollator, trial: Trial) -> None:
    """No example is an `EmptyBatchError`."""
    del trial
    try:
        found: object = collator([])
    except EmptyBatchError:
        return
    except Exception as error:  # noqa: BLE001  # it is what was found
        found = error
    raise failure(
        "an empty batch is not refused as one",
        "leave empty batches to BaseCollator",
        expected="EmptyBatchError",
        found=found,
    )


def check_a_bad_sample_is_named(collator: BaseCollator, trial: Trial) -> None:
    """A bad example is a `SampleError` with its index."""
    del trial
    subject = Subject.of(collator)
    for index in (0, 1, 2):
        examples: list[Any] = [subject.chat() for _ in range(3)]
        examples[index] = 7
        try:
            found: object = subject.collator(examples)
        except SampleError as error:
            if error.index == index:
                continue
            found = f"index {error.index}"
        except Exception as error:  # noqa: BLE001  # it is what was found
            found = error
        raise failure(
            f"the bad example {index} is not named",
            "raise a SampleError in the stage, and let the collator fill in its index",
            expected=f"index {index}",
            found=found,
        )


def check_shifted_labels_are_the_next(collator: BaseCollator, trial: Trial) -> None:
    """With `shift_labels=True`, each label is that of the next token."""
    subject = _padded(collator)
    try:
        shifted = attrs.evolve(subject.collator, shift_labels=True)
    except ConfigError as error:
        raise NotApplicable(str(error)) from error
    plain = attrs.evolve(subject.collator, shift_labels=False)

    def check(examples: list[Chat]) -> None:
        ours, theirs = shifted(examples)["labels"], plain(examples)["labels"]
        expected = theirs[:, 1:]
        if not torch.equal(ours, expected):
            raise failure(
                "shifted labels are not those of the next tokens",
                "shift once, in stack",
                messages=examples[0],
                expected=expected.tolist(),
                found=ours.tolist(),
            )

    forall(trial, batches(subject.chats()), check)


def check_packed_documents_stay_apart(collator: BaseCollator, trial: Trial) -> None:
    """A pack holds its documents whole, each with its own positions and no label across."""
    subject = Subject.of(collator)
    if collator.no_packs_because:
        raise NotApplicable(collator.no_packs_because)

    def check(examples: list[Chat]) -> None:
        samples = [subject.collator.encode(messages) for messages in examples]
        pack = subject.collator.pack(samples)
        again, start = unpack(pack), 0
        for number, (sample, found) in enumerate(zip(samples, again, strict=True)):
            for key, value in sample.tokens.items():
                expected = value.clone()
                if key in ("labels", "loss_weights"):
                    expected[:1] = IGNORE_INDEX if key == "labels" else 0
                if not torch.equal(found.tokens[key], expected):
                    raise failure(
                        f"document {number} comes out of its pack with other {key}",
                        "let pack join, and change nothing",
                        messages=examples[number],
                        expected=expected.tolist(),
                        found=found.tokens[key].tolist(),
                    )
            positions = pack.tokens["position_ids"][start : start + len(sample)]
            if not torch.equal(positions, subject.collator.position_ids(sample)):
                raise failure(
                    f"the positions of document {number} depend on the others",
                    "let position_ids know one sample",
                    messages=examples[number],
                )
            start += len(sample)
        _check_border(pack, samples)

    forall(trial, batches(subject.chats(), min_size=2), check)


def _check_border(pack: EncodedSample, samples: list[EncodedSample]) -> None:
    start = 0
    for number, sample in enumerate(samples):
        if int(pack.labels[start]) != IGNORE_INDEX:
            raise failure(
                f"the first token of document {number} has a label, which the document before it "
                "would have to predict",
                "leave packing to BaseCollator",
            )
        start += len(sample)


def _padded(collator: BaseCollator) -> Subject:
    subject = Subject.of(collator)
    if subject.collator.padding.keeps_documents_apart:
        raise NotApplicable("its layout has a mask of another shape")
    return subject


def _collated(subject: Subject, examples: list[Chat]) -> dict[str, Tensor]:
    try:
        return subject.collator(examples)
    except MediaMismatchError as error:
        raise NotApplicable(f"its media does not always join: {error}") from error
