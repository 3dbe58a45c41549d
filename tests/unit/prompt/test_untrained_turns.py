"""Turns that do not train need no place where generation would start."""

import pytest

from tests.decoding import trained_texts
from tests.processors.published_templates import processor_with
from vlmcollate import PartWeights, collator_for
from vlmcollate.errors import LabelError
from vlmcollate.testing import tiny_processor

DIFFERS = "does not begin with the generation prompt"


def said(role, words, **more):
    return {"role": role, "content": words, **more}


CHAT = [said("user", "Q"), said("assistant", "one"), said("user", "R"), said("assistant", "two")]


def differing():
    """Returns a processor whose template begins answers unlike its generation prompt."""
    processor = tiny_processor()
    processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    new = {"additional_special_tokens": ["<think>", "</think>"]}
    processor.tokenizer.add_special_tokens(new)
    return processor


def trained(chat, processor=None, **options):
    processor = processor or differing()
    sample = collator_for(processor, **options).encode(chat)
    return trained_texts(processor.tokenizer, sample.input_ids, sample.labels)


def weighted(k, weight=0):
    return [{**m, "weight": weight} if i == k else m for i, m in enumerate(CHAT)]


def test_a_last_turn_of_weight_0_may_differ_from_its_prompt():
    assert trained(weighted(3)) == ["</think>one<|im_end|>"]


def test_so_may_one_that_train_on_leaves_out():
    found = trained(CHAT, train_on=lambda message: message.text == "one")
    assert found == ["</think>one<|im_end|>"]


def test_so_may_the_only_turn():
    assert trained(weighted(1)[:2], require_labels=False) == []


def test_so_may_a_turn_of_a_published_template():
    thought = {**CHAT[1], "reasoning_content": "Hm."}
    chat = [CHAT[0], thought, CHAT[2], {**CHAT[3], "weight": 0}]
    options = {"template_kwargs": {"enable_thinking": True}, "on_template_omission": "allow"}
    found = trained(chat, processor_with("nemotron_3_nano"), **options)
    assert found == ["</think>\none<|im_end|>"]


def test_the_tokens_of_such_a_turn_belong_to_its_message():
    sample = collator_for(differing()).encode(weighted(3))
    assert {1, 3} <= {*sample.message_ids.tolist()}


@pytest.mark.parametrize("train_on", ["all_turns", "last_turn", lambda m: m.text == "two"])
def test_a_turn_that_trains_may_not(train_on):
    with pytest.raises(LabelError, match=DIFFERS):
        trained(CHAT, train_on=train_on)


def test_a_part_with_a_weight_of_its_own_trains():
    parts = [{"type": "text", "text": "two", "weight": 1.0}]
    with pytest.raises(LabelError, match=DIFFERS):
        trained([*CHAT[:3], {**CHAT[3], "content": parts}], train_on=PartWeights(text=0.5))
    assert trained(weighted(3), train_on=PartWeights(text=0.5)) == ["</think>one<|im_end|>"]


def test_the_prompt_of_such_a_turn_is_its_generation_prompt():
    processor = differing()
    ids = collator_for(processor).prompt(weighted(3)).encoded.input_ids
    assert processor.tokenizer.decode(ids).endswith("<|im_start|>assistant\n<think>\n")


def test_an_untrained_turn_needs_no_stop_token():
    processor = tiny_processor()
    processor.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}"
        "<|im_end|>\n{% else %}<|im_start|>assistant\n{{ m.content }}"
        "{% if not loop.last %}<|im_end|>\n{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert trained(weighted(3), processor) == ["one<|im_end|>"]
