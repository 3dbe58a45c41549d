"""Laws of what a collator chooses to train: parts of answers, and samples of single turns."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.media import with_float_pixels
from vlmcollate.collator import BaseCollator
from vlmcollate.encode.train_on import PartWeights
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.laws.exchanges import exchanges
from vlmcollate.testing.laws.failure_messages import failure
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.subject import Subject

_PARTS = ("text", "reasoning", "reasoning_end", "tool_calls")


def check_parts_make_up_answers(collator: BaseCollator, trial: Trial) -> None:
    """The text, the reasoning and the tool calls of answers train all of them, each token once."""
    del trial
    for subject, example, _ in exchanges(collator):
        plain = attrs.evolve(subject.collator, train_on="all_turns", require_labels=False)
        whole = plain.encode(example)
        times = torch.zeros(len(whole), dtype=torch.int64)
        for part in _PARTS:
            alone = PartWeights(**{name: float(name == part) for name in _PARTS})
            sample = attrs.evolve(plain, train_on=alone).encode(example)
            times += sample.labels != IGNORE_INDEX
        if not torch.equal(times, (whole.labels != IGNORE_INDEX).long()):
            raise failure(
                "the parts of answers do not make up the answers",
                "multiply the weights of the turns by those of their parts",
                sample=whole,
                collator=plain,
                found=times.tolist(),
                expected=(whole.labels != IGNORE_INDEX).long().tolist(),
            )


def check_split_turns_are_chats_of_their_own(collator: BaseCollator, trial: Trial) -> None:
    """With `split_turns`, each sample is that of the chat that ends with its turn."""
    subject = Subject.of(collator)
    if subject.turns == 1:
        raise NotApplicable("it accepts only one answer")
    plain = attrs.evolve(subject.collator, require_labels=False)
    split = attrs.evolve(plain, train_on="all_turns", split_turns=True)
    last = attrs.evolve(plain, train_on="last_turn")

    def check(messages: Chat) -> None:
        ends = [k for k, message in enumerate(messages, 1) if message["role"] == "assistant"]
        found = [with_float_pixels(s) for s in split.encode_all(messages)]
        expected = [with_float_pixels(last.encode(messages[:end])) for end in ends]
        differs = first_difference(found, expected)
        if differs is not None:
            raise failure(
                "a sample of a split chat differs from that of the chat that ends with its turn",
                "encode each turn with the messages and the media before it alone",
                messages=messages,
                collator=split,
                found=differs,
                expected=f"{len(expected)} equal samples",
            )

    forall(trial, subject.chats(), check, also=[subject.chat("Yes", "No")])


def first_difference(
    found: Sequence[EncodedSample], expected: Sequence[EncodedSample]
) -> str | None:
    """Returns a description of the first difference, or `None`."""
    if len(found) != len(expected):
        return f"{len(found)} samples"
    for place, (sample, other) in enumerate(zip(found, expected, strict=True)):
        for name in ("tokens", "media"):
            keys, others = getattr(sample, name), getattr(other, name)
            if keys.keys() != others.keys():
                return f"sample {place} with {name} {sorted(keys)}"
            for key, value in keys.items():
                if not _same(value, others[key]):
                    return f"sample {place} with another {key}"
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
