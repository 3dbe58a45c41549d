"""Laws of the collator as a value."""

from __future__ import annotations

import pickle
from typing import Any

import attrs
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.testing.laws.subject import Subject
from vlmcollate.testing.laws.telling import failure, same
from vlmcollate.testing.laws.trial import Trial

BAD_OPTIONS: tuple[dict[str, Any], ...] = (
    {"max_length": 0},
    {"max_length": "long"},
    {"max_length": None, "on_overlong": "truncate"},
    {"on_overlong": "shorten"},
    {"turns": "first"},
    {"control_text": "keep"},
    {"stop_tokens": ("no such token",)},
    {"labels": "exact"},
    {"padding": 8},
)


def check_is_frozen(collator: BaseCollator, trial: Trial) -> None:
    """The class has the decorator `@attrs.frozen(kw_only=True, eq=False)` and cannot be changed."""
    del trial
    kind = type(collator)
    if "__attrs_attrs__" not in vars(kind):
        raise failure(
            f"{kind.__name__} has no attrs decorator of its own, so that options declared in it "
            "are none",
            f"put @attrs.frozen(kw_only=True, eq=False) above class {kind.__name__}",
        )
    try:
        collator.processor = collator.processor  # type: ignore[misc]  # has to be refused
    except attrs.exceptions.FrozenInstanceError:
        return
    raise failure(
        f"{kind.__name__} lets its options be changed, which workers that have a copy do not see",
        "use @attrs.frozen instead of @attrs.define",
    )


def check_bad_options_are_refused(collator: BaseCollator, trial: Trial) -> None:
    """Options that cannot be served are refused where the collator is made."""
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
    del trial
    subject = Subject.of(collator)
    messages = subject.chat(images=min(1, subject.images))
    try:
        copied = pickle.loads(pickle.dumps(subject.collator))  # noqa: S301  # made just here
    except Exception as error:  # whatever a field raises
        raise failure(
            f"{type(collator).__name__} cannot be pickled, so no DataLoader worker can have it: "
            f"{error}",
            "keep lambdas, open files and locks out of its options",
        ) from error
    ours, theirs = subject.collator([messages]), copied([messages])
    tensors = [key for key, value in ours.items() if isinstance(value, Tensor)]
    if ours.keys() != theirs.keys() or not same(
        [ours[key] for key in tensors], [theirs[key] for key in tensors]
    ):
        raise failure(
            "a pickled copy gives another batch",
            "keep all that a batch depends on in the collator's options",
            messages=messages,
        )
