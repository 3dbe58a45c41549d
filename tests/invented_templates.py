"""Chat templates that nobody published, whose masks are known since they are built from the parts.

They combine what published templates do: headers of tokens, of words and of both, the same end for
all turns or one of its own, and a generation prompt that is asked for, always there, written behind
questions alone, or never.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import attrs
from hypothesis import strategies as st

from vlmcollate.testing import tiny_processor

Chat = Sequence[Mapping[str, Any]]
ROLES = ("system", "user", "assistant")
END = "<|z|>"
HEADERS = {
    "ChatML": {role: f"<|a|>{role}\n" for role in ROLES},
    "Llama 3": {role: f"<|a|>{role}<|m|>\n\n" for role in ROLES},
    "Phi": {role: f"<|{role}|>\n" for role in ROLES},
    "tokens": {"system": "<|s|>", "user": "<|u|>", "assistant": "<|b|>"},
    "two tokens": {"system": "<|a|><|s|>", "user": "<|a|><|u|>", "assistant": "<|a|><|b|>"},
    "words": {"system": "System: ", "user": "User: ", "assistant": "Assistant: "},
    "answers only": {"system": "<|s|>", "user": "", "assistant": "<|b|>"},
}
TOKENS = ["<|a|>", "<|b|>", "<|c|>", "<|e|>", "<|m|>", "<|s|>", "<|u|>", END, "<|bos|>"]
TOKENS += [f"<|{role}|>" for role in ROLES]


@attrs.frozen(kw_only=True)
class InventedTemplate:
    """A template, and what trains in its chats.

    Args:
        headers: The text before the words of each role.
        question_end: The text behind a question; answers and system messages end with a token.
        line: The text behind that token.
        asks: When the template writes a generation prompt.
        part: The text that it writes into each answer before its words.
        trims: Whether it trims words.
        bos: The text before the first message.
        rules: Its own system message; empty if it has none.
    """

    headers: Mapping[str, str]
    question_end: str = END
    line: str = ""
    asks: Literal["if asked", "behind questions", "always", "never"] = "if asked"
    part: str = ""
    trims: bool = False
    bos: str = ""
    rules: str = ""

    @property
    def text(self) -> str:
        """The chat template."""
        prompt = _literal(self.headers["assistant"])
        asked = {
            "if asked": "add_generation_prompt",
            "behind questions": "add_generation_prompt and messages[-1].role == 'user'",
            "always": "true",
            "never": "false",
        }[self.asks]
        words = "{{ m.content | trim }}" if self.trims else "{{ m.content }}"
        turns = "".join(
            f"{{% if m.role == '{role}' %}}{_literal(self.headers[role])}"
            f"{_literal(self.part) if role == 'assistant' else ''}{words}"
            f"{_literal(self._end(role))}{{% endif %}}"
            for role in ROLES
        )
        own = _literal(self._own_system())
        return (
            f"{_literal(self.bos)}{{% if messages[0].role != 'system' %}}{own}{{% endif %}}"
            f"{{% for m in messages %}}{turns}{{% endfor %}}{{% if {asked} %}}{prompt}{{% endif %}}"
        )

    def marked(self, chat: Chat) -> str:
        """The rendering of a chat, with brackets around what trains, without whitespace."""
        return bracketed(self._pieces(chat))

    def _pieces(self, chat: Chat) -> Iterator[tuple[str, bool]]:
        yield self.bos + (self._own_system() if chat[0]["role"] != "system" else ""), False
        for message in chat:
            role, words = message["role"], message["content"]
            is_trained = role == "assistant" and message.get("weight", 1) != 0
            yield self.headers[role], False
            yield self.part if role == "assistant" else "", is_trained
            yield words, is_trained
            end = self._end(role)
            size = len(END) if role == "assistant" else 0
            yield end[:size], is_trained
            yield end[size:], False
        yield self.headers["assistant"] if self.asks == "always" else "", False

    def _end(self, role: str) -> str:
        return self.question_end if role == "user" else END + self.line

    def _own_system(self) -> str:
        return self.headers["system"] + self.rules + self._end("system") if self.rules else ""

    def processor(self) -> Any:
        """A processor with the template, whose tokenizer has its tokens."""
        processor = tiny_processor()
        processor.chat_template = self.text
        processor.tokenizer.add_special_tokens({"additional_special_tokens": TOKENS})
        return processor


def bracketed(pieces: Iterator[tuple[str, bool]] | Sequence[tuple[str, bool]]) -> str:
    """Joins texts that train or not, without whitespace, with brackets around those that do."""
    found, inside = "", False
    for text, is_trained in pieces:
        bare = "".join(text.split())
        if bare and is_trained != inside:
            found, inside = found + ("⟦" if is_trained else "⟧"), is_trained
        found += bare
    return found + ("⟧" if inside else "")


def _literal(text: str) -> str:
    return "{{ " + repr(text) + " }}" if text else ""


def templates(headers: str) -> st.SearchStrategy[InventedTemplate]:
    """Templates with one kind of headers."""
    ends = [END, "<|e|>", "\n", " /think\n"]
    return st.builds(
        InventedTemplate,
        headers=st.just(HEADERS[headers]),
        question_end=st.sampled_from([""] if headers == "answers only" else ends),
        line=st.sampled_from(["", "\n"]),
        asks=st.sampled_from(["if asked", "behind questions", "always", "never"]),
        part=st.sampled_from(["", "<|c|>"]),
        trims=st.booleans(),
        bos=st.sampled_from(["", "<|bos|>"]),
        rules=st.sampled_from(["", "Be kind to the user."]),
    )


_ANSWERS = ["Numbat one", "Two", "", "  ", " Lead", "trail ", "\nuser said\n", "assistant", "user"]
_ANSWERS += ["Assistant: yes", "<|b|>", "<|a|>assistant\nx", f"{END} not", "<|c|>", "wombat"]
_QUESTIONS = ["Quokka?", "Dunnart", "", "user", " space ", "<|b|>", f"say {END}", "Assistant:"]
_RULES = ["Rules", "", "You assistant", "<|b|>"]


def chats() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Chats of one to three questions, perhaps with rules, a greeting or a second answer."""

    def said(role: str, texts: list[str]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries({"role": st.just(role), "content": st.sampled_from(texts)})

    unweighted = said("assistant", _ANSWERS[:2]).map(lambda m: {**m, "weight": 0})
    answer = st.one_of(said("assistant", _ANSWERS), unweighted)
    turn = st.tuples(said("user", _QUESTIONS), st.lists(answer, min_size=1, max_size=2))
    rules = st.lists(said("system", _RULES), max_size=1)
    turns = st.lists(turn.map(lambda t: [t[0], *t[1]]), min_size=1, max_size=3)
    parts = st.tuples(rules, st.lists(answer, max_size=1), turns)
    return parts.map(lambda t: [*t[0], *t[1], *chain.from_iterable(t[2])])
