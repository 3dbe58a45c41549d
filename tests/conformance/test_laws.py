"""The laws of the test kit hold for every built-in collator."""

from __future__ import annotations

import pytest

from tests.processors.cases import CASES
from vlmcollate import collator_for
from vlmcollate.testing import check_collator

SERVED = [
    name
    for name, case in CASES.items()
    if case.build is not None
    and not {"", *case.kinds} <= {"", *case.error}
    and "" not in case.error
]


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # some processors sum tensors with numpy
@pytest.mark.parametrize("name", SERVED)
def test_the_laws_hold(name):
    case = CASES[name]
    try:
        processor = case.processor()
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this transformers has no {name}: {error}")
    report = check_collator(
        collator_for(processor, **case.options), examples=2, raise_on_failure=False
    )
    assert not report.failed, repr(report)
