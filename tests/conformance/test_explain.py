"""Explanations of every family: the sample is that of `encode`, and the tokens are the prompt."""

from __future__ import annotations

import pytest
import torch
import transformers

from tests.measuring import chat
from tests.processors.cases import CASES
from vlmcollate import collator_for
from vlmcollate.cli.families import support_table

TABLE = support_table()
KINDS = {row.processor: row.media for row in TABLE.processors}


@pytest.mark.parametrize("name", [row.processor for row in TABLE.processors if row.media])
def test_every_token_has_its_place(name):
    case = CASES[name]
    try:
        processor = case.processor()
    except (ImportError, AttributeError) as error:
        if TABLE.transformers == transformers.__version__:
            raise
        pytest.skip(str(error))
    collator = collator_for(processor, **case.options)
    example = chat(KINDS[name][0])
    sample = collator.encode(example)
    found = collator.explain(example)
    assert torch.equal(found.sample.input_ids, sample.input_ids)
    assert torch.equal(found.sample.labels, sample.labels)
    for token in found.tokens:
        if token.offset is not None and token.kind != "media":
            assert token.text == "" or token.text.strip() in found.prompt
    trained = "".join(token.text for token in found.tokens if token.kind == "trained")
    assert trained.lstrip().startswith("A cat on a mat.")
    assert sum(item.tokens for item in found.media) == int((sample.media_ids >= 0).sum())
    assert sum(block.end - block.start for block in found.blocks) == len(sample)
    assert found.blocks[-1].role == "assistant"
    placed = [t for t in found.tokens if t.offset is not None and t.kind != "media" and t.text]
    pieces = [(t.offset or 0, (t.offset or 0) + len(t.text)) for t in placed]
    assert all(a[0] <= b[0] for a, b in zip(pieces, pieces[1:], strict=False))
