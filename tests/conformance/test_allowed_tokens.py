"""Tokens that users add, or that grounding uses, are the same tokens in every role."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.errors import ConfigError

FAMILIES = {
    "qwen3_vl": ("<|object_ref_start|>", "<|box_end|>", "<loc_7>"),
    "paligemma": ("<loc0100>", "<seg001>"),
    "gemma3": ("<loc0100>", "<seg001>"),
    "smolvlm": ("<loc_7>", "<point>"),
}
FORBIDDEN = {
    "qwen3_vl": ("<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|vision_start|>"),
    "paligemma": ("<image>", "<end_of_turn>"),
    "gemma3": ("<end_of_turn>", "<start_of_turn>", "<image_soft_token>"),
    "smolvlm": ("<end_of_utterance>", "<|im_start|>", "<image>", "<row_1_col_1>"),
}
CHATS = [
    *(("qwen3_vl", kind) for kind in ("question", "system", "reasoning", "tool")),
    *((name, kind) for name in ("gemma3", "smolvlm") for kind in ("question", "system")),
    ("smolvlm", "reasoning"),
    ("paligemma", "question"),
]
"""The kinds of chat that the templates take."""


@cache
def collators(name):
    """Returns a collator that allows no special tokens, and one that allows the family's."""
    processor = build(name)
    known = processor.tokenizer.get_vocab()
    processor.tokenizer.add_tokens([token for token in FAMILIES[name] if token not in known])
    options: dict[str, Any] = {
        "on_template_omission": "allow",
        "on_unread": "allow",
        "require_labels": False,
    }
    allowed = list(FAMILIES[name])
    return collator_for(processor, **options), collator_for(
        processor, allowed_special_tokens=allowed, **options
    )


def chat(kind, text):
    """Returns a chat of a kind in which every string is the text."""
    asked, answered = {"role": "user", "content": text}, {"role": "assistant", "content": text}
    if kind == "system":
        return [{"role": "system", "content": text}, asked, answered]
    if kind == "reasoning":
        return [asked, {**answered, "reasoning_content": text}]
    if kind == "tool":
        function = {"name": "f", "arguments": {"a": text}}
        call = {"type": "function", "id": "call00000", "function": function}
        called = {"role": "assistant", "content": "", "tool_calls": [call]}
        result = {"role": "tool", "content": text, "name": "f", "tool_call_id": "call00000"}
        return [asked, called, result, answered]
    return [asked, answered]


def token_ids(collator, tokens):
    return [collator.processor.tokenizer.convert_tokens_to_ids(token) for token in tokens]


def found(collator, kind, text, tokens):
    """Returns the allowed tokens of each string that the template wrote, in order."""
    sample, wanted = collator.encode(chat(kind, text)), token_ids(collator, tokens)
    columns = list(zip(sample.input_ids.tolist(), sample.message_ids.tolist(), strict=True))
    return [
        (message, [i for i, m in columns if m == message and i in wanted])
        for message in dict.fromkeys(m for _, m in columns if m >= 0)
    ]


@pytest.mark.parametrize(("name", "kind"), CHATS)
def test_the_tokens_of_every_role_agree(name, kind):
    bare, allowing = collators(name)
    tokens, ids = FAMILIES[name], token_ids(allowing, FAMILIES[name])
    text = "at " + " and ".join(tokens)
    by_message = found(allowing, kind, text, tokens)
    assert len(by_message) == len(chat(kind, text))
    for _, seen in by_message:
        assert seen in (ids, ids + ids)  # twice with reasoning that the template writes
    without = dict(found(bare, kind, text, tokens))
    roles = {i: message["role"] for i, message in enumerate(chat(kind, text))}
    assert all(bool(seen) == (roles[i] == "assistant") for i, seen in without.items())


@pytest.mark.filterwarnings("ignore::vlmcollate.errors.SpelledTokenWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_allowed_text_is_tokens_and_forbidden_text_never_is(name):
    pieces = st.sampled_from([*FAMILIES[name], *FORBIDDEN[name], " a ", "b", "\n"])
    (_, collator), tokens = collators(name), FAMILIES[name]

    @settings(max_examples=25, deadline=None)
    @given(st.lists(pieces, min_size=1, max_size=8))
    def holds(chosen):
        text = f"x{''.join(chosen)}y"
        sample = collator.encode(chat("question", text))
        ids, messages = sample.input_ids.tolist(), sample.message_ids.tolist()
        expected = [i for t in chosen if t in tokens for i in token_ids(collator, [t])]
        forbidden = set(token_ids(collator, FORBIDDEN[name]))
        for message in (0, 1):
            own = [i for i, m in zip(ids, messages, strict=True) if m == message]
            assert [i for i in own if i in set(token_ids(collator, tokens))] == expected
            stops = 1 if message else 0  # the end of the answer
            assert sum(i in forbidden for i in own) <= stops

    holds()


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_of_turns_and_media_cannot_be_allowed(name):
    bare, _ = collators(name)
    for token in FORBIDDEN[name]:
        with pytest.raises(ConfigError, match=r"open or close turns or stand for media"):
            collator_for(bare.processor, allowed_special_tokens=[token])


@pytest.mark.filterwarnings("ignore::vlmcollate.errors.SpelledTokenWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_explain_names_the_option_for_exactly_the_tokens_that_it_takes(name):
    bare, allowing = collators(name)
    text = " ".join((*FAMILIES[name], *FORBIDDEN[name]))
    (warning,) = [w for w in bare.explain(chat("question", text)).warnings if "[0]" in w]
    assert warning.endswith(f"set allowed_special_tokens={list(FAMILIES[name])}")
    (warning,) = [w for w in allowing.explain(chat("question", text)).warnings if "[0]" in w]
    assert "allowed_special_tokens" not in warning
