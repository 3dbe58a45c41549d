"""Which special tokens a message's text makes, and which it only spells."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.processors import build, processor_of
from tests.processors.published_templates import processor_with
from vlmcollate import ConfigError, collator_for
from vlmcollate.errors import ConversationError
from vlmcollate.testing import check_collator
from vlmcollate.testing.laws.prompts import check_special_tokens_in_text

_TEXT = "{% for part in m.content %}{{ part.text }}{% endfor %}"
_KIMI = (
    "{% for m in messages %}"
    "{% if m.role == 'user' %}<|im_user|>user<|im_middle|>"
    "{% elif m.role == 'assistant' %}<|im_assistant|>assistant<|im_middle|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{% else %}<|im_system|>{{ m.role }}<|im_middle|>{% endif %}"
    f"{_TEXT}"
    "{% for call in m.tool_calls or [] %}<|tool_call_begin|>{{ call.function.name }}"
    "<|tool_call_end|>{% endfor %}"
    "<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}"
)
_NEMOTRON = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and '</think>' not in m.content[0].text %}"
    "<think></think>{% endif %}"
    f"{_TEXT}{{{{ '<|im_end|>\n' }}}}{{% endfor %}}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think></think>' }}{% endif %}"
)
_SPECIAL = {
    "kimi": (
        _KIMI,
        "<|im_user|> <|im_assistant|> <|im_middle|> <|im_system|> <think> </think>"
        " <|tool_call_begin|> <|tool_call_end|>",
    ),
    "nemotron": (_NEMOTRON, "<think> </think>"),
}


@cache
def _processor(name):
    """A real tokenizer that declares special what the template writes."""
    processor = build("qwen3_vl")
    processor.chat_template, tokens = _SPECIAL[name]
    processor.tokenizer.add_special_tokens(
        {"additional_special_tokens": tokens.split()}, replace_extra_special_tokens=False
    )
    return processor


def _chat(question, answer, **more):
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, **more},
    ]


def _count(processor, example, token, **options):
    """How many of a token are in a sample, and how many of them train."""
    sample = collator_for(processor, **options).encode(example)
    known = processor.tokenizer.convert_tokens_to_ids(token)
    return int((sample.input_ids == known).sum()), int((sample.labels == known).sum())


@pytest.mark.parametrize("name", _SPECIAL)
def test_thinking_declared_special_stays_a_token_in_answers_alone(name):
    processor = _processor(name)
    answer = "<think>so</think>yes"
    assert _count(processor, _chat("q", answer), "<think>") == (1, 1)
    hostile = [
        {"role": "system", "content": answer},
        *_chat(answer, "so"),
        *_chat(answer, answer),
    ]
    plain = [{"role": "system", "content": "s"}, *_chat("q", "so"), *_chat("q", answer)]
    expected = _count(processor, plain, "<think>")
    assert _count(processor, hostile, "<think>") == expected
    with pytest.raises(ConversationError, match="'<think>'"):
        collator_for(processor, special_tokens_in_text="error").encode(hostile)


@pytest.mark.parametrize("token", ["<|im_user|>", "<|im_middle|>", "<|im_system|>", "<|im_end|>"])
def test_no_answer_writes_the_token_of_a_role(token):
    processor = _processor("kimi")
    spelled = _chat("q", f"a{token}b", reasoning_content=f"r{token}")
    assert _count(processor, spelled, token) == _count(
        processor, _chat("q", "ab", reasoning_content="r"), token
    )


def test_tokens_of_calls_are_an_answers_own():
    processor = _processor("kimi")
    assert _count(processor, _chat("q", "<|tool_call_begin|>f"), "<|tool_call_begin|>") == (1, 1)
    assert _count(processor, _chat("<|tool_call_begin|>f", "a"), "<|tool_call_begin|>") == (0, 0)


@pytest.mark.parametrize(
    ("template", "stops", "structure", "answers"),
    [
        ("gptoss", ["<|end|>", "<|return|>"], "<|start|> <|message|> <|call|>", "<|channel|>"),
        (
            "glm4moe",
            ["<|user|>"],
            "<|assistant|> <|observation|> <|system|>",
            "<think> <tool_call>",
        ),
        ("phi3_5", ["<|end|>"], "<|assistant|> <|user|> <|system|>", ""),
        ("deepseekv3", [], "<｜Assistant｜> <｜User｜>", "<think> <｜tool▁calls▁begin｜>"),
        ("gemma4", ["<turn|>"], "<|turn> <|tool_response>", "<|channel> <|tool_call>"),
    ],
)
def test_what_public_templates_show(template, stops, structure, answers):
    """All are declared special here, so nothing but the template tells one from the other."""
    found = collator_for(processor_with(template), stop_tokens=stops).renderer.structure
    assert found.tokens >= set(structure.split())
    assert found.written >= set(answers.split())


_SOLUTION = (
    "{% set first = 'Write <think> Thought </think> and the solution.' %}"
    "{% if messages[0].role == 'system' %}{% set first = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}<|im_start|>system<|im_sep|>{{ first }}<|im_end|>"
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
_COMMENT = _SOLUTION.replace("Write <think> Thought </think> and the solution.", "Solve.")
_COMMENT = "{# what '</think>' and\n<think> end #}" + _COMMENT


@pytest.mark.parametrize("template", [_SOLUTION, _COMMENT], ids=["description", "comment"])
def test_a_mention_in_a_comment_or_a_description_is_no_structure(template):
    processor = build("qwen3_vl")
    processor.chat_template = template
    tokens = ["<|im_sep|>", "<think>", "</think>"]
    processor.tokenizer.add_special_tokens(
        {"additional_special_tokens": tokens}, replace_extra_special_tokens=False
    )
    chat = _chat("q", "<think>\nso\n</think>\n\na")
    sample = collator_for(processor).encode(chat)
    text = processor.apply_chat_template(chat, tokenize=False)
    own = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert sample.input_ids.tolist() == own
    asked = _chat("<think>", "a")
    assert _count(processor, asked, "<think>") == (int(template is _SOLUTION), 0)
    with pytest.raises(ConfigError, match="open or close turns"):
        collator_for(processor, allowed_special_tokens=["<|im_sep|>"])


def test_a_token_that_no_probe_chat_shows_is_allowed_by_its_name():
    processor = build("qwen2_5_vl")
    box = "<|box_start|>"
    processor.chat_template = f"{{% if tools %}}{box}{{% endif %}}{processor.chat_template}"
    chat = _chat(box, box)
    assert _count(processor, chat, box) == (0, 0)
    assert _count(processor, chat, box, allowed_special_tokens=[box]) == (2, 1)
    (warning,) = {w for w in collator_for(processor).explain(chat).warnings if "[1]" in w}
    assert f"set allowed_special_tokens=['{box}']" in warning


def test_allowed_tokens_are_made_from_all_text():
    processor = processor_of("qwen3_vl")
    box = "<|box_start|>"
    allowed = {"allowed_special_tokens": [box]}
    asked = [{"role": "system", "content": box}, *_chat(box, box)]
    assert _count(processor, asked, box) == (1, 1)
    assert _count(processor, asked, box, **allowed) == (3, 1)
    assert _count(processor, asked, box, special_tokens_in_text="error", **allowed) == (3, 1)
    with pytest.raises(ConversationError, match="box_start"):
        collator_for(processor, special_tokens_in_text="error").encode(asked)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("<|im_start|>", "open or close turns"),
        ("<|image_pad|>", "stand for media"),
        ("<tool_call>", "written by the chat template"),
        ("<no such>", "not added tokens"),
        ("cat", "not added tokens"),
        ("", "non-empty strings"),
    ],
)
def test_a_token_that_cannot_be_allowed_is_refused(token, reason):
    with pytest.raises(ConfigError, match=f"allowed_special_tokens.*{reason}"):
        collator_for(processor_of("qwen3_vl"), allowed_special_tokens=[token])


def test_the_law_of_control_text_knows_what_is_allowed():
    collator = collator_for(_processor("kimi"), allowed_special_tokens=["<|box_start|>"])
    assert not check_collator(collator, examples=15, laws=[check_special_tokens_in_text]).failed


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("smolvlm", "<row_1_col_1>"),
        ("smolvlm", "<row_6_col_5>"),  # of a larger image than any other test has
        ("idefics3", "<row_2_col_3>"),
        ("glm4v", "<|begin_of_image|>"),
    ],
)
def test_no_text_writes_a_token_that_only_media_expands_to(name, token):
    processor = processor_of(name)
    assert processor.tokenizer.convert_tokens_to_ids(token) is not None
    asked = [{"role": "system", "content": token}, *_chat(f"q {token}", f"a {token} b{token}")]
    assert _count(processor, asked, token) == (0, 0)
    with pytest.raises(ConversationError, match=re.escape(token)):
        collator_for(processor, special_tokens_in_text="error").encode(_chat("q", token))
    with pytest.raises(ConfigError, match="stand for media"):
        collator_for(processor, allowed_special_tokens=[token])


def test_tokens_of_media_are_read_off_the_processor_once(monkeypatch):
    collator = collator_for(processor_of("smolvlm"))
    calls = []
    replacement = type(collator)._replacement  # the one place that expands media for no sample

    def counted(collator, kind, item):
        calls.append(kind)
        return replacement(collator, kind, item)

    monkeypatch.setattr(type(collator), "_replacement", counted)
    collator.encode(_chat("q <row_1_col_1>", "plain"))
    assert not calls
    for _ in range(3):
        collator.encode(_chat("q", "<row_1_col_1>"))
    assert sorted(calls) == ["image", "video"]
