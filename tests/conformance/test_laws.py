"""The laws of the test kit hold for every built-in collator.

Every law is tried on a few families; the others take turns, so that each law is tried on several
families of every kind and each family keeps several laws. Each law has 50 examples on one of three
families, and two on the rest. The law of pickled copies sends a vocabulary to another process for
seconds, so two families stand for all there, and the others are only pickled, in turns. In the
nightly profile every law is tried on every family, with 50 examples.
"""

from __future__ import annotations

import pytest

from tests.conftest import NIGHTLY
from tests.pickling import pickled_copy
from tests.processors.cases import CASES, collator_of, in_turns
from vlmcollate.models import COLLATORS
from vlmcollate.testing import LAWS, check_collator
from vlmcollate.testing.laws.construction import check_a_pickled_copy_agrees

SERVED = [
    name
    for name, case in CASES.items()
    if case.build is not None
    and not {"", *case.kinds} <= {"", *case.error}
    and "" not in case.error
]
WITH_EVERY_LAW = ("Qwen2_5_VLProcessor", "InternVLProcessor")
"""A family with a collator of its own, and one by the default collator."""
WITH_MANY_EXAMPLES = ("Qwen2_5_VLProcessor", "InternVLProcessor", "LlavaProcessor")
"""Families that are fast and unlike each other; each tries a third of the laws on 50 examples."""
OWN = [name for name in SERVED if name in COLLATORS and name not in WITH_EVERY_LAW]
BY_DEFAULT = [name for name in SERVED if name not in COLLATORS and name not in WITH_EVERY_LAW]


def laws_of(name):
    """Returns the laws that are tried on a family: all, or in turn an eighth or a sixteenth."""
    if NIGHTLY or name in WITH_EVERY_LAW:
        return LAWS
    names, step = (OWN, 4) if name in OWN else (BY_DEFAULT, 8)
    round_, place = divmod(names.index(name), step)
    laws = LAWS[place + step * (round_ % 2) :: 2 * step]
    return [law for law in laws if law != check_a_pickled_copy_agrees]


def laws_on_many_examples(name):
    """Returns the laws that are tried on a family with 50 examples in every profile."""
    if name not in WITH_MANY_EXAMPLES:
        return ()
    return LAWS[WITH_MANY_EXAMPLES.index(name) :: len(WITH_MANY_EXAMPLES)]


def check(name, laws, examples):
    report = check_collator(collator_of(name), laws=laws, examples=examples, raise_on_failure=False)
    assert not report.failed, repr(report)


@pytest.mark.parametrize("name", SERVED)
def test_the_laws_hold(name):
    laws = [law for law in laws_of(name) if law not in laws_on_many_examples(name)]
    check(name, laws, 50 if NIGHTLY else 2)


@pytest.mark.parametrize("name", WITH_MANY_EXAMPLES)
def test_the_laws_hold_on_many_examples(name):
    check(name, laws_on_many_examples(name), 50)


@pytest.mark.parametrize("name", in_turns(SERVED, 2))
def test_collators_can_be_pickled(name):
    collator = collator_of(name)
    copy = pickled_copy(collator)
    assert type(copy) is type(collator)
    assert copy.family == collator.family
    assert copy.stop_tokens == collator.stop_tokens


def test_every_law_is_tried_on_families_of_every_kind():
    for names in (OWN, BY_DEFAULT):
        for law in LAWS:
            if not NIGHTLY and law == check_a_pickled_copy_agrees:
                continue
            assert sum(law in laws_of(name) for name in names) >= 2
    assert {law for name in WITH_MANY_EXAMPLES for law in laws_on_many_examples(name)} == {*LAWS}
