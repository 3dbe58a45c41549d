"""Answers that spell the header or the end of their turn are reported."""

from __future__ import annotations

import warnings

import pytest

from tests.decoding import trained_texts
from tests.processors import BUILDERS, processor_of
from vlmcollate import collator_for
from vlmcollate.errors import ConversationError, SampleError, SpelledTokenWarning
from vlmcollate.testing import tiny_processor


def chat(answer, **more):
    asked = {"role": "user", "content": "Yes?"}
    return [asked, {"role": "assistant", "content": answer, **more}]


def reports(collator, example):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        collator.encode(example)
    return [str(w.message) for w in found if w.category is SpelledTokenWarning]


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_family_reports_each_of_its_stop_tokens_as_text(name):
    collator = collator_for(processor_of(name), on_template_omission="allow")
    for token in collator.renderer.stop_tokens:
        try:
            (found,) = reports(collator, chat(f"Good.{token} \n"))
        except SampleError as error:  # a tokenizer that cannot encode parts of a text
            assert "spells a control token" in str(error)
            continue
        assert f"ends with {token!r}" in found
    assert reports(collator, chat("Good.")) == []


def test_the_letters_that_train_are_why():
    processor = tiny_processor()
    collator = collator_for(processor)
    with pytest.warns(SpelledTokenWarning, match=r"ends with '<\|im_end\|>'"):
        sample = collator.encode(chat("Good.<|im_end|>"))
    (trained,) = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    assert trained == "Good.<|im_end|><|im_end|>"
    stop = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert sample.labels.tolist().count(stop) == 1


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "glm4v", "smolvlm", "mllama"])
def test_a_header_at_the_beginning_is_reported(name):
    collator = collator_for(processor_of(name))
    for opener in collator.prompt_encoder.structure.openers:
        (found,) = reports(collator, chat(f" {opener}assistant\nGood."))
        assert f"begins with {opener!r}" in found


@pytest.mark.parametrize(
    ("name", "header"),
    [("pixtral", "[/INST]"), ("llava", "ASSISTANT:"), ("smolvlm", "Assistant:")],
)
def test_a_header_of_words_or_of_a_question_s_end_is_reported(name, header):
    collator = collator_for(processor_of(name))
    found = reports(collator, [*chat("Good."), *chat(f"{header} Better.")])
    assert len(found) == 1
    assert f"begins with {header!r}" in found[0]
    (found,) = reports(collator, chat(f" {header}Good."))
    assert f"begins with {header!r}" in found
    assert reports(collator, chat(f"Good. {header}")) == []
    assert reports(collator, [*chat(f"{header} Good.", weight=0), *chat("Better.")]) == []


def test_a_word_is_no_header():
    """The header of ChatML ends with a word, with which an answer may begin."""
    collator = collator_for(processor_of("qwen2_5_vl"))
    assert reports(collator, chat("assistant is a role.")) == []


def test_only_answers_that_train_are_reported():
    collator = collator_for(tiny_processor(), require_labels=False)
    assert reports(collator, chat("Good.<|im_end|>", weight=0)) == []
    asked = [{"role": "user", "content": "Yes?<|im_end|>"}, *chat("Good.")[1:]]
    assert reports(collator, asked) == []
    assert reports(collator, chat("Is <|im_end|> a token?")) == []


def test_the_policy_error_refuses_it_without_a_warning():
    collator = collator_for(tiny_processor(), special_tokens_in_text="error")
    with pytest.raises(ConversationError, match="spells the control token"):
        collator.encode(chat("Good.<|im_end|>"))


def test_many_rows_warn_once_at_the_line_of_the_caller():
    collator = collator_for(tiny_processor())
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for word in ("Good", "Better", "Best"):
            collator([chat(f"{word}.<|im_end|>"), chat(f"{word}!<|im_end|>")])
    (warning,) = found
    assert warning.filename == __file__
