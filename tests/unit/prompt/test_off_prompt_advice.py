"""The refusal of a turn that differs from its prompt names what serves it, and nothing else."""

import pytest

from tests.processors.published_templates import processor_with
from vlmcollate import collator_for
from vlmcollate.errors import LabelError
from vlmcollate.testing import tiny_processor

CHAT = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "one"}]
THINKS = "<|im_start|>assistant\n<think>\n"
TEMPLATE = "use a chat template whose turns and prompt agree"


def differing(quiet="", before=""):
    """Returns a processor whose prompt agrees with its answers if a condition holds."""
    asked = THINKS
    if quiet:
        bare = "<|im_start|>assistant\n<think></think>"
        asked = f"{{% if {quiet} %}}{bare}{{% else %}}{THINKS}{{% endif %}}"
    processor = tiny_processor()
    processor.chat_template = before + (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}" + asked + "{% endif %}"
    )
    new = {"additional_special_tokens": ["<think>", "</think>"]}
    processor.tokenizer.add_special_tokens(new)
    return processor


def refusal(processor, chat=CHAT, **options):
    collator = collator_for(processor, **options)
    with pytest.raises(LabelError, match="does not begin with the generation prompt") as caught:
        collator.encode(chat)
    return str(caught.value)


def test_a_variable_that_the_template_does_not_read_is_not_advised():
    message = refusal(differing())
    assert message.endswith(f"; {TEMPLATE}")
    assert "enable_thinking" not in message


@pytest.mark.parametrize(
    ("condition", "variables"),
    [
        ("think_mode is defined and not think_mode", {"think_mode": False}),
        ("thinking_budget is defined and thinking_budget == 0", {"thinking_budget": 0}),
        ("not reasoning_on|default(true)", {"reasoning_on": False}),
    ],
)
def test_the_variable_that_serves_it_is_named_with_its_value(condition, variables):
    processor = differing(condition)
    assert f"; set template_kwargs={variables!r} or {TEMPLATE}" in refusal(processor)
    assert collator_for(processor, template_kwargs=variables).encode(CHAT)


def test_a_variable_that_changes_the_chat_is_advised_as_well():
    condition = "enable_thinking is defined and not enable_thinking"
    before = f"{{% if {condition} %}}<|im_start|>system\n/no_think<|im_end|>\n{{% endif %}}"
    processor = differing(condition, before)
    assert "set template_kwargs={'enable_thinking': False}" in refusal(processor)


def test_reasoning_and_the_value_that_the_user_set_otherwise_are_named():
    nemotron, thinks = processor_with("nemotron_3_nano"), {"enable_thinking": True}
    found = refusal(nemotron, template_kwargs=thinks)
    reasoning = "; give the answer its reasoning as 'reasoning_content', set "
    assert f"{reasoning}template_kwargs={{'enable_thinking': False}} or" in found
    thought = [CHAT[0], {**CHAT[1], "reasoning_content": "Hm."}]
    assert collator_for(nemotron, template_kwargs=thinks).encode(thought)
    of_row = refusal(nemotron, {"messages": CHAT, "chat_template_kwargs": thinks})
    assert f"{reasoning}chat_template_kwargs={{'enable_thinking': False}} or" in of_row


def test_no_variable_that_changes_nothing_is_advised():
    processor = differing()
    processor.chat_template += "{% if think_mode %}{% endif %}"
    assert refusal(processor).endswith(f"; {TEMPLATE}")
