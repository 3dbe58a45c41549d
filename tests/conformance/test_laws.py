"""The laws of the test kit hold for every built-in collator.

Every law is tried on a few families; the others take turns, so that each law is tried on several
families of every kind and each family keeps several laws. In the nightly profile every law is
tried on every family.
"""

from __future__ import annotations

import pytest

from tests.conftest import NIGHTLY
from tests.processors.cases import CASES
from vlmcollate import collator_for
from vlmcollate.models import COLLATORS
from vlmcollate.testing import LAWS, check_collator

SERVED = [
    name
    for name, case in CASES.items()
    if case.build is not None
    and not {"", *case.kinds} <= {"", *case.error}
    and "" not in case.error
]
WITH_EVERY_LAW = {
    "Qwen2_5_VLProcessor",
    "SmolVLMProcessor",
    "Phi4MMProcessor",  # remote code
    "InternVLProcessor",  # by the default collator
    "Gemma3Processor",
}
"""Families on which every law is tried."""
OWN = [name for name in SERVED if name in COLLATORS and name not in WITH_EVERY_LAW]
BY_DEFAULT = [name for name in SERVED if name not in COLLATORS and name not in WITH_EVERY_LAW]


def laws_of(name):
    """Returns the laws that are tried on a family: all, or in turn a quarter or an eighth."""
    if NIGHTLY or name in WITH_EVERY_LAW:
        return LAWS
    names, step = (OWN, 4) if name in OWN else (BY_DEFAULT, 8)
    return LAWS[names.index(name) % step :: step]


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # some processors sum tensors with numpy
@pytest.mark.parametrize("name", SERVED)
def test_the_laws_hold(name):
    case = CASES[name]
    try:
        processor = case.processor()
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this transformers has no {name}: {error}")
    report = check_collator(
        collator_for(processor, **case.options),
        laws=laws_of(name),
        examples=50 if NIGHTLY else 2,
        raise_on_failure=False,
    )
    assert not report.failed, repr(report)


def test_every_law_is_tried_on_families_of_every_kind():
    for names in (OWN, BY_DEFAULT):
        for law in LAWS:
            assert sum(law in laws_of(name) for name in names) >= 4
