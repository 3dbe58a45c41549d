"""Laws of examples and their batch: formats, determinism, the order of rows, and refusals."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import EmptyBatchError, SampleError
from vlmcollate.formats import read_example
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.failure_messages import (
    equal_tensors,
    failure,
    images_of,
    media_of,
    parts_of,
)
from vlmcollate.testing.laws.for_all import Chat, LawFailure, Trial, forall, root_of
from vlmcollate.testing.laws.probes import six_rows
from vlmcollate.testing.laws.rows import rows_of
from vlmcollate.testing.laws.subject import Subject


def check_formats_agree(collator: BaseCollator, trial: Trial) -> None:
    """Every example format gives the same sample."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        expected, prompt = subject.collator.encode(messages), _prompt(subject, messages)
        for name, example in _formats(messages).items():
            if _prompt(subject, example) != prompt:
                continue  # the template writes a string and a list of parts differently
            try:
                found = subject.collator.encode(example)
            except Exception as error:
                raise _refusal(name, messages, error) from error
            if found.tokens.keys() != expected.tokens.keys() or not equal_tensors(
                list(found.tokens.values()), list(expected.tokens.values())
            ):
                raise failure(
                    f"{name} does not give the same sample as the list of messages",
                    "let `read` call vlmcollate.formats.read_example",
                    messages=messages,
                    sample=found,
                    collator=subject.collator,
                )

    forall(trial, _short_chats(subject), check)


def _prompt(subject: Subject, example: object) -> str:
    return subject.collator.render(read_example(example)).text


def check_output_is_deterministic(collator: BaseCollator, trial: Trial) -> None:
    """The same examples give an equal batch in separate memory."""
    subject = Subject.of(collator)

    def check(examples: list[Chat]) -> None:
        one, other = subject.collator(examples), subject.collator(examples)
        tensors = [key for key in one if isinstance(one[key], Tensor) and one[key].numel()]
        context: dict[str, Any] = {"messages": examples[0]}
        if one.keys() != other.keys() or not equal_tensors(
            [one[key] for key in tensors], [other[key] for key in tensors]
        ):
            raise failure(
                "the batches of two calls with the same examples differ",
                "draw nothing at random and keep no state in a collator",
                **context,
            )
        shared = [key for key in tensors if one[key].data_ptr() == other[key].data_ptr()]
        if shared:
            raise failure(
                f"{shared[0]} of two batches shares its memory, and the trainer may still use the "
                "first batch",
                "make new tensors for each batch",
                **context,
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
                        f"{key} of row {row} depends on the other rows of the batch",
                        "compute what depends on one sample in encode, and nothing of it in stack",
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
        reverse = examples[::-1]
        back = rows_of(subject, reverse, subject.collator(reverse))[::-1]
        for row, (ours, theirs) in enumerate(zip(forward, back, strict=True)):
            for key in ("input_ids", "labels"):
                if not torch.equal(ours[key], theirs[key]):
                    raise failure(
                        f"{key} of the reversed examples are not the reversed rows",
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
    except Exception as error:  # noqa: BLE001  # reported as what was found
        found = error
    raise failure(
        "an empty batch is not refused with an EmptyBatchError",
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
        except Exception as error:  # noqa: BLE001  # reported as what was found
            found = error
        raise failure(
            f"the error does not name the bad example {index}",
            "raise a SampleError in the stage, and let BaseCollator set its index",
            expected=f"index {index}",
            found=found,
        )


def _short_chats(subject: Subject) -> st.SearchStrategy[Chat]:
    return subject.chats(max_turns=min(2, subject.turns), max_images=min(1, subject.images))


def _refusal(name: str, messages: Chat, error: Exception) -> LawFailure:
    refusal = failure(
        f"{name} is refused, but the list of messages is accepted: {error}",
        "let `read` call vlmcollate.formats.read_example",
        messages=messages,
    )
    refusal.root = root_of(error)
    return refusal


def _formats(messages: Chat) -> dict[str, Any]:
    """Returns the same conversation in other formats."""
    images = images_of(messages)
    bare = [
        {**m, "content": [p if p["type"] == "text" else {"type": p["type"]} for p in parts_of(m)]}
        for m in messages
    ]
    strings = [m if media_of(m) else {**m, "content": parts_of(m)[0]["text"]} for m in messages]
    return {
        "a dict with `messages`": {"messages": messages},
        "content as strings": strings,
        "content as parts": [{**m, "content": parts_of(m)} for m in messages],
        "a dict with `images`": {"messages": bare, **({"images": images} if images else {})},
    }
