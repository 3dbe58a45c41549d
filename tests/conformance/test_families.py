"""Every row of the table of families is what collating with the real processor shows."""

from __future__ import annotations

import re

import pytest
import transformers

from tests.families import CASES, LEFT_OUT
from tests.measuring import chat, measure, processors_of_transformers
from tests.more_processors import _turns, llava
from vlmcollate import LabelError, collator_for
from vlmcollate.families import family_table
from vlmcollate.models import COLLATORS

TABLE = family_table()
ROWS = {row.processor: row for row in TABLE.families}
SAME_RELEASE = TABLE.transformers == transformers.__version__


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # some processors sum tensors with numpy
@pytest.mark.parametrize("name", CASES)
def test_a_row_is_what_a_run_shows(name):
    """With another release of transformers a row may differ, but no wrong token trains."""
    try:
        found = measure(name, CASES[name])
    except (ImportError, AttributeError) as error:
        if SAME_RELEASE:
            raise
        pytest.skip(str(error))
    if SAME_RELEASE:
        assert ROWS[name] == found.row, "run scripts/write_families_table.py"
        for kind, refusal in found.errors.items():
            reason = CASES[name].error.get(kind) or CASES[name].error[""]
            assert re.search(reason, str(refusal))


def test_the_table_has_every_processor_and_every_collator():
    assert set(ROWS) == set(CASES)
    assert not set(CASES) & set(LEFT_OUT)
    for processor, collator in COLLATORS.items():
        assert ROWS[processor].collator == collator.__name__
    if SAME_RELEASE:
        assert processors_of_transformers() - set(LEFT_OUT) <= set(CASES)


def test_a_template_that_ends_no_answer_is_refused():
    """LLaVA 1.5's is such a one: turns are words, with a space behind them."""
    processor = llava()
    processor.chat_template = _turns("USER: {} ", "ASSISTANT: {} ", "ASSISTANT:", "<image>\n")
    with pytest.raises(LabelError, match="nothing ends this turn"):
        collator_for(processor).encode(chat("image"))


def test_a_stop_token_that_nobody_named_is_refused():
    with pytest.raises(LabelError, match="name the token that ends a turn"):
        collator_for(llava()).encode(chat("image"))
