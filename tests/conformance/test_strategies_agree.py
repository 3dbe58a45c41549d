"""Label strategies train the same on published templates, or say that they do not apply."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.conftest import NIGHTLY
from tests.decoding import trained_texts
from tests.template_corpus import CHATS, Judge, templates
from vlmcollate import PrefixMaskLabels, TemplateMarkerLabels, TextSearchLabels
from vlmcollate.errors import CollateError, LabelError, SampleError

TEMPLATES = [
    "trl/deepseekv3",
    "trl/gptoss",
    "trl/llama3_2",
    "trl/nemotron_3_5_lightning",
    "trl/nemotron_3_nano",
    "trl/qwen3",
    "trl/qwen3_5_nothink_training",
    "unsloth/gemma-4",
    "unsloth/gemma4_empty_thought",
]
PLAIN = ["one turn", "system and three turns"]


def samples(template, strategy, chats=tuple(CHATS)):
    """The samples of both strategies for the chats that neither refuses."""
    text = templates()[template]
    usual, other = Judge(text).collator, Judge(text, {"labels": strategy})
    for name in chats:
        row = other.row(name, "strings")
        try:
            yield name, usual.encode(row), other.collator.encode(row)
        except CollateError:  # of the template, or of the strategy
            continue


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("template", TEMPLATES)
def test_markers_train_what_is_followed_through_the_template(template):
    chats = [name for name in CHATS if "image" not in name]
    found = [*samples(template, TemplateMarkerLabels(), chats)]
    assert {*PLAIN} <= {name for name, _, _ in found}
    for name, usual, other in found:
        assert other.labels.tolist() == usual.labels.tolist(), name


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("template", "key"), [("trl/gptoss", "thinking"), ("unsloth/gemma-4", "reasoning_content")]
)
def test_markers_that_reasoning_hides_are_not_used_for_it(template, key):
    judge = Judge(templates()[template], {"labels": TemplateMarkerLabels()})
    answer = {"role": "assistant", "content": "Numbat one", key: "Thinkish"}
    with pytest.raises(LabelError, match=r"messages\[1\]: no marker .* with reasoning"):
        judge.collator.encode([{"role": "user", "content": "Quokka?"}, answer])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_search_for_words_trains_nothing_else(template):
    found = [*samples(template, TextSearchLabels(), PLAIN)]
    assert found
    for _, usual, other in found:
        trained = other.labels != -100
        assert other.labels[trained].tolist() == usual.labels[trained].tolist()


_FUNCTION = {"name": "lookup", "arguments": {"place": "Bern"}}
_OMITTED = [
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": _FUNCTION}],
    },
    {"role": "assistant", "content": "", "reasoning_content": "Thinkish"},
]
_ASKED, _ANSWER = {"role": "user", "content": "Quokka?"}, {"role": "assistant", "content": "Numbat"}
WITHOUT_CALLS = [name for name, text in templates().items() if "tool_calls" not in text]


@pytest.mark.parametrize("strategy", [TemplateMarkerLabels(), PrefixMaskLabels()], ids=repr)
@pytest.mark.parametrize("template", WITHOUT_CALLS if NIGHTLY else WITHOUT_CALLS[::4])
def test_no_strategy_trains_an_answer_that_the_template_omits(template, strategy):
    """Not even its end, which may be all that the template writes of it."""
    options = {"on_template_omission": "allow", "on_unread": "allow", "require_labels": False}
    judge = Judge(templates()[template], options)
    other = Judge(templates()[template], {**options, "labels": strategy})
    for omitted in _OMITTED:
        turn = [_ASKED, omitted]
        for chat in (turn, [*turn, _ASKED, _ANSWER], [_ASKED, _ANSWER, *turn], [*turn, *turn]):
            with suppress(SampleError):
                usual = judge.collator.encode(chat)
                with suppress(LabelError):
                    found = other.collator.encode(chat)
                    assert found.labels.tolist() == usual.labels.tolist()


@pytest.mark.parametrize("omitted", _OMITTED)
def test_an_answer_that_the_template_omits_is_no_reason_to_refuse_others(omitted):
    options = {"on_template_omission": "allow", "labels": TemplateMarkerLabels()}
    judge = Judge(templates()["axolotl/chatml"], options)
    sample = judge.collator.encode([_ASKED, omitted, _ASKED, _ANSWER])
    trained = trained_texts(judge.processor.tokenizer, sample.input_ids, sample.labels)
    assert trained == ["Numbat<|im_end|>"]


def test_a_marker_holds_no_words_of_a_question():
    judge = Judge(templates()["mistral-common/v2"], {"labels": TemplateMarkerLabels()})
    with pytest.raises(LabelError, match="no marker distinguishes the template's assistant turns"):
        judge.collator.encode(judge.row("one turn", "strings"))
