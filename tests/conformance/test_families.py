"""Every row of the table of families is what collating with the real processor shows."""

from __future__ import annotations

import re

import pytest
import transformers

from tests.decoding import trained_texts
from tests.measuring import chat, measure, processors_of_transformers
from tests.processors import processor_of, with_template
from tests.processors.cases import CASES, LEFT_OUT, in_turns
from tests.processors.llava import LLAVA_STAND_IN
from tests.processors.template_stand_ins import turns
from vlmcollate import collator_for
from vlmcollate.cli.families import support_table
from vlmcollate.errors import LabelError
from vlmcollate.formats import read_example
from vlmcollate.models import COLLATORS

TABLE = support_table()
ROWS = {row.processor: row for row in TABLE.processors}
SAME_RELEASE = TABLE.transformers == transformers.__version__


@pytest.mark.parametrize("name", in_turns(list(CASES), 1, step=4))
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
    processor = with_template("llava_next", LLAVA_STAND_IN)
    with pytest.raises(LabelError, match="this turn has no stop token"):
        collator_for(processor).encode(chat("image"))


@pytest.mark.parametrize("behind", [" ", "</s>"])
def test_llavas_answers_end_as_the_model_was_trained(behind):
    """The published template leaves them open; one that ends them itself adds no second end."""
    processor = processor_of("llava")
    if behind == "</s>":
        processor = with_template(
            "llava", turns("USER: {} ", "ASSISTANT: {}</s>", "ASSISTANT:", "<image>\n")
        )
    collator = collator_for(processor, stop_tokens=["</s>"])
    conversation = read_example(chat("image", answers=("A cat.", "\nYes ")))

    rendered = collator.render(conversation).text
    sample = collator.encode(chat("image", answers=("A cat.", "\nYes ")))

    between = behind.replace(" ", "</s> ")
    assert rendered == (
        f"USER: <image>\nWhat is this? ASSISTANT: A cat.{between}"
        f"USER: What is this? ASSISTANT: \nYes {between}"
    )
    found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    assert found == [" A cat.</s>", " \nYes </s>"]
