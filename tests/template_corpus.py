"""Collates chats with every chat template that a package carries, and judges the result.

The judge knows nothing of how turns are found. Each message has words of its own: those of the
assistant have to be trained, no others may be, and the ids have to be those of the template's own
rendering.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import attrs
from PIL import Image

from tests.assets import chat_templates
from vlmcollate import collator_for
from vlmcollate.errors import CollateError
from vlmcollate.testing import tiny_processor

SOURCES = {
    "trl": "templates",
    "axolotl": "templates_axolotl",
    "unsloth": "templates_unsloth",
    "mistral-common": "templates_mistral_common",
}

_CONTROL = re.compile(
    r"<\|?[\w▁｜/: -]+?\|?>|<｜[^｜>]*｜>|\[/?[A-Z_]+\]|</?[\w|]+>|\[\|[\w]+\|\]"
    r"|\[e~\[|\]~!?b[\[\]]|\]<\][\w]+\[>\["
)
_PRINTED_LIST = re.compile(r"""['"]type['"]: ?['"]text['"]""")

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Finds a place.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "description": "Its name."}},
                "required": ["place"],
            },
        },
    }
]


def _said(role: str, words: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": words, **more}


def _call(number: int) -> dict[str, Any]:
    arguments = {"place": f"Xyzzy{number}"}
    function = {"name": "lookup", "arguments": arguments}
    return {"type": "function", "id": f"call0000{number}", "function": function}


def _result(number: int, words: str) -> dict[str, Any]:
    return _said("tool", words, name="lookup", tool_call_id=f"call0000{number}")


_SYSTEM = _said("system", "Wombat rules")
_ASKED = _said("user", "Quokka?")
_AGAIN = _said("user", "Bilby?")
_ONE, _TWO = _said("assistant", "Numbat one"), _said("assistant", "Potoroo two")
_THREE = [_ASKED, _ONE, _AGAIN, _TWO, _said("user", "Dunnart?"), _said("assistant", "Kowari three")]

_SHOWN = {**_ASKED, "images": 1}

CHATS: dict[str, list[dict[str, Any]]] = {
    "one turn": [_ASKED, _ONE],
    "system and one turn": [_SYSTEM, _ASKED, _ONE],
    "three turns": _THREE,
    "system and three turns": [_SYSTEM, *_THREE],
    "greeting": [_ONE, _ASKED, _TWO],
    "system and greeting": [_SYSTEM, _ONE, _ASKED, _TWO],
    "reasoning": [
        _ASKED,
        {**_ONE, "reasoning_content": "Thinkish Deepish"},
        _AGAIN,
        {**_TWO, "reasoning_content": "Ponderish Longish"},
    ],
    "a call": [
        _ASKED,
        _said("assistant", "", tool_calls=[_call(0)]),
        _result(0, "Resultish"),
        _TWO,
    ],
    "calls in a row": [
        _ASKED,
        _said("assistant", "", tool_calls=[_call(0)]),
        _result(0, "Resultish"),
        _said("assistant", "", tool_calls=[_call(1)]),
        _result(1, "Resulttwo"),
        _TWO,
        _AGAIN,
        _said("assistant", "Kowari three"),
    ],
    "text and calls": [
        _ASKED,
        _said("assistant", "Calling", tool_calls=[_call(0)]),
        _result(0, "Resultish"),
        _said("assistant", "", tool_calls=[_call(1)]),
        _result(1, "Resulttwo"),
        _TWO,
    ],
    "an image": [_SHOWN, _ONE],
    "system and an image": [_SYSTEM, _SHOWN, _ONE],
    "a later image": [_ASKED, _ONE, {**_SHOWN, "content": "Bilby?"}, _TWO],
}
"""Chats of which no two messages share a word."""

FORMS = ("strings", "lists")
_IMAGE = Image.new("RGB", (56, 56))
_IMAGE_TOKEN = "<|image_pad|>"  # that of the processor

REASONS = {
    "this turn has no stop token": "no token ends the turn",
    "the template moves a part": "a part of a message stands behind a later one",
    "does not begin with the generation prompt": "a turn differs from its generation prompt",
    "has no generation prompt": "the template has no generation prompt",
    "the prompt before this turn cannot be rendered": "no prompt can be rendered before a turn",
    "omits messages before this turn": "no prompt can be rendered before a turn",
    "own text depends on": "the template's own text depends on a message's words",
    "refuses this conversation": "the template refuses the form of the content",
}
"""What an error says, and the reason why a chat is refused."""

NOT_RENDERED, EXACT = "not rendered", "exact"


class WrongError(Exception):
    """A chat that is neither exact nor refused for a known reason."""


def templates() -> dict[str, str]:
    """Returns the distinct templates by the package and their name in it."""
    from transformers.models.llama4 import processing_llama4
    from transformers.models.smolvlm import processing_smolvlm

    found = {
        f"{package}/{name}": text
        for package, asset in SOURCES.items()
        for name, text in chat_templates(asset).items()
    }
    found["transformers/llama4"] = processing_llama4.chat_template
    found["transformers/smolvlm"] = processing_smolvlm.DEFAULT_CHAT_TEMPLATE
    first = {text: name for name, text in reversed(found.items())}
    return {name: text for name, text in found.items() if first[text] == name}


@attrs.frozen(eq=False)
class Judge:
    """Collates chats with one template.

    Args:
        template: The text of the template.
        options: The options of the collator.
    """

    template: str
    options: Mapping[str, Any] = attrs.field(factory=dict)
    processor: Any = attrs.field(init=False)
    collator: Any = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        processor = tiny_processor()
        processor.chat_template = _with_image_token(processor, self.template)
        known = processor.tokenizer.get_vocab()
        tokens = dict.fromkeys(_CONTROL.findall(self.template + self._written(processor)))
        new = [t for t in tokens if t not in known and len(t) < 60 and "\n" not in t]
        processor.tokenizer.add_special_tokens({"additional_special_tokens": new})
        object.__setattr__(self, "processor", processor)
        object.__setattr__(self, "collator", collator_for(processor, **self.options))

    def _written(self, processor: Any) -> str:
        """Returns a rendering, since some templates join the names of their tokens."""
        for name in ("calls in a row", "reasoning", "one turn"):
            text = _rendered(processor, CHATS[name], TOOLS)
            if text:
                return text
        return ""

    def __call__(self, name: str, form: str) -> str:
        """Returns `EXACT`, `NOT_RENDERED` or the reason why a chat is refused.

        Raises:
            WrongError: The chat is collated, but not as it has to be.
        """
        tools = TOOLS if "call" in name else None
        images = sum(message.get("images", 0) for message in CHATS[name])
        if images and form == "strings":
            return NOT_RENDERED
        chat = CHATS[name] if form == "strings" else [_as_list(m) for m in CHATS[name]]
        text = _rendered(self.processor, chat, tools)
        if not _keeps(text, CHATS[name]) or text.count(_IMAGE_TOKEN) != images:
            return NOT_RENDERED
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sample = self.collator.encode(self.row(name, form))
        except CollateError as error:
            return _reason(error)
        trained = self.processor.tokenizer.decode(sample.input_ids[sample.labels != -100])
        self._check_words(CHATS[name], text, trained)
        self._check_ids(text, sample.input_ids.tolist())
        return EXACT

    def row(self, name: str, form: str) -> dict[str, Any]:
        """Returns the row of a chat in a form."""
        chat = CHATS[name]
        if form == "lists":
            chat = [_as_list(message, image=_IMAGE) for message in chat]
        return {"messages": chat, **({"tools": TOOLS} if "call" in name else {})}

    def _check_words(self, chat: list[dict[str, Any]], text: str, trained: str) -> None:
        for word in _words(chat, of_assistant=True):
            # the template itself may omit the reasoning of an earlier turn
            if word not in trained and word in text:
                raise WrongError(f"{word!r} is not trained: {trained!r}")
        for word in _words(chat, of_assistant=False):
            if word in trained:
                raise WrongError(f"{word!r} is trained: {trained!r}")
        if not _calls(chat):  # a sentence is the template's, such as a default system message
            own = "|".join(_words(chat, of_assistant=True))
            for piece in re.split(f"{_CONTROL.pattern}|{own}", trained):
                if len(piece.strip()) > 40:
                    raise WrongError(f"{piece!r} is trained: {trained!r}")

    def _check_ids(self, text: str, found: list[int]) -> None:
        images = [_IMAGE] * text.count(_IMAGE_TOKEN) or None
        own = self.processor(text=[text], images=images, add_special_tokens=False)["input_ids"][0]
        if found[: len(own)] != own or len(found) > len(own) + 1:
            raise WrongError(f"{self.processor.tokenizer.decode(found)!r} is not {text!r}")


@cache
def judge(template: str) -> Judge:
    """Returns the judge of a template's text."""
    return Judge(template)


def _with_image_token(processor: Any, template: str) -> str:
    """Returns a template that writes the token of the processor for an image."""
    processor.chat_template = template
    shown, asked = (_rendered(processor, [_as_list(m)], None) for m in (_SHOWN, _ASKED))
    same = next((i for i, (a, b) in enumerate(zip(shown, asked, strict=False)) if a != b), 0)
    tokens, behind = _CONTROL.findall(shown[same:]), _CONTROL.findall(asked[same:])
    new = tokens[: len(tokens) - len(behind)]
    if not new or _IMAGE_TOKEN in new:
        return template
    # some put a token before and behind it
    return template.replace(new[len(new) // 2], _IMAGE_TOKEN)


def _as_list(message: Mapping[str, Any], **image: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image", **image}] * message.get("images", 0)
    if message["content"]:
        parts.append({"type": "text", "text": message["content"]})
    return {"role": message["role"], **_others(message), "content": parts or ""}


def _others(message: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in message.items() if k not in ("role", "content", "images")}


def _rendered(processor: Any, chat: list[dict[str, Any]], tools: Any) -> str:
    """Returns what the template itself makes of a chat, or nothing if it refuses it."""
    try:
        text = processor.apply_chat_template(chat, tools=tools, tokenize=False)
    except Exception:  # noqa: BLE001  # whatever a template raises
        return ""
    return text if isinstance(text, str) else ""


def _keeps(text: str, chat: list[dict[str, Any]]) -> bool:
    """Returns whether a rendering holds the messages, and no list as Python or JSON writes it."""
    said = [word for message in chat for word in message["content"].split()]
    called = re.findall(r"Xyzzy\d", str(chat))
    return all(word in text for word in [*said, *called]) and not _PRINTED_LIST.search(text)


def _calls(chat: Iterable[Mapping[str, Any]]) -> bool:
    return any("tool_calls" in message for message in chat)


def _words(chat: Iterable[Mapping[str, Any]], *, of_assistant: bool) -> list[str]:
    found: list[str] = []
    for message in chat:
        if (message["role"] == "assistant") == of_assistant:
            found += message.get("reasoning_content", "").split()
            found += message["content"].split()
            found += re.findall(r"Xyzzy\d", str(message.get("tool_calls", "")))
    return found


def _reason(error: CollateError) -> str:
    for part, reason in REASONS.items():
        if part in str(error):
            return reason
    raise WrongError(f"refused without a known reason: {error}")


@attrs.frozen
class Measured:
    """What collating all chats with one template showed.

    Attributes:
        name: The package and the template's name in it.
        exact: The number of chats that are exact.
        refused: For each reason, the chats that are refused, in any form.
        rendered: The number of chats that the template renders.
    """

    name: str
    exact: int
    refused: Mapping[str, list[str]]
    rendered: int

    @property
    def row(self) -> str:
        """The template's row of the page."""
        reasons = "; ".join(f"{', '.join(c)}: {reason}" for reason, c in self.refused.items())
        return f"| `{self.name}` | {self.exact} of {self.rendered} | {reasons} |"


def measure(name: str, template: str) -> Measured:
    """Collates every chat in every form with a template."""
    collate = judge(template)
    found = {(chat, form): collate(chat, form) for chat in CHATS for form in FORMS}
    refused: dict[str, list[str]] = {}
    for (chat, _), result in found.items():
        if result not in (EXACT, NOT_RENDERED) and chat not in refused.setdefault(result, []):
            refused[result].append(chat)
    results = list(found.values())
    rendered = len(results) - results.count(NOT_RENDERED)
    return Measured(name, results.count(EXACT), refused, rendered)


def page(measured: Iterable[Measured]) -> str:
    """Returns the docs page."""
    rows = sorted(measured, key=lambda row: row.name)
    exact, rendered = sum(r.exact for r in rows), sum(r.rendered for r in rows)
    packages = ", ".join(sorted({row.name.partition("/")[0] for row in rows}))
    lines = [
        _PAGE.format(
            templates=len(rows),
            packages=packages,
            chats=len(CHATS),
            rendered=rendered,
            exact=exact,
            share=100 * exact / rendered,
            refused=rendered - exact,
        ),
        "| template | exact | refused |",
        "| --- | --- | --- |",
        *(row.row for row in rows if row.rendered),
    ]
    return "\n".join(lines) + "\n"


_PAGE = """\
# Chat templates

This page lists the distinct chat templates of the packages {packages}.
It shows the result of collating chats with each of them, with no option set.
`scripts/write_templates_table.py` generates it.

The {templates} templates were given {chats} chats: one and several turns, with and without a
system message, opening with the assistant, with reasoning, with tool calls and with an image,
those without an image with contents as strings and as lists. The processor is a small Qwen2.5-VL
whose template is replaced; its image token stands for that of the template. Of the {rendered}
chats that a template renders without loss:

| result | chats | meaning |
| --- | --- | --- |
| exact | {exact} ({share:.1f}%) | every word of the assistant trains and no other word does; the \
token ids are those of the template's own rendering, apart from a stop token after a turn that \
the template leaves open |
| refused | {refused} | an error names the message and the reason |
| wrong | 0 | |

A template does not render a chat if it raises an error, omits a message, or prints a list of
content parts as JSON.
"""
