"""Laws of the collator as a value."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.testing.another_process import another_process, tensors_of
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.failure_messages import failure, same
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
        collator.processor = collator.processor  # type: ignore[misc]  # has to be refused
    except attrs.exceptions.FrozenInstanceError:
        return
    raise failure(
        f"{kind.__name__} lets its options be changed, which workers that have a copy do not see",
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
            f"{type(collator).__name__} takes {options}, which no collator can serve",
            "call super().__attrs_post_init__() in yours, and keep the options' validators",
        )


def check_a_pickled_copy_agrees(collator: BaseCollator, trial: Trial) -> None:
    """A copy in another process gives the same batch."""
    subject = Subject.of(collator)
    kind = type(collator).__name__
    try:
        pickled = pickle.dumps(subject.collator)
    except Exception as error:  # whatever a field raises
        raise failure(
            f"{kind} cannot be pickled, so no DataLoader worker can have it: {error}",
            "keep lambdas, open files and locks out of its options, and define its class at the "
            "top of a module",
        ) from error
    plain = [subject.chat("Yes", images=min(1, subject.images))]
    if _others(tensors_of(subject.collator(plain)), tensors_of(subject.collator(plain))):
        raise NotApplicable("it gives another batch each time, even here")
    with another_process() as process:
        found = process.load(pickled)
        if found.outcome == "in main":
            raise NotApplicable(
                f"{found.problem} is defined in __main__, which another process does not import; "
                "define it in a module to have this tried"
            )
        if found.outcome != "given":
            raise failure(
                f"{kind} cannot be unpickled in another process, so no spawned DataLoader worker "
                f"can have it: {found.problem}",
                "define its class and those of its options in modules that can be imported by name",
            )

        def check(examples: list[Chat]) -> None:
            ours = tensors_of(subject.collator(examples))
            theirs = process.collate(examples)
            which = "a copy in another process, under another hash seed,"
            if theirs.outcome != "given":
                raise failure(
                    f"{which} raises {theirs.problem}",
                    "keep all that a batch depends on in the collator's options, and nothing in "
                    "variables of its module",
                    messages=examples[0],
                )
            if keys := _others(ours, theirs.tensors):
                raise failure(
                    f"{which} gives another batch, with other {', '.join(keys)}",
                    "keep all that a batch depends on in the collator's options, and let nothing "
                    "depend on the order of a set or on hash()",
                    messages=examples[0],
                    expected=ours.get(keys[0]),
                    found=theirs.tensors.get(keys[0]),
                )

        few = subject.chats(max_turns=min(2, subject.turns), max_images=min(1, subject.images))
        also = [[messages] for messages in probes(subject, "a video", "a sound")]
        forall(trial, batches(few), check, also=[*also, six_rows(subject)])


def _others(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """The keys under which two batches differ."""
    return [
        key
        for key in dict.fromkeys([*ours, *theirs])
        if key not in ours or key not in theirs or not same([ours[key]], [theirs[key]])
    ]
