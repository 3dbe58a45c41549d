"""Last turns that lack the end of their generation prompt may be refused, and nothing else is."""

import pytest

from tests.decoding import trained_texts
from tests.processors.published_templates import processor_with
from vlmcollate import TemplateMarkerLabels, collator_for
from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.testing import tiny_processor

LACKS = "the last turn lacks the end of its generation prompt"
HEADER = "<|im_start|>assistant\n"
THINKS = f"{HEADER}<think>\n"


def said(role, words, **more):
    return {"role": role, "content": words, **more}


ONE = [said("user", "First?"), said("assistant", "One")]
TWO = [*ONE, said("user", "Second?"), said("assistant", "Two")]


def chatml(prompt, answer="{{ m.content }}"):
    """Returns a processor whose template prompts and writes answers in its own way."""
    processor = tiny_processor()
    processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        f"{{% if m.role == 'assistant' %}}{answer}{{% else %}}{{{{ m.content }}}}{{% endif %}}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}" + prompt + "{% endif %}"
    )
    new = {"additional_special_tokens": ["<think>", "</think>"]}
    processor.tokenizer.add_special_tokens(new)
    return processor


def trained(processor, chat, **options):
    options = {"off_prompt": "error", "on_template_omission": "allow", **options}
    sample = collator_for(processor, **options).encode(chat)
    return trained_texts(processor.tokenizer, sample.input_ids, sample.labels)


OFF = {
    "a template without a switch": processor_with("deepseek_r1_distill"),
    "a switch that changes the chat": processor_with("gemma4", "templates_axolotl"),
    "words": chatml(f"{HEADER}Here are my steps:\n"),
    "a place for reasoning": chatml(
        THINKS,
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}</think>{% endif %}"
        "{{ m.content }}",
    ),
}
MISSING = {
    "a template without a switch": "<think>",
    "a switch that changes the chat": "<|channel>thought\n<channel|>",
    "words": "Here are my steps:",
    "a place for reasoning": "<think>",
}


@pytest.mark.parametrize("kind", OFF)
def test_a_last_turn_off_its_prompt_is_refused(kind):
    for chat in (ONE, TWO):
        with pytest.raises(LabelError, match=LACKS) as caught:
            trained(OFF[kind], chat)
        assert caught.value.where == f"messages[{len(chat) - 1}]"
        found = repr(chat[-1]["content"]).rstrip("'")
        assert f"found {found}" in str(caught.value)
        assert f"expected {MISSING[kind]!r} before it" in str(caught.value)
        assert 'off_prompt="train"' in str(caught.value)


@pytest.mark.parametrize("kind", OFF)
def test_the_option_trains_it_and_says_so(kind):
    collator = collator_for(OFF[kind], on_template_omission="allow")
    (note,) = [n for n in collator.explain(TWO).turn_notes if n.kind == "off_prompt"]
    assert note.has_last
    assert note.messages == (1, 3)
    assert 'off_prompt="error" refuses such chats' in str(note)
    assert [t.partition("<")[0] for t in trained(OFF[kind], TWO, off_prompt="train")] == [
        *("One", "Two")
    ]


@pytest.mark.parametrize("kind", OFF)
@pytest.mark.parametrize("labels", [None, TemplateMarkerLabels()])
def test_a_last_turn_that_does_not_train_is_served(kind, labels):
    options = {} if labels is None else {"labels": labels}
    weighed = [*TWO[:-1], {**TWO[-1], "weight": 0}]
    assert len(trained(OFF[kind], weighed)) == 1
    chosen = trained(OFF[kind], TWO, train_on=lambda m: m.text == "One", **options)
    assert [text.partition("<")[0] for text in chosen] == ["One"]
    with pytest.raises(LabelError, match=LACKS):
        trained(OFF[kind], TWO, train_on="last_turn", **options)


@pytest.mark.parametrize("kind", OFF)
def test_each_split_turn_is_a_last_one(kind):
    collator = collator_for(
        OFF[kind], on_template_omission="allow", off_prompt="error", split_turns=True
    )
    for encode in collator.turn_encoders(TWO):
        with pytest.raises(LabelError, match=LACKS):
            encode()


@pytest.mark.parametrize("kind", OFF)
def test_a_turn_that_a_question_follows_is_an_earlier_one(kind):
    assert len(trained(OFF[kind], TWO[:-1])) == 1


def test_the_remedies_that_are_named_serve_the_chat():
    with pytest.raises(LabelError, match=r"set template_kwargs=\{'enable_thinking': True\}"):
        trained(OFF["a switch that changes the chat"], ONE)
    options = {"template_kwargs": {"enable_thinking": True}}
    assert trained(OFF["a switch that changes the chat"], ONE, **options) == ["One<turn|>"]
    processor = OFF["a place for reasoning"]
    with pytest.raises(LabelError, match="give the answer its reasoning as 'reasoning_content'"):
        trained(processor, ONE)
    reasoned = [ONE[0], {**ONE[1], "reasoning_content": "So."}]
    assert trained(processor, reasoned) == ["So.</think>One<|im_end|>"]
    with pytest.raises(LabelError) as caught:
        trained(OFF["a template without a switch"], ONE)
    assert "template_kwargs" not in str(caught.value)
    assert "reasoning" not in str(caught.value)


def test_a_value_of_the_switch_that_agrees_is_taken():
    """As GLM 4.7 does, which closes a block that the prompt has not opened."""
    closes = "{{ '</think>' if enable_thinking is defined and not enable_thinking else '<think>' }}"
    processor = chatml(HEADER + closes, "</think>{{ m.content }}")
    assert trained(processor, TWO) == ["One<|im_end|>", "Two<|im_end|>"]
    (note,) = collator_for(processor).explain(TWO).turn_notes
    assert (note.kind, note.detail, note.messages) == ("switch", "enable_thinking=False", (1, 3))
    with pytest.raises(LabelError, match=LACKS):
        trained(processor, TWO, template_kwargs={"enable_thinking": True})


@pytest.mark.parametrize(
    ("processor", "chat", "expected"),
    [
        (chatml(HEADER + "\n "), ONE, "One<|im_end|>"),
        (chatml(THINKS), [ONE[0], said("assistant", "<think>\nSo.</think>One")], None),
        (processor_with("qwen3_5_think"), ONE, "\n</think>\n\nOne<|im_end|>"),
        (processor_with("qwen3"), ONE, "<think>\n\n</think>\n\nOne<|im_end|>"),
        (processor_with("nemotron_3_nano"), ONE, "One<|im_end|>"),
        (processor_with("glm4moe"), ONE, "\n<think></think>\nOne<|user|>"),
    ],
)
def test_what_agrees_is_served(processor, chat, expected):
    (found,) = trained(processor, chat)
    assert found == (expected or "So.</think>One<|im_end|>")


def test_text_without_a_prompt_is_served():
    processor = OFF["a template without a switch"]
    collator = collator_for(processor, format="text", off_prompt="error")
    assert collator.encode({"text": "One"}).labels.max() >= 0


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="off_prompt must be one of"):
        collator_for(tiny_processor(), off_prompt="warn")  # type: ignore[arg-type]  # wrong
