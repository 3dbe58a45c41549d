"""Every variable of the chat template is read, reported or refused, of a collator as of a row."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import attrs
import pytest
from transformers.processing_utils import ProcessorMixin
from transformers.utils import chat_template_utils

from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.errors import ConfigError, ConversationError, UnreadKeyWarning

CHAT = [{"role": "user", "content": "Quokka?"}, {"role": "assistant", "content": "Numbat."}]
FUNCTIONS = (ProcessorMixin.apply_chat_template, chat_template_utils.render_jinja_template)
NAMES = {name for f in FUNCTIONS for name in inspect.signature(f).parameters}
ARGUMENTS = [*sorted(NAMES - {"self", "kwargs", "documents"}), "messages"]


@pytest.fixture(scope="module")
def processor():
    return build("qwen3_5")


@pytest.mark.parametrize("value", [True, []], ids=str)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_no_argument_of_the_call_is_a_variable(processor, name, value):
    variables = {name: value}
    options: Any = {"template_kwargs": variables, "on_unread": "raise"}
    with pytest.raises(ConfigError, match=rf"template_kwargs: .*'{name}'"):
        collator_for(processor, **options).encode(CHAT)
    row = {"messages": CHAT, "chat_template_kwargs": variables}
    with pytest.raises(ConversationError, match=rf"chat_template_kwargs.*'{name}'"):
        collator_for(processor, on_unread="raise").encode(row)


@pytest.mark.parametrize("documents", [True, "a", ["a"], {"title": "a", "text": "b"}], ids=str)
def test_documents_are_a_list_of_dicts(processor, documents):
    expected = r"'documents' is .*, expected a list of dicts, such as \[\{'title': \.\.\., 'text': "
    with pytest.raises(ConfigError, match=f"template_kwargs: {expected}"):
        collator_for(processor, template_kwargs={"documents": documents})
    row = {"messages": CHAT, "chat_template_kwargs": {"documents": documents}}
    with pytest.raises(ConversationError, match=f"chat_template_kwargs.*{expected}"):
        collator_for(processor).encode(row)


@pytest.mark.parametrize("name", ["enable_thinkin", "Enable_thinking", "documents"])
def test_a_variable_that_the_template_does_not_read_is_reported_once(processor, name):
    def collator(policy: Any) -> Any:
        return collator_for(processor, template_kwargs={name: []}, on_unread=policy)

    refusing = collator("raise")
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"template_kwargs: .*reads no variable '{name}'"):
            refusing.encode(CHAT)
    for policy in ("warn", "auto"):
        warning = collator(policy)
        with pytest.warns(UnreadKeyWarning, match=f"'{name}' of template_kwargs") as caught:
            warning([CHAT, CHAT])
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warning([CHAT])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collator("allow").encode(CHAT)


def test_a_variable_is_checked_again_when_the_template_changes():
    processor = build("qwen3_5")
    collator = collator_for(
        processor, template_kwargs={"enable_thinking": False}, on_unread="raise"
    )
    assert collator.encode(CHAT)
    kept = processor.chat_template
    processor.chat_template = kept.replace("enable_thinking", "thinks")
    with pytest.raises(ConfigError, match="reads no variable 'enable_thinking'"):
        collator.encode(CHAT)
    renamed = attrs.evolve(collator, template_kwargs={"thinks": False})
    assert renamed.encode(CHAT)
