"""Laws of examples and their batch: what is read, what is repeated, what is refused."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import EmptyBatchError, SampleError
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.failure_messages import failure, media_of, parts_of, same
from vlmcollate.testing.laws.for_all import Chat, LawFailure, Trial, forall, root_of
from vlmcollate.testing.laws.probes import six_rows
from vlmcollate.testing.laws.rows import rows_of
from vlmcollate.testing.laws.subject import Subject


def check_every_form_says_the_same(collator: BaseCollator, trial: Trial) -> None:
    """Every example format gives the same sample."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        expected = subject.collator.encode(messages)
        for name, example in _forms(messages).items():
            try:
                found = subject.collator.encode(example)
            except Exception as error:
                raise _refused(name, messages, error) from error
            if found.tokens.keys() != expected.tokens.keys() or not same(
                list(found.tokens.values()), list(expected.tokens.values())
            ):
                raise failure(
                    f"{name} gives another sample than the list of messages",
                    "let `read` call vlmcollate.formats.read_example",
                    messages=messages,
                    sample=found,
                    collator=subject.collator,
                )

    forall(trial, _short_chats(subject), check)


def check_output_is_deterministic(collator: BaseCollator, trial: Trial) -> None:
    """The same examples give an equal batch in separate memory."""
    subject = Subject.of(collator)

    def check(examples: list[Chat]) -> None:
        one, other = subject.collator(examples), subject.collator(examples)
        tensors = [key for key in one if isinstance(one[key], Tensor) and one[key].numel()]
        told: dict[str, Any] = {"messages": examples[0]}
        if one.keys() != other.keys() or not same(
            [one[key] for key in tensors], [other[key] for key in tensors]
        ):
            raise failure(
                "the same examples give another batch the second time",
                "draw nothing at random and keep no state in a collator",
                **told,
            )
        shared = [key for key in tensors if one[key].data_ptr() == other[key].data_ptr()]
        if shared:
            raise failure(
                f"{shared[0]} of the second batch is the memory of the first one's, which a "
                "trainer may still hold",
                "make new tensors for each batch",
                **told,
            )

    forall(trial, batches(_short_chats(subject)), check)


def check_rows_do_not_depend_on_neighbours(collator: BaseCollator, trial: Trial) -> None:
    """A row does not depend on the other rows of the batch."""
    subject = Subject.of(collator)

    def check(examples: list[Chat]) -> None:
        together = rows_of(subject, examples, subject.collator(examples))
        for row, messages in enumerate(examples):
            (alone,) = rows_of(subject, [messages], subject.collator([messages]))
            for key in ("input_ids", "labels"):
                if not torch.equal(together[row][key], alone[key]):
                    raise failure(
                        f"row {row} has other {key} in a batch than alone",
                        "let encode do all that depends on one sample, and stack nothing of it",
                        messages=messages,
                        expected=alone[key].tolist(),
                        found=together[row][key].tolist(),
                    )

    forall(trial, batches(_short_chats(subject), min_size=2), check, also=[six_rows(subject)])


def check_permuting_examples_permutes_rows(collator: BaseCollator, trial: Trial) -> None:
    """The rows follow the order of the examples."""
    subject = Subject.of(collator)

    def check(examples: list[Chat]) -> None:
        forward = rows_of(subject, examples, subject.collator(examples))
        turned = examples[::-1]
        back = rows_of(subject, turned, subject.collator(turned))[::-1]
        for row, (ours, theirs) in enumerate(zip(forward, back, strict=True)):
            for key in ("input_ids", "labels"):
                if not torch.equal(ours[key], theirs[key]):
                    raise failure(
                        f"{key} of examples in reverse order are not the rows in reverse order",
                        "keep the order of the examples",
                        messages=examples[row],
                        expected=ours[key].tolist(),
                        found=theirs[key].tolist(),
                    )

    forall(trial, batches(_short_chats(subject), min_size=2), check, also=[six_rows(subject)])


def check_an_empty_batch_is_refused(collator: BaseCollator, trial: Trial) -> None:
    """An empty batch raises `EmptyBatchError`."""
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
    """A bad example raises a `SampleError` with its index."""
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


def _short_chats(subject: Subject) -> st.SearchStrategy[Chat]:
    return subject.chats(max_turns=min(2, subject.turns), max_images=min(1, subject.images))


def _refused(form: str, messages: Chat, error: Exception) -> LawFailure:
    told = failure(
        f"{form} is refused, though the list of messages is taken: {error}",
        "let `read` call vlmcollate.formats.read_example",
        messages=messages,
    )
    told.root = root_of(error)
    return told


def _forms(messages: Chat) -> dict[str, Any]:
    """The same conversation in other forms."""
    pictures = [p["image"] for m in messages for p in media_of(m) if p["type"] == "image"]
    bare = [
        {**m, "content": [p if p["type"] == "text" else {"type": p["type"]} for p in parts_of(m)]}
        for m in messages
    ]
    strings = [m if media_of(m) else {**m, "content": parts_of(m)[0]["text"]} for m in messages]
    return {
        "a dict with `messages`": {"messages": messages},
        "content as strings": strings,
        "content as parts": [{**m, "content": parts_of(m)} for m in messages],
        "a dict with `images`": {"messages": bare, **({"images": pictures} if pictures else {})},
    }
