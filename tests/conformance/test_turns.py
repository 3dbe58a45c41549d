"""Turns of templates whose generation prompt, ends or text make them hard to place."""

from __future__ import annotations

import warnings

import pytest
from tokenizers import AddedToken

from tests.decoding import trained_texts
from tests.processors import processor_of, with_template
from tests.processors.published_templates import processor_with
from vlmcollate import collator_for
from vlmcollate.errors import ConversationError, LabelError, TemplateOmissionWarning
from vlmcollate.testing import tiny_processor

_TEXT = "{% for part in m.content %}{{ part.text }}{% endfor %}"
_HEADER = "<|im_start|>{{ m.role }}{{ '\n' }}"


def _tiny(template, *tokens):
    processor = tiny_processor("qwen2_5_vl")
    processor.chat_template = template
    processor.tokenizer.add_special_tokens(
        {"additional_special_tokens": list(tokens)}, replace_extra_special_tokens=False
    )
    return processor


def _chatml(header=_HEADER, text=_TEXT, end="<|im_end|>", prompt="<|im_start|>assistant\n"):
    return (
        f"{{% for m in messages %}}{header}{text}{end}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {prompt!r} }}}}{{% endif %}}"
    )


def _chat(*texts, system=None):
    messages = [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)
    ]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def _trained(processor, messages, stop="<|im_end|>", **options):
    sample = collator_for(processor, stop_tokens=stop, **options).encode(messages)
    return trained_texts(processor.tokenizer, sample.input_ids, sample.labels)


_LLAMA_4 = ("<|header_start|>", "<|header_end|>", "<|eot|>")


def _llama_4(prompt):
    """Llama 4's turns, with the generation prompt that some servers ship."""
    header = "<|header_start|>{{ m.role }}<|header_end|>{{ '\n\n' }}"
    return _tiny(_chatml(header, end="<|eot|>", prompt=prompt), *_LLAMA_4)


@pytest.mark.parametrize("space", ["", "\n", "\n\n", " "])
@pytest.mark.parametrize("words", ["yes", "\nyes", "", " "])
def test_whitespace_before_the_prompts_header_makes_no_difference(space, words):
    chat = _chat("q", words, "q", "so")
    llama = _llama_4(f"{space}<|header_start|>assistant<|header_end|>\n\n")
    assert _trained(llama, chat, "<|eot|>") == [f"{words}<|eot|>", "so<|eot|>"]
    chatml = _tiny(_chatml(prompt=f"{space}<|im_start|>assistant\n"))
    assert _trained(chatml, chat) == [f"{words}<|im_end|>", "so<|im_end|>"]


def test_a_think_block_may_be_missing_and_a_role_may_not():
    forced = "\n<|im_start|>assistant\n<think>\n"
    for tokens in ((), ("<think>", "</think>")):
        thinking = _tiny(_chatml(prompt=forced), "<think>", *tokens)
        assert _trained(thinking, _chat("q", "yes")) == ["yes<|im_end|>"]
    other = _tiny(_chatml(prompt="<|im_start|>assistant\n<|im_start|>final\n"))
    with pytest.raises(LabelError, match="does not begin with the generation prompt"):
        _trained(other, _chat("q", "yes"))
    swapped = _tiny(_chatml(header="<|im_start|>{{ 'x' }}", prompt="<|im_start|>assistant\n"))
    with pytest.raises(LabelError, match="does not begin with the generation prompt"):
        _trained(swapped, _chat("q", "yes"))


_SYSTEM_IN_THE_LAST_TURN = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}<s>"
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST]"
    "{% if loop.index == ns.last and messages[0].role == 'system' %}"
    "{{ messages[0].content[0].text }}{{ '\n\n' }}{% endif %}"
    f"{_TEXT}[/INST]{{% else %}}{_TEXT}</s>{{% endif %}}{{% endfor %}}"
)


def test_blank_turns_are_placed_or_refused():
    processor = processor_of("pixtral")
    for system in (None, "", "s"):
        blank = _chat("", "", "", "", system=system)
        assert _trained(processor, blank, "</s>") == ["</s>", "</s>"]
    processor = with_template("pixtral", _SYSTEM_IN_THE_LAST_TURN)
    assert _trained(processor, _chat("", "", "", ""), "</s>") == ["</s>", "</s>"]
    with pytest.raises(
        LabelError, match=r"messages\[4\].*cannot be distinguished from an earlier one"
    ):
        _trained(processor, _chat("", "", "", "", system="s"), "</s>")


@pytest.mark.parametrize("blank", ["", " ", "\n\n"])
@pytest.mark.parametrize("words", ["yes", "\nyes", " yes"])
def test_a_blank_answer_lends_later_ones_no_whitespace(blank, words):
    """LLaVA-OneVision's headers end with more whitespace than its generation prompt."""
    chat = [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        for message in _chat("", blank, "", words)
    ]
    found = _trained(processor_of("llava_onevision"), chat)
    assert found == [f"{blank}<|im_end|>", f"{words}<|im_end|>"]


def test_a_stop_token_in_a_calls_key_ends_nothing():
    calls = (
        "{% for call in m.tool_calls or [] %}{{ call.function.name }}"
        "{% for key, value in call.function.arguments|items %}"
        "<{{ key }}>{{ value }}</{{ key }}>{% endfor %}{% endfor %}"
    )
    call = {"type": "function", "function": {"name": "f", "arguments": {"<|im_end|>": "v"}}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    processor = _tiny(_chatml(text=_TEXT + calls))
    assert _trained(processor, messages) == ["f<<|im_end|>>v</<|im_end|>><|im_end|>"]


def test_text_that_is_cut_out_of_an_answer_is_reported():
    processor = processor_with("gemma4")
    chat = _chat("q", "<|channel>thought\nhm<channel|>yes")
    with pytest.raises(ConversationError, match=r"changes the text of messages\[1\]\.content\[0\]"):
        _trained(processor, chat, "<turn|>", on_template_omission="raise")
    with pytest.warns(TemplateOmissionWarning, match="changes the text"):
        assert _trained(processor, chat, "<turn|>") == ["yes<turn|>"]
    assert _trained(processor, chat, "<turn|>", on_template_omission="allow") == ["yes<turn|>"]


@pytest.mark.parametrize(
    ("words", "writes", "is_whole"),
    [
        ("  a \n\n b ", "p.text | trim", True),
        ("a \n\n b", "p.text.split() | join(' ')", True),
        ('a "b" \u00e9', "p.text | tojson", True),
        ("a b", "p.text | upper", False),
        ("a b", "p.text[:-1]", False),
        ("a b", "p.text.replace('a', '')", False),
    ],
)
def test_whitespace_and_escapes_are_no_change(words, writes, is_whole):
    text = f"{{% for p in m.content %}}{{{{ {writes} }}}}{{% endfor %}}"
    collator = collator_for(_tiny(_chatml(text=text)), on_template_omission="raise")
    try:
        rendering = collator.render(collator.read(_chat(words, words)))
    except ConversationError:  # the words and the template's own text cannot be told apart
        assert not is_whole
        return
    assert bool(rendering.altered) != is_whole


def test_a_warning_blames_the_line_that_called():
    processor = _tiny(_chatml())
    example = {"messages": _chat("q", "a"), "tools": [{"function": {"name": "weather"}}]}
    collator = collator_for(processor)
    for call in (
        lambda: collator([example]),
        lambda: collator.encode(example),
        lambda: collator.explain(example),
        lambda: collator.token_count(example),
        lambda: list(map(collator.encode, [example])),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert {warning.filename for warning in caught} <= {__file__}


@pytest.mark.parametrize("sides", [{"lstrip": True}, {"rstrip": True}])
@pytest.mark.parametrize("answer", ["<x>yes", " <x> yes", "\n<x>", "yes <x>"])
def test_an_answer_keeps_its_first_token_though_it_swallows_whitespace(sides, answer):
    processor = _tiny(_chatml(end="<|im_end|>{{ '\n' }}"))
    processor.tokenizer.add_tokens([AddedToken("<x>", **sides)])
    expected = _trained(processor, _chat("q", answer))
    assert "".join(expected[0].split()) == "".join(answer.split()) + "<|im_end|>"
    assert _trained(processor, _chat("q <x>", answer)) == expected
    assert _trained(processor, _chat("<x> q", answer)) == expected


_COHERE = ("<|open_turn|>", "<|end_turn|>", "<|user|>", "<|bot|>", "<|answer|>", "<|end_answer|>")


@pytest.mark.parametrize("asked", ["", "{% if add_generation_prompt %}<|answer|>{% endif %}"])
def test_a_prompt_that_is_always_written_belongs_to_no_turn(asked):
    """Command A ends every chat with the marker of the assistant."""
    turn = f"<|answer|>{_TEXT}<|end_answer|>"
    processor = _tiny(
        "{% for m in messages %}<|open_turn|>{% if m.role == 'user' %}<|user|>"
        f"{_TEXT}{{% else %}}<|bot|>{turn}{{% endif %}}<|end_turn|>{{% endfor %}}"
        f"<|open_turn|><|bot|>{asked}",
        *_COHERE,
    )
    begin = "" if asked else "<|answer|>"
    expected = [f"{begin}{words}<|end_answer|><|end_turn|>" for words in ("yes", "so")]
    assert _trained(processor, _chat("q", "yes", "q", "so"), stop=()) == expected


_HEADER_IN_THE_QUESTION = (
    "<|im_start|>system{{ '\n' }}You are kind.<|im_end|>{{ '\n' }}"
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user{{ '\n' }}"
    f"{_TEXT}<|im_end|>{{{{ '\n' }}}}<|im_start|>assistant{{{{ '\n' }}}}"
    f"{{% else %}}{_TEXT}<|im_end|>{{{{ '\n' }}}}{{% endif %}}{{% endfor %}}"
)


def test_a_greeting_without_a_header_trains_its_words():
    processor = _tiny(_HEADER_IN_THE_QUESTION)
    greeting = _chat("q", "hello", "q", "yes")[1:]
    assert _trained(processor, greeting, stop=()) == ["hello<|im_end|>", "yes<|im_end|>"]


def test_a_greeting_that_the_template_writes_as_a_question_is_refused():
    processor = _tiny(
        "{% for m in messages %}{% if loop.first or m.role == 'user' %}<|im_start|>user\n"
        f"{{% else %}}<|im_start|>assistant\n{{% endif %}}{_TEXT}<|im_end|>{{% endfor %}}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(LabelError, match="does not begin with the generation prompt"):
        _trained(processor, _chat("q", "hello", "q", "yes")[1:])


def test_a_prompt_that_goes_on_with_words_is_noted():
    """Apriel's prompt begins the reasoning, which its turns leave out."""
    processor = _tiny(_chatml(prompt="<|im_start|>assistant\nHere are my steps:\n"))
    for chat in (_chat("q", "yes"), _chat("q", "yes", "q", "so")[1:]):
        texts = [m["content"] for m in chat if m["role"] == "assistant"]
        assert _trained(processor, chat) == [f"{words}<|im_end|>" for words in texts]
        notes = collator_for(processor).explain(chat).warnings
        assert any("'Here are my steps:'" in note for note in notes)


def _with_tools(prompt, header):
    """A template whose turns behind a tool's result have a header of their own."""
    behind = "loop.index0 and messages[loop.index0 - 1].role == 'tool'"
    return _tiny(
        "{% for m in messages %}{% if m.role == 'tool' %}<tool>" + _TEXT + "</tool>"
        "{% elif m.role == 'assistant' and " + behind + " %}" + header + _TEXT + "<|im_end|>"
        "{% else %}" + _HEADER + _TEXT + "<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{% if messages[-1].role == 'tool' %}" + prompt + "{% else %}"
        "<|im_start|>assistant\n{% endif %}{% endif %}",
        "<tool>",
        "</tool>",
    )


@pytest.mark.parametrize(
    ("prompt", "header"),
    [("", "<|im_start|>assistant\n"), ("<|im_start|>assistant\n", "")],
)
def test_a_turn_behind_a_result_may_have_another_header_than_its_prompt(prompt, header):
    result = {"role": "tool", "content": "result"}
    chat = [*_chat("q", "yes"), result, {"role": "assistant", "content": "so"}]
    processor = _with_tools(prompt, header)
    assert _trained(processor, chat) == ["yes<|im_end|>", "so<|im_end|>"]
    note = "trained after another header than their generation prompt"
    (found,) = [w for w in collator_for(processor).explain(chat).warnings if note in w]
    assert "messages[3]" in found


@pytest.mark.parametrize("name", ["Lyra", "assistant"])
def test_the_name_of_an_answer_belongs_to_its_header(name):
    processor = _tiny(_chatml("<|im_start|>{{ m.name or m.role }}{{ '\n' }}"))
    for chat in (_chat("q", "yes"), _chat("q", "yes", "q", "so")):
        chat[1]["name"] = name
        texts = [m["content"] for m in chat if m["role"] == "assistant"]
        assert _trained(processor, chat) == [f"{words}<|im_end|>" for words in texts]


def test_marks_that_json_escapes_are_read():
    processor = _tiny(_chatml(text="{{ m.content[0].text | tojson(ensure_ascii=True) }}"))
    assert _trained(processor, _chat("q", "yes")) == ['"yes"<|im_end|>']


def test_a_template_that_prints_parts_is_named():
    text = "{% if tools %}{{ m.content }}{% else %}" + _TEXT + "{% endif %}"
    processor = _tiny(_chatml(text=text))
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    chat = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in _chat("q", "yes")]
    with pytest.raises(ConversationError, match="list of a message's parts"):
        collator_for(processor).encode({"messages": chat, "tools": tools})


def test_a_template_without_calls_is_named():
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    chat = [*_chat("q"), {"role": "assistant", "tool_calls": [call]}]
    processor = with_template("smolvlm", "{{ messages[1].content[0].text }}")
    with pytest.raises(ConversationError, match="writes no tool calls"):
        collator_for(processor).encode(chat)
