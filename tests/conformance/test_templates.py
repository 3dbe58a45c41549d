"""Real chat templates of many makes, and what the model has to write after each's own prompt."""

import re

import pytest

from tests.assets import chat_template
from tests.decoding import trained_texts
from tests.processors import qwen3_vl
from vlmcollate import LabelError, collator_for

CHAT = [
    {"role": "user", "content": "First?"},
    {"role": "assistant", "content": "One"},
    {"role": "user", "content": "Second?"},
    {"role": "assistant", "content": "Two"},
]
CONTROL = re.compile(r"<\|?[\w▁｜/]+\|?>|<｜[^｜>]*｜>|\[/?[A-Z_]+\]")


def processor_with(template):
    """A real processor with another template, and that template's tokens in its tokenizer."""
    processor = qwen3_vl()
    processor.chat_template = chat_template(template)
    tokens = dict.fromkeys(CONTROL.findall(processor.chat_template))
    known = processor.tokenizer.get_vocab()
    processor.tokenizer.add_special_tokens(
        {"additional_special_tokens": [t for t in tokens if t not in known]}
    )
    processor.tokenizer.bos_token = "<|endoftext|>"
    return processor


def trained(template, stop, messages=CHAT, **options):
    processor = processor_with(template)
    sample = collator_for(processor, stop_tokens=stop, **options).encode(messages)
    return trained_texts(processor.tokenizer, sample.input_ids, sample.labels)


@pytest.mark.parametrize(
    ("template", "stop", "expected"),
    [
        ("cohere", "<|END_OF_TURN_TOKEN|>", ["One", "Two"]),
        ("deepseekv3", "<｜end▁of▁sentence｜>", ["One", "Two"]),
        ("gemma", "<end_of_turn>", ["One", "Two"]),
        ("gemma4", "<turn|>", ["One", "Two"]),
        ("lfm2_2_5_vl", "<|im_end|>", ["One", "Two"]),
        ("llama3_2", "<|eot_id|>", ["One", "Two"]),
        ("phi3_5", "<|end|>", ["One", "Two"]),
        ("qwen3_instruct_2507", "<|im_end|>", ["One", "Two"]),
        # the user's turn closes with [/INST], so the space behind it is the model's to write
        ("llava_next", "</s>", [" One", " Two"]),
        # only the last turn has a think block, and nothing has opened it
        ("qwen3", "<|im_end|>", ["One", "<think>\n\n</think>\n\nTwo"]),
        # it is opened by the prompt
        ("qwen3_5_think", "<|im_end|>", ["One", "\n</think>\n\nTwo"]),
    ],
)
def test_the_answer_and_its_end(template, stop, expected):
    assert trained(template, stop) == [text + stop for text in expected]


def test_a_prompt_that_ends_with_the_role_leaves_the_channel_to_the_model():
    start = "<|channel|>final<|message|>"
    found = trained("gptoss", ["<|end|>", "<|return|>"])
    assert found == [f"{start}One<|end|>", f"{start}Two<|return|>"]


@pytest.mark.parametrize("template", ["glm4moe", "muse_glimmer"])
def test_a_template_whose_turns_nothing_ends_is_refused(template):
    with pytest.raises(LabelError, match=r"nothing ends this turn.*stop_tokens"):
        trained(template, ())


def test_a_turn_unlike_its_prompt_is_refused_until_the_variable_fits():
    with pytest.raises(LabelError, match="unlike its generation prompt"):
        trained("nemotron_3_nano", "<|im_end|>", CHAT[:2])
    fitting = trained(
        "nemotron_3_nano", "<|im_end|>", CHAT[:2], template_kwargs={"enable_thinking": False}
    )
    assert fitting == ["One<|im_end|>"]
