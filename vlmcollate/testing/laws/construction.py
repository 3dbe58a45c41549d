"""Laws of a collator as a value: frozen, validated and picklable."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.testing.another_process import AnotherProcess, another_process, tensors_of
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.failure_messages import equal_tensors, failure
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.probes import probes, six_rows
from vlmcollate.testing.laws.subject import Subject

BAD_OPTIONS: tuple[dict[str, Any], ...] = (
    {"max_length": 0},
    {"max_length": "long"},
    {"max_length": None, "on_overlong": "truncate"},
    {"on_overlong": "shorten"},
    {"train_on": "first_turn"},
    {"special_tokens_in_text": "keep"},
    {"stop_tokens": ("no such token",)},
    {"labels": "exact"},
    {"padding": 8},
)


def check_is_frozen(collator: BaseCollator, trial: Trial) -> None:
    """The options of an instance cannot be changed."""
    del trial
    kind = type(collator)
    try:
        collator.processor = collator.processor  # type: ignore[misc]  # has to raise
    except attrs.exceptions.FrozenInstanceError:
        return
    raise failure(
        f"the options of {kind.__name__} can be changed, but the copies in workers do not change",
        "decorate the class with @attrs.frozen(kw_only=True, eq=False), and do not override "
        "__setattr__",
    )


def check_bad_options_are_refused(collator: BaseCollator, trial: Trial) -> None:
    """Options that cannot be honoured are refused at construction."""
    del trial
    for options in BAD_OPTIONS:
        try:
            attrs.evolve(collator, **options)
        except ConfigError:
            continue
        raise failure(
            f"{type(collator).__name__} accepts invalid options: found {options}, expected a "
            "ConfigError",
            "call super().__attrs_post_init__() in your __attrs_post_init__, and keep the "
            "validators of the options",
        )


def check_a_pickled_copy_agrees(collator: BaseCollator, trial: Trial) -> None:
    """A copy in another process gives the same batch."""
    subject = Subject.of(collator)
    pickled = _pickle(subject.collator)
    plain = [subject.chat("Yes", images=min(1, subject.images))]
    if _differing_keys(tensors_of(subject.collator(plain)), tensors_of(subject.collator(plain))):
        raise NotApplicable("its batches of the same examples differ even in one process")
    few = subject.chats(max_turns=min(2, subject.turns), max_images=min(1, subject.images))
    also = [[messages] for messages in probes(subject, "a video", "an audio clip")]
    with another_process() as process:
        _load(process, pickled, type(collator).__name__)
        forall(
            trial,
            batches(few),
            lambda examples: _check_copy(process, subject.collator, examples),
            also=[*also, six_rows(subject)],
        )


def _pickle(collator: BaseCollator) -> bytes:
    try:
        return pickle.dumps(collator)
    except Exception as error:  # whatever an option raises when it is pickled
        raise failure(
            f"{type(collator).__name__} cannot be pickled, so no DataLoader worker can receive it: "
            f"{error}",
            "keep lambdas, open files and locks out of its options, and define its class at the "
            "top level of a module",
        ) from error


def _load(process: AnotherProcess, pickled: bytes, kind: str) -> None:
    """Unpickles the collator in the other process."""
    reply = process.load(pickled)
    if reply.outcome == "in main":
        raise NotApplicable(
            f"{reply.problem} is defined in __main__, which another process does not import; "
            "define it in a module to check this law"
        )
    if reply.outcome != "returned":
        raise failure(
            f"{kind} cannot be unpickled in another process, so no spawned DataLoader worker "
            f"can receive it: {reply.problem}",
            "define its class and those of its options in modules that can be imported by name",
        )


def _check_copy(process: AnotherProcess, collator: BaseCollator, examples: list[Chat]) -> None:
    """Compares the batch of the copy with the collator's own."""
    expected = tensors_of(collator(examples))
    reply = process.collate(examples)
    copy = "a copy in another process, under another hash seed,"
    if reply.outcome != "returned":
        raise failure(
            f"{copy} raised {reply.problem}",
            "keep everything that a batch depends on in the collator's options, and nothing in "
            "variables of its module",
            messages=examples[0],
        )
    if keys := _differing_keys(expected, reply.tensors):
        raise failure(
            f"{copy} returns a different batch: {', '.join(keys)} differ",
            "keep everything that a batch depends on in the collator's options, and let nothing "
            "depend on the order of a set or on hash()",
            messages=examples[0],
            expected=expected.get(keys[0]),
            found=reply.tensors.get(keys[0]),
        )


def _differing_keys(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Returns the keys whose tensors differ, or that only one batch has."""
    return [
        key
        for key in dict.fromkeys([*one, *other])
        if key not in one or key not in other or not equal_tensors([one[key]], [other[key]])
    ]
