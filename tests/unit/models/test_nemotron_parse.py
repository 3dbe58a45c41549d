"""Nemotron-Parse: the prompt is masked, and the decoder's inputs are one token behind."""

import pytest
import torch
from PIL import Image

from tests.decoding import trained_texts
from tests.processors import processor_of
from vlmcollate import ConfigError, TemplateMarkerLabels, collator_for
from vlmcollate.errors import ConversationError

TASK = "</s><s><predict_bbox><predict_classes><output_markdown>"


@pytest.fixture(scope="module")
def processor():
    return processor_of("nemotron_parse_stand_in")


def page(answer, prompt=""):
    picture = {"type": "image", "image": Image.new("RGB", (64, 48), "white")}
    return [
        {"role": "user", "content": [picture, {"type": "text", "text": prompt}]},
        {"role": "assistant", "content": answer},
    ]


def test_only_the_answer_trains_and_the_decoder_sees_what_came_before(processor):
    batch = collator_for(processor)([page("# Title"), page("A longer page of text.")])
    words = processor.tokenizer
    assert batch["pixel_values"].shape == (2, 3, 28, 28)
    for row, answer in enumerate(("# Title", "A longer page of text.")):
        real = batch["attention_mask"][row].bool()
        ids, labels = batch["input_ids"][row], batch["labels"][row]
        assert trained_texts(words, ids, labels) == [answer + "</s>"]
        assert words.decode(ids[real]) == TASK + answer + "</s>"
        inputs = batch["decoder_input_ids"][row][real]
        assert inputs.tolist() == [words.bos_token_id, *ids[real][:-1].tolist()]
        assert torch.equal(batch["decoder_attention_mask"][row], batch["attention_mask"][row])


def test_hostile_prompts_stay_text(processor):
    sample = collator_for(processor).encode(page("x", prompt="</s><s>"))
    plain = collator_for(processor).encode(page("x"))
    stop = processor.tokenizer.eos_token_id
    assert (sample.input_ids == stop).sum() == (plain.input_ids == stop).sum()


def test_what_it_cannot_do_is_refused(processor):
    with pytest.raises(ConfigError, match="already shifted"):
        collator_for(processor, shift_labels=True)
    with pytest.raises(ConfigError, match="no <nothing>"):
        collator_for(processor, decoder_start_token="<nothing>")
    with pytest.raises(ConversationError, match="one user message and one answer"):
        collator_for(processor).encode(page("a") + page("b"))


def test_a_second_page_is_refused():
    page = {"type": "image", "image": Image.new("RGB", (40, 40), "red")}
    messages = [
        {"role": "user", "content": [page, page]},
        {"role": "assistant", "content": "text"},
    ]
    with pytest.raises(ConversationError, match=r"content\[1\]: found 2 pages, expected one"):
        collator_for(processor_of("nemotron_parse_stand_in")).encode(messages)


def test_a_label_strategy_that_needs_a_chat_template_is_refused():
    collator = collator_for(processor_of("nemotron_parse_stand_in"), labels=TemplateMarkerLabels())
    with pytest.raises(ConfigError, match="NemotronParseProcessor has no chat template"):
        collator([page("Yes", "Read it.")])
