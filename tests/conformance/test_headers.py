"""The headers of turns, in templates that prompt otherwise than they write, or not at all."""

from __future__ import annotations

import pytest

from tests.decoding import trained_texts
from vlmcollate import collator_for
from vlmcollate.errors import LabelError
from vlmcollate.testing import tiny_processor

TOKENS = ["<|a|>", "<|b|>", "<|c|>", "<|m|>", "<|s|>", "<|u|>", "<|z|>", "</s>"]

U, A = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}
SILENT, BLANK = {**A, "content": ""}, {**A, "content": "  "}
UNASKED = {**U, "content": ""}


def processor_with(template):
    processor = tiny_processor()
    processor.chat_template = "{% for m in messages %}" + template
    processor.tokenizer.add_special_tokens({"additional_special_tokens": TOKENS})
    return processor


def trained(collator, messages):
    sample = collator.encode({"messages": messages})
    return trained_texts(collator.processor.tokenizer, sample.input_ids, sample.labels)


NEVER_ASKS = "<|a|>{{ m.role }}\n{{ m.content }}<|z|>{% endfor %}"
NEVER_ASKS_IN_LINES = NEVER_ASKS.replace("<|z|>", "<|z|>\n")
WORDS = "{{ m.role.capitalize() }}: {{ m.content }}<|z|>\n{% endfor %}"
NO_ROLES = "{{ m.content }}</s>{% endfor %}"
ENDS_WITH_WORDS = (
    "{{ {'assistant': '<|b|>', 'user': '<|u|>', 'system': '<|s|>'}[m.role] }}{{ m.content }}"
    "{{ ' /think ' if m.role == 'user' else '<|z|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|b|>{% endif %}"
)
MENTIONS_THE_MARKER = "{% if loop.first %}<|s|>Answer behind <|b|> only.{% endif %}" + (
    ENDS_WITH_WORDS
)
ALWAYS_ASKS = "<|a|>{{ m.role }}<|m|>{{ m.content }}<|z|>{% endfor %}<|a|>assistant<|m|>"
ALWAYS_ASKS_IN_WORDS = "{{ m.role }}: {{ m.content }}<|z|>\n{% endfor %}assistant:"
ALWAYS_ASKS_WITH_TWO_ENDS = ALWAYS_ASKS_IN_WORDS.replace(
    "<|z|>", "{{ '<|z|></s>' if m.role == 'assistant' else '</s>' }}"
)
ALWAYS_ASKS_AFTER_ANOTHER_END = (
    "{{ '<|u|>' if m.role == 'user' else '<|b|><think></think>' }}{{ m.content }}"
    "{{ '<|c|>' if m.role == 'user' else '<|z|>' }}{% endfor %}<|b|>"
)
ASKS_BEHIND_QUESTIONS = (
    "{{ '<|b|>' if m.role == 'assistant' else '' }}{{ m.content }}"
    "{{ '<|z|>' if m.role == 'assistant' else '' }}{% endfor %}"
    "{% if add_generation_prompt and messages[-1].role == 'user' %}<|b|>{% endif %}"
)
ASKS_FOR_PARTS = (
    "<|a|>{{ m.role }}<|m|>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"
    "{% endif %}{{ m.content }}<|z|>{% endfor %}"
    "{% if add_generation_prompt and messages[-1].role == 'user' %}<|a|>assistant<|m|>{% endif %}"
)
CASES = {
    "silent": (NEVER_ASKS_IN_LINES, [U, SILENT], ["<|z|>"]),
    "blank": (NEVER_ASKS_IN_LINES, [U, BLANK], ["  <|z|>"]),
    "silent behind an answer": (NEVER_ASKS, [U, A, SILENT], ["Yes<|z|>", "<|z|>"]),
    "words": (WORDS, [A, U, A], ["Yes<|z|>", "Yes<|z|>"]),
    "no roles": (NO_ROLES, [A, UNASKED, A], ["Yes</s>", "Yes</s>"]),
    "no roles, silent question": (NO_ROLES, [UNASKED, A], ["Yes</s>"]),
    "greeting": (ENDS_WITH_WORDS, [A, U, A], ["Yes<|z|>", "Yes<|z|>"]),
    "greeting alone": (ENDS_WITH_WORDS, [A], ["Yes<|z|>"]),
    "greeting, silent question": (ENDS_WITH_WORDS, [A, UNASKED, A], ["Yes<|z|>", "Yes<|z|>"]),
    "mentioned": (MENTIONS_THE_MARKER, [A, U, A], ["Yes<|z|>", "Yes<|z|>"]),
    "always asks": (ALWAYS_ASKS, [A, U, A], ["Yes<|z|>", "Yes<|z|>"]),
    "always asks in words": (ALWAYS_ASKS_IN_WORDS, [U, SILENT], [" <|z|>"]),
    "two ends": (ALWAYS_ASKS_WITH_TWO_ENDS, [A, U, A], [" Yes<|z|></s>"] * 2),
    "another end": (ALWAYS_ASKS_AFTER_ANOTHER_END, [A, U, A], ["<think></think>Yes<|z|>"] * 2),
    "a part in a second answer": (
        ASKS_FOR_PARTS,
        [U, A, {**A, "reasoning_content": "So"}],
        ["Yes<|z|>", "<think>So</think>Yes<|z|>"],
    ),
    "a part behind a system message": (
        ASKS_FOR_PARTS,
        [U, {"role": "system", "content": "Rules"}, {**A, "reasoning_content": "So"}],
        ["<think>So</think>Yes<|z|>"],
    ),
    "a part behind words": (
        ASKS_FOR_PARTS.replace("<|a|>{{ m.role }}<|m|>", "\n{{ m.role }}: ").replace(
            "<|a|>assistant<|m|>", "\nassistant: "
        ),
        [U, {"role": "system", "content": "Rules"}, {**A, "reasoning_content": "So"}],
        ["<think>So</think>Yes<|z|>"],
    ),
    "a silent second answer": (ASKS_FOR_PARTS, [U, A, SILENT], ["Yes<|z|>", "<|z|>"]),
    "a part at first": (
        ASKS_BEHIND_QUESTIONS.replace("{{ m.content }}", "<think>{{ m.content }}"),
        [{**A, "content": "so</think>Yes"}, U, A],
        ["<think>so</think>Yes<|z|>", "<think>Yes<|z|>"],
    ),
    "the words of a prompt": (
        ENDS_WITH_WORDS,
        [{"role": "system", "content": "<|b|>"}, A, U, A],
        ["Yes<|z|>", "Yes<|z|>"],
    ),
    "two answers": (ASKS_BEHIND_QUESTIONS, [U, A, A], ["Yes<|z|>", "Yes<|z|>"]),
}


@pytest.mark.parametrize("name", CASES)
def test_no_header_trains_after_any_other_chat(name):
    template, messages, expected = CASES[name]
    processor = processor_with(template)
    assert trained(collator_for(processor), messages) == expected
    for others in ([U, A], [A, U, A], [UNASKED, A], [U, A, U, SILENT]):
        collator = collator_for(processor)
        try:
            trained(collator, others)
        except LabelError:
            continue
        assert trained(collator, messages) == expected


@pytest.mark.parametrize("token", ["<|b|>", "<|u|>"])
def test_no_token_of_a_role_is_written_by_an_answer(token):
    collator = collator_for(processor_with(ALWAYS_ASKS_AFTER_ANOTHER_END))
    number = collator.processor.tokenizer.convert_tokens_to_ids(token)
    plain, spelled = (
        collator.encode([U, {**A, "content": f"Not {word}"}]).input_ids.tolist()
        for word in ("x", token)
    )
    assert spelled.count(number) == plain.count(number)


@pytest.mark.parametrize(
    "template",
    [
        "<|a|>{{ m.role }}{{ ' to=user' if m.role == 'assistant' else '' }} "
        "{{ m.content }}<|z|>{% endfor %}",
        "{{ 'Human' if m.role == 'user' else 'Bot' }}: {{ m.content }}<|z|>{% endfor %}",
        "{% if loop.first %}<|a|>system\nOf wombat and numbat.<|z|>{% endif %}"
        "<|a|>{{ 'human' if m.role == 'user' else 'bot' }}\n{{ m.content }}<|z|>{% endfor %}",
    ],
)
def test_a_header_that_is_unlike_that_of_questions_is_refused_without_a_prompt(template):
    collator = collator_for(processor_with(template))
    with pytest.raises(LabelError, match="the template has no generation prompt"):
        collator.encode([U, A])
    with pytest.raises(LabelError):
        collator.encode([A, U, A])
