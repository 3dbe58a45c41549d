"""A row's sample does not depend on the rows that a collator encoded before.

What a collator keeps of chats of one shape would be wrong for answers that begin as a generation
prompt ends, such as an inline `<think>`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import NIGHTLY
from tests.processors import BUILDERS, processor_of
from tests.template_corpus import judge
from tests.template_corpus import templates as found_templates
from vlmcollate import collator_for
from vlmcollate.errors import CollateError

TEMPLATES = found_templates()
TRIED = (
    [*TEMPLATES] if NIGHTLY else [*[*TEMPLATES][::8], "trl/qwen3_5_think", "unsloth/qwen3_thinking"]
)
THOUGHT = "<think>\nHm.\n</think>\n\n"
Row = list[dict[str, Any]]


def outcome(collator: Any, row: Row) -> object:
    """The ids and labels of a row, or the kind of error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sample = collator.encode(row)
    except CollateError as error:
        return type(error).__name__
    return sample.input_ids.tolist(), sample.labels.tolist()


def prompt_ends(processor: Any, *, in_parts: bool) -> list[str]:
    """What stands between a question and an answer: whole, and from each of its tokens on."""
    content = [{"type": "text", "text": "Quokka?"}] if in_parts else "Quokka?"
    chat = [{"role": "user", "content": content}]
    try:
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    except Exception:  # noqa: BLE001  # whatever a template raises
        return []
    end = prompt.partition("Quokka?")[2]
    begins = [m.start() for m in re.finditer(r"<[^<>\s]+>|\[[A-Z_/]+\]", end)]
    return [end[at:] for at in (0, *begins)]


def rows(processor: Any) -> Iterator[Row]:
    """Chats with one and with two answers, of which one is unusual, and with whitespace."""
    ends = [end for form in (False, True) for end in prompt_ends(processor, in_parts=form)]
    for beginning in dict.fromkeys(["", THOUGHT, "<think></think>", *ends]):
        answer = f"{beginning}Numbat"
        for answers in ([answer], ["Plain", answer], [answer, "Plain"]):
            yield [message for words in answers for message in (asked(), said(words))]
    system = {"role": "system", "content": "Be brief."}
    yield [system, asked(), said("Numbat")]
    yield [system, asked(), said("Numbat"), asked(), said("Plain")]
    for space in ("\n", " ", "\n\n"):
        yield [asked(space), said("Numbat")]
        yield [asked(), said(f"{space}Numbat"), asked(space), said("Plain")]
        yield [said(f"{THOUGHT}Hello"), asked(space), said(f"{space}Numbat")]
        yield [said("Hello"), asked(space), said("<think>\nNumbat")]


def asked(space: str = "") -> dict[str, Any]:
    """A question that ends with whitespace."""
    return {"role": "user", "content": f"Quokka?{space}"}


def said(words: str) -> dict[str, Any]:
    """An answer."""
    return {"role": "assistant", "content": words}


def check_order(processor: Any) -> None:
    """Encodes rows alone, and one after another in both orders."""
    some = list(rows(processor))
    alone = [outcome(collator_for(processor), row) for row in some]
    for step in (1, -1):
        collator = collator_for(processor)
        found = [outcome(collator, row) for row in some[::step]]
        for row, expected, given in zip(some[::step], alone[::step], found, strict=True):
            assert given == expected, row


@pytest.mark.parametrize("name", TRIED)
def test_no_template_makes_rows_depend_on_earlier_ones(name: str) -> None:
    check_order(judge(TEMPLATES[name]).processor)


UNTESTED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""It opens the reasoning in the prompt, and tests no word of an answer."""

SWITCHED = UNTESTED.replace(
    "<think>\n{% endif %}", "<think>\n{% if not enable_thinking %}</think>{% endif %}{% endif %}"
)
WITHOUT_HEADER = (
    "{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
)
OF_THE_SYSTEM = (
    "<|im_start|>assistant\n{% if messages[0].role == 'system' %}<think>\n\n</think>\n\n{% endif %}"
)
IN_THE_LOOP = (
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ m.content }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    f"{{% if m.role == 'user' %}}{OF_THE_SYSTEM}{{% endif %}}{{% endif %}}{{% endfor %}}"
)
"""It writes the header of an answer behind each question, and asks for none."""
UNASKED = (
    "{% for m in messages %}"
    f"{{% if m.role == 'assistant' %}}{OF_THE_SYSTEM}{{% else %}}<|im_start|>{{{{ m.role }}}}\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    f"{{% if messages[-1].role != 'assistant' %}}{OF_THE_SYSTEM}{{% endif %}}"
)
"""Its prompt depends on the chat, and nothing asks for it."""


@pytest.mark.parametrize("template", [UNTESTED, SWITCHED, WITHOUT_HEADER, IN_THE_LOOP, UNASKED])
def test_an_unusual_template_makes_no_row_depend_on_earlier_ones(template: str) -> None:
    check_order(judge(template).processor)


def test_whitespace_is_that_of_the_words_before_it_where_no_header_is_written() -> None:
    processor = judge(WITHOUT_HEADER).processor
    chat = [asked("\n"), said("Numbat"), asked(), said("\nPlain")]
    sample = collator_for(processor).encode(chat)
    trained = processor.tokenizer.decode(sample.input_ids[sample.labels != -100])
    assert trained == "Numbat<|im_end|>\nPlain<|im_end|>"


@pytest.mark.parametrize("name", BUILDERS if NIGHTLY else ["qwen3_5", "gemma4", "kimi_k25"])
def test_no_family_makes_rows_depend_on_earlier_ones(name: str) -> None:
    check_order(processor_of(name))


def test_an_answer_that_begins_as_the_prompt_ends_starts_behind_it() -> None:
    processor = judge(UNTESTED).processor
    answers = ["A plain answer of many words", THOUGHT + "Numbat", "Another plain answer"]
    chats = [[asked(), said(words)] for words in (*answers, *answers[::-1])]
    collator = collator_for(processor)
    trained = [
        processor.tokenizer.decode(sample.input_ids[sample.labels != -100])
        for sample in map(collator.encode, chats)
    ]
    behind = [words.removeprefix("<think>\n") + "<|im_end|>" for words in answers]
    assert trained == [*behind, *behind[::-1]]
