"""The law of batches for models that embed conversations.

Shapes: R rows.
"""

from __future__ import annotations

from typing import Any

import attrs

from vlmcollate.batch.media import with_float_pixels
from vlmcollate.collator import BaseCollator
from vlmcollate.objectives import EmbeddingCollator
from vlmcollate.sample import OF_LABELS, EncodedSample
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.alone import check_rows_are
from vlmcollate.testing.laws.choices import first_difference
from vlmcollate.testing.laws.failure_messages import failure
from vlmcollate.testing.laws.for_all import Chat, Trial, forall
from vlmcollate.testing.laws.generation import rows_of_inputs
from vlmcollate.testing.laws.packing import short_chats
from vlmcollate.testing.laws.subject import Subject


def check_embedded_inputs_are_encoded_as_alone(collator: BaseCollator, trial: Trial) -> None:
    """Each anchor, positive and negative is the row of its own chat, and none of them trains."""
    subject = rows_of_inputs(Subject.of(collator))
    embed = EmbeddingCollator(subject.collator)

    def check(examples: list[Chat]) -> None:
        rows = [_row(examples, number) for number in range(len(examples))]
        groups = [embed.encode(row) for row in rows]
        alone = [_alone(subject.collator, messages) for messages in examples]
        for messages, group, (question, answered) in zip(examples, groups, alone, strict=True):
            differs = first_difference(
                [with_float_pixels(group.anchor), with_float_pixels(group.positive)],
                [with_float_pixels(question), with_float_pixels(answered)],
            )
            if differs is not None:
                raise failure(
                    "an input of an embedding differs from its chat alone",
                    "encode each conversation from its own messages, and prompts with all media",
                    messages=messages,
                    found=differs,
                    expected="an anchor and a positive that are equal to them",
                )
        batch = embed.stack(groups)
        inputs = _inputs(examples, alone)
        _check_batch(batch, [group for group, _, _ in inputs], examples[0])
        check_rows_are(subject, batch, [s for _, s, _ in inputs], [c for _, _, c in inputs])

    forall(trial, batches(short_chats(subject), min_size=2), check)


def _row(examples: list[Chat], number: int) -> dict[str, Any]:
    """Returns a question as the anchor of its answer; those of the examples before are negative."""
    questions = [messages[:-1] for messages in examples]
    return {
        "anchor": questions[number],
        "positive": examples[number],
        "negatives": questions[:number],
    }


def _alone(collator: BaseCollator, messages: Chat) -> tuple[EncodedSample, EncodedSample]:
    """Returns the samples of a question, and of the question with its answer."""
    whole = collator.encode(messages)
    question = collator.prompt(messages[:-1]).encoded
    tables = whole.pixel_tables  # an answer holds no media
    return attrs.evolve(question, media=whole.media, pixel_tables=tables), whole


def _inputs(
    examples: list[Chat], alone: list[tuple[EncodedSample, EncodedSample]]
) -> list[tuple[int, EncodedSample, Chat]]:
    """Returns the group, the sample and the conversation of each row."""
    numbers = range(len(examples))
    anchors = [(k, alone[k][0], examples[k][:-1]) for k in numbers]
    positives = [(k, alone[k][1], examples[k]) for k in numbers]
    return anchors + positives + [(k, *anchors[other][1:]) for k in numbers for other in range(k)]


def _check_batch(batch: dict[str, Any], groups: list[int], messages: Chat) -> None:
    """Checks the groups of the rows, and that none has labels."""
    found = batch["group_ids"].tolist()
    labels = sorted(OF_LABELS & batch.keys())
    if found != groups or labels:
        raise failure(
            "a batch of embeddings has labels, or its rows have other groups",
            "leave stack to BaseCollator",
            messages=messages,
            found=labels or found,
            expected=groups,
        )
