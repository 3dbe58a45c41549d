"""Templates that move, repeat, reverse or print messages are named with the message."""

from __future__ import annotations

import pytest
from PIL import Image
from transformers.models.llama4 import processing_llama4

from tests.decoding import trained_texts
from tests.processors import build
from tests.template_corpus import TOOLS
from vlmcollate import collator_for
from vlmcollate.errors import ConversationError, LabelError, SampleError, TemplateOmissionWarning
from vlmcollate.testing import tiny_processor

HEADER = "<|im_start|>{{ m.role }}\n"
FOOTER = "<|im_end|>\n"
ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHAT = [
    {"role": "user", "content": "Ask"},
    {"role": "assistant", "content": "Heron"},
    {"role": "user", "content": "More"},
    {"role": "assistant", "content": "Egret"},
]


def with_template(template):
    processor = tiny_processor()
    processor.chat_template = template
    return processor


def with_answers(expression):
    words = f"{{{{ {expression} if m.role == 'assistant' else m.content }}}}"
    body = f"{{% for m in messages %}}{HEADER}{words}{FOOTER}{{% endfor %}}"
    return with_template(body + ASKS)


def test_answers_that_are_moved_to_the_end_are_named():
    loops = [
        f"{{% for m in messages if m.role {sign} 'assistant' %}}{HEADER}{{{{ m.content }}}}{FOOTER}"
        "{% endfor %}"
        for sign in ("!=", "==")
    ]
    collator = collator_for(with_template("".join(loops) + ASKS))
    with pytest.raises(
        LabelError, match=r"writes messages\[1\] behind messages\[2\]; use"
    ) as error:
        collator.encode(CHAT)
    assert error.value.where == "messages[1]"
    collator.encode(CHAT[:2])


def test_a_question_that_is_repeated_is_named():
    repeats = "{% if m.role == 'assistant' %}{{ messages[0].content }} {% endif %}"
    body = f"{{% for m in messages %}}{HEADER}{repeats}{{{{ m.content }}}}{FOOTER}{{% endfor %}}"
    collator = collator_for(with_template(body + ASKS))
    with pytest.raises(LabelError, match=r"writes messages\[0\] again behind messages\[2\]; use"):
        collator.encode([*CHAT[:3], {**CHAT[3], "content": "Good"}])


def test_a_text_that_is_written_backwards_is_named():
    with pytest.raises(ConversationError, match="it writes this text backwards") as error:
        collator_for(with_answers("m.content[::-1]")).encode(CHAT)
    assert error.value.where == "messages[1]"


def test_answers_that_are_written_twice_are_reported():
    collator = collator_for(with_answers("m.content ~ ' | ' ~ m.content"))
    found = r"messages\[1\]\.content\[0\] \(which it writes 2 times\), messages\[3\]"
    for _ in range(2):  # also if a chat of this form is known
        with pytest.warns(TemplateOmissionWarning, match=found):
            collator.encode(CHAT)
    strict = collator_for(collator.processor, on_template_omission="raise")
    with pytest.raises(ConversationError, match=found):
        strict.encode(CHAT)


def test_strings_are_advised_only_without_media():
    image = {"type": "image", "image": Image.new("RGB", (56, 56))}
    text = {"type": "text", "text": "Where?"}
    collator = collator_for(with_answers("m.content"))
    with pytest.raises(ConversationError, match="it takes no media in this message; remove the"):
        collator.encode([{"role": "user", "content": [image, text]}, CHAT[1]])
    processor = build("llama4")
    processor.chat_template = processing_llama4.chat_template
    later = [{"role": "user", "content": [image, text]}, CHAT[3]]
    row = {"messages": [{"role": "user", "content": [text]}, CHAT[1], *later], "tools": TOOLS}
    with pytest.raises(ConversationError, match="give the content of the messages as strings"):
        collator_for(processor).encode(row)


def test_media_beside_tools_of_llama_is_refused_with_the_variable_that_helps():
    processor = build("llama4")
    processor.chat_template = processing_llama4.chat_template
    image = {"type": "image", "image": Image.new("RGB", (56, 56))}
    content = [image, {"type": "text", "text": "Where?"}]
    messages = [{"role": "user", "content": content}, CHAT[1]]
    row = {"messages": messages, "tools": TOOLS}
    refusal = "takes no media in this message together with tools; set .*, which writes the tools"
    with pytest.raises(SampleError, match=refusal):
        collator_for(processor).encode(row)
    apart = collator_for(processor, template_kwargs={"tools_in_user_message": False})
    messages.insert(0, {"role": "system", "content": "Look it up"})
    sample = apart.encode(row)
    assert "lookup" in apart.explain(row).prompt
    found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    assert found == ["Heron<|eot|>"]
