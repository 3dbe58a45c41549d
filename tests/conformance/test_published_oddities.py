"""What published chat templates do to some chats alone, each in a template of the same kind."""

from __future__ import annotations

import pytest

from tests.decoding import trained_texts
from vlmcollate import PartWeights, Reasoning, collator_for
from vlmcollate.errors import ConversationError, LabelError
from vlmcollate.testing import tiny_processor

TEXT = "{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}"
ASKED = "{% if add_generation_prompt %}<|a|>assistant {% endif %}"
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "Bern"}}}


def with_tokens(template):
    """A processor with a template whose turns are between `<|a|>` and `<|z|>`."""
    processor = tiny_processor()
    processor.chat_template = template
    tokens = ["<|a|>", "<|b|>", "<|z|>"]
    processor.tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    return processor


def said(role, content, **more):
    return {"role": role, "content": content, **more}


CHAT = [said("user", "First?"), said("assistant", "One"), said("user", "Next?")]
CHAT.append(said("assistant", "Two"))


def trained(template, messages, **options):
    processor = with_tokens(template)
    collator = collator_for(processor, **options)
    sample = collator.encode(messages)
    return trained_texts(processor.tokenizer, sample.input_ids, sample.labels)


BEGINS_WITH_RULES = (
    "{% for m in messages %}<|a|>{{ m.role }} {% if loop.first %}Be kind and brief. {% endif %}"
    + TEXT
    + "<|z|>{% endfor %}"
    + ASKED
)


@pytest.mark.parametrize("answer", ["Hello", "\nHello"])
def test_rules_of_the_template_in_a_greeting_do_not_train(answer):
    found = trained(BEGINS_WITH_RULES, [said("assistant", answer), *CHAT])
    assert found == [f"{answer}<|z|>", "One<|z|>", "Two<|z|>"]


def test_words_that_the_template_writes_into_every_answer_train_in_a_greeting_too():
    writes = TEXT.join(["{% if m.role == 'assistant' %}Well, {% endif %}", ""])
    template = "{% for m in messages %}<|a|>{{ m.role }} " + writes + "<|z|>{% endfor %}" + ASKED
    found = trained(template, [said("assistant", "Hello"), *CHAT[:2]])
    assert found == ["Well, Hello<|z|>", "Well, One<|z|>"]


TELLS_SILENCE_APART = (
    "{% for m in messages %}<|a|>{{ m.role }} "
    "{% if m.content is string %}say {{ m.content }}{% elif m.content %}{{ m.content[0].text }}"
    "{% elif m.content is defined %}nothing{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "{% endfor %}<|z|>{% endfor %}" + ASKED
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"content": ""}, 'say look{"at": "Bern"}<|z|>'),
        ({"content": None}, 'look{"at": "Bern"}<|z|>'),
        ({}, 'look{"at": "Bern"}<|z|>'),
        ({"content": []}, 'look{"at": "Bern"}<|z|>'),
    ],
)
@pytest.mark.parametrize("more", [{}, {"weight": 1.0}])  # which one reader of rows does not take
def test_a_call_without_text_has_the_content_of_its_row(content, expected, more):
    calling = {"role": "assistant", **content, "tool_calls": [CALL], **more}
    assert trained(TELLS_SILENCE_APART, [said("user", "Where?"), calling]) == [expected]


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        ("m.content[:0]", 'nothinglook{"at": "Bern"}<|z|>'),
        ("m.content + ''", 'say look{"at": "Bern"}<|z|>'),
    ],
)
@pytest.mark.parametrize("content", [{"content": None}, {}])
def test_a_template_that_needs_content_gets_an_empty_list_or_string(needed, expected, content):
    calling = {"role": "assistant", **content, "tool_calls": [CALL]}
    template = TELLS_SILENCE_APART.replace(
        "{{ m.role }} ", "{{ m.role }} {% set needed = " + needed + " %}"
    )
    found = trained(template, [said("user", "Where?"), calling])
    assert found == [expected]


ALWAYS_ASKS = "{% for m in messages %}<|a|>{{ m.role }} " + TEXT + "{% endfor %}<|a|>assistant "


def test_the_token_before_that_of_every_role_ends_a_turn_though_a_prompt_is_always_written():
    template = ALWAYS_ASKS.replace("{% endfor %}", "<|z|>{% endfor %}")
    assert trained(template, CHAT) == ["One<|z|>", "Two<|z|>"]
    with pytest.raises(LabelError, match="no stop token"):
        trained(ALWAYS_ASKS, CHAT)


def test_the_end_of_a_turn_is_found_before_a_prompt_of_words_that_is_always_written():
    template = "{% for m in messages %}{{ m.role }}: " + TEXT + "<|z|>{% endfor %}assistant: "
    assert trained(template, CHAT) == ["One<|z|>", "Two<|z|>"]
    assert trained(template, [said("system", "Rules"), *CHAT[1:]]) == ["One<|z|>", "Two<|z|>"]


NEVER_ASKS = [
    "{% for m in messages %}<|a|>{{ m.role }}\n" + TEXT + "<|z|>\n{% endfor %}",
    "{% for m in messages %}<|{{ m.role }}|>\n"
    + TEXT
    + "{{ '<|z|>' if m.role == 'assistant' else '' }}\n{% endfor %}",
]


@pytest.mark.parametrize("template", NEVER_ASKS)
def test_without_a_generation_prompt_the_header_is_that_of_questions_in_another_name(template):
    roles = ["<|user|>", "<|assistant|>", "<|system|>"]
    processor = with_tokens(template)
    processor.tokenizer.add_special_tokens({"additional_special_tokens": roles})
    collator = collator_for(processor)
    greeting, spelled = said("assistant", "Hello"), said("assistant", "Not <|assistant|> nor <|a|>")
    chats = [CHAT, [said("system", "Rules"), *CHAT], [greeting, *CHAT], [*CHAT[:3], spelled]]
    for messages in chats:
        sample = collator.encode(messages)
        found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
        assert found == [f"{m['content']}<|z|>" for m in messages if m["role"] == "assistant"]
    (note,) = collator.explain(chats[2]).turn_notes
    header = "<|a|>assistant\n" if "<|a|>" in template else "<|assistant|>\n"
    assert (note.kind, note.detail, note.messages) == ("no_prompt", header, (0, 2, 4))
    spelled_ids = collator.encode(chats[3]).input_ids.tolist()
    token = processor.tokenizer.convert_tokens_to_ids(header[: header.index(">") + 1])
    plain_ids = collator.encode(CHAT).input_ids.tolist()
    assert spelled_ids.count(token) == plain_ids.count(token)


def test_what_a_template_without_generation_prompt_writes_into_answers_trains():
    template = NEVER_ASKS[0].replace(TEXT, "{{ '<|b|>' if m.role == 'assistant' else '' }}" + TEXT)
    assert trained(template, CHAT) == ["<|b|>One<|z|>", "<|b|>Two<|z|>"]


def test_a_turn_may_have_a_token_before_its_header_that_its_prompt_lacks():
    template = (
        "{% for m in messages %}<|a|>{% if m.role == 'assistant' %}<|b|>"
        "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
        "{% endif %}" + TEXT + "<|z|>{% endfor %}{% if add_generation_prompt %}<|b|>\n{% endif %}"
    )
    assert trained(template, CHAT) == ["One<|z|>", "Two<|z|>"]
    thinking = [CHAT[0], said("assistant", "One", reasoning_content="So"), *CHAT[2:]]
    assert trained(template, thinking) == ["<think>So</think>One<|z|>", "Two<|z|>"]


@pytest.mark.parametrize("role", ["assistant", "system"])
def test_words_that_end_a_question_before_its_answer_are_no_part_of_the_header(role):
    template = (
        "{% for m in messages %}{{ '<|a|>' if m.role == 'user' else '<|b|>' }}"
        "{% if m.role == 'system' %}<|a|>{% endif %}" + TEXT + "{% if m.role == 'user' %}"
        " /think{% else %}<|z|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|b|>{% endif %}"
    )
    first = [said("system", "Rules")] if role == "system" else []
    found = trained(template, [*first, said("assistant", "Hello"), *CHAT])
    assert found == ["Hello<|z|>", "One<|z|>", "Two<|z|>"]


def test_a_prompt_that_goes_on_with_words_behind_the_end_of_the_question_is_noted():
    template = (
        "{% for m in messages %}{{ '<|a|>' if m.role == 'user' else '' }}"
        + TEXT
        + "{{ '<|b|>' if m.role == 'user' else '<|z|>' }}{% endfor %}"
        + "{% if add_generation_prompt %}My steps: {% endif %}"
    )
    assert trained(template, CHAT) == ["One<|z|>", "Two<|z|>"]
    (warning,) = collator_for(with_tokens(template)).explain(CHAT).warnings
    assert "My steps:" in warning
    with pytest.raises(LabelError, match="My steps"):
        trained(template, CHAT, off_prompt="error")


def test_a_greeting_before_which_a_template_writes_no_system_message_has_the_usual_header():
    template = (
        "{% set rules = messages[0].content if messages[0].role == 'system' else '' %}"
        "{% for m in messages if m.role != 'system' %}"
        "{% if loop.first %}<|b|>{{ rules }}<|z|>{% endif %}<|a|>{{ m.role }} "
        + TEXT
        + "<|z|>{% if loop.last %}"
        + ASKED
        + "{% endif %}{% endfor %}"
    )
    messages = [said("system", "Be kind."), said("assistant", "Hello"), *CHAT]
    assert trained(template, messages) == ["Hello<|z|>", "One<|z|>", "Two<|z|>"]


def test_a_template_that_demands_a_system_message_is_read_with_one():
    template = (
        "{{ '<|b|>' + messages[0].content + '<|z|>' }}{% for m in messages[1:] %}"
        "{{ '<|a|>' + m.role + ' ' + m.content + '<|z|>' }}{% endfor %}" + ASKED
    ).replace("messages[0].content", "(messages[0].content if messages[0].role == 'system')")
    assert trained(template, [said("system", "Be kind."), *CHAT]) == ["One<|z|>", "Two<|z|>"]


PRINTS_DICTS = (
    "{% for m in messages %}<|a|>{{ m.role }} "
    + TEXT.replace("{% else %}", "{% elif m.content %}")
    + "{% for c in m.tool_calls or [] %}"
    "{{ c.function.name + c.function.arguments | string }}{% endfor %}<|z|>{% endfor %}" + ASKED
)


def test_a_dict_that_a_template_prints_is_spelled_as_it_prints_it_and_reported():
    asked, spelled = said("user", "Where?"), '{"at":  "Bern"}'
    called = said("assistant", "", tool_calls=[CALL])
    with pytest.warns(UserWarning, match=r"messages\[1\]\.tool_calls\[0\].* as Python does"):
        assert trained(PRINTS_DICTS, [asked, called]) == ["look{'at': 'Bern'}<|z|>"]
    function = {"name": "look", "arguments": spelled}
    called = said("assistant", "", tool_calls=[{"type": "function", "function": function}])
    assert trained(PRINTS_DICTS, [asked, called]) == [f"look{spelled}<|z|>"]


def test_a_token_behind_every_chat_is_no_part_of_the_prompt():
    template = (
        "{% for m in messages %}<|a|>{{ m.role }} " + TEXT + "<|z|>{% endfor %}" + ASKED + "<|b|>"
    )
    assert trained(template, CHAT) == ["One<|z|>", "Two<|z|>"]
    assert trained(template, CHAT[:2]) == ["One<|z|>"]


@pytest.mark.parametrize("trailer", ["<|b|>", "<|a|>assistant <|b|>"])
def test_a_token_behind_every_chat_does_not_stand_in_for_a_generation_prompt(trailer):
    """Behind the first, no prompt is known; the second is a prompt that is always written."""
    template = "{% for m in messages %}<|a|>{{ m.role }} " + TEXT + "<|z|>{% endfor %}" + trailer
    with pytest.raises(LabelError, match="generation prompt"):
        trained(template, CHAT[:2], off_prompt="error")


OPENS = "<|a|>{{ m.role }} " + TEXT
GUARDED = "{% if add_generation_prompt and messages[-1].role == 'user' %}<|a|>assistant {% endif %}"


@pytest.mark.parametrize(
    "end",
    [
        "<|z|>{% endfor %}",
        "{% if not loop.last or add_generation_prompt %}<|z|>{% endif %}{% endfor %}",
    ],
)
def test_the_header_of_a_turn_behind_an_answer_does_not_train(end):
    template = "{% for m in messages %}" + OPENS + end + GUARDED
    twice = [*CHAT[:2], said("assistant", "Two")]
    found = trained(template, twice, stop_tokens=["<|z|>"], unclosed_turns="append_eos")
    assert [text.removesuffix("<|z|>").removesuffix("<|im_end|>") for text in found] == [
        "One",
        "Two",
    ]


def test_a_header_in_a_greeting_does_not_train_where_a_prompt_is_always_written():
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|b|>"
        + TEXT
        + "<|b|>{% else %}<|a|>"
        + TEXT
        + "<|z|>{% endif %}{% endfor %}<|a|>"
    )
    found = trained(template, [said("assistant", "Hello"), *CHAT[:2]], stop_tokens=["<|z|>"])
    assert found == ["Hello<|z|>", "One<|z|>"]


def test_words_of_a_header_do_not_train_behind_a_system_message():
    template = (
        "{% for m in messages %}{{ m.role }}: "
        + TEXT
        + "<|z|>{% endfor %}"
        + GUARDED.replace("<|a|>assistant ", "assistant:")
    )
    messages = [said("system", "Be kind."), said("assistant", "Hello"), *CHAT[:2]]
    assert trained(template, messages) == [" Hello<|z|>", " One<|z|>"]


FORCED = "{% for m in messages %}" + OPENS + "<|z|>{% endfor %}" + ASKED.replace(" {%", " <|b|>{%")


@pytest.mark.parametrize("name", ["assistant", "a", "Bob", None])
def test_a_name_changes_no_start_inside_the_words(name):
    answer = said("assistant", "<|b|>One", **({"name": name} if name else {}))
    assert trained(FORCED, [CHAT[0], answer], on_unread="allow") == ["One<|z|>"]


def test_a_variable_that_is_set_after_a_refusal_counts():
    template = "{{ start_of_chat + '' }}{% for m in messages %}" + OPENS + "<|z|>{% endfor %}"
    processor = with_tokens(template + ASKED)
    with pytest.raises(ConversationError, match="undefined"):
        collator_for(processor).encode(CHAT)
    collator = collator_for(processor, template_kwargs={"start_of_chat": "<|b|>"})
    sample = collator.encode(CHAT)
    found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    assert found == ["One<|z|>", "Two<|z|>"]


COMPARES_NAMES = (
    "{% set names = tools | map(attribute='function.name') | list if tools else [] %}"
    "{% if tools %}<|b|>{{ tools | tojson }}<|z|>{% endif %}"
    "{% for m in messages %}<|a|>{{ m.role }} "
    + TEXT.replace("{% else %}", "{% elif m.content %}")
    + "{% for c in m.tool_calls or [] %}"
    "{{ 'call ' if c.function.name in names else 'unknown ' }}{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}{% endfor %}<|z|>{% endfor %}" + ASKED
)


@pytest.mark.parametrize("names", [["look"], ["look at", "look"], ["see"]])
def test_the_names_of_calls_may_be_compared_with_those_of_the_tools(names):
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    called = said("assistant", "", tool_calls=[CALL])
    messages = [said("user", "Where?"), called, said("tool", "look: Bern"), CHAT[1]]
    found = trained(COMPARES_NAMES, {"messages": messages, "tools": tools})
    first = "call" if "look" in names else "unknown"
    assert found == [f'{first} look{{"at": "Bern"}}<|z|>', "One<|z|>"]


CALLS_FIRST = (
    "{% for m in messages %}<|a|>{{ m.role }} {% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments.at }}</call>{% endfor %}"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
    f"{TEXT}<|z|>{{% endfor %}}{ASKED}"
)


def test_calls_that_the_template_writes_before_the_reasoning_are_calls():
    answer = said("assistant", "One", reasoning_content="Ponder", tool_calls=[CALL])
    chat = [CHAT[0], answer]
    assert trained(CALLS_FIRST, chat, train_on="tool_calls") == ["<call>look Bern</call>", "<|z|>"]
    assert trained(CALLS_FIRST, chat, train_on=Reasoning(train=False)) == [
        "<call>look Bern</call>",
        "\nOne<|z|>",
    ]
    assert trained(CALLS_FIRST, chat, train_on=PartWeights(text=0, tool_calls=0)) == [
        "<think>\nPonder\n</think>"
    ]
