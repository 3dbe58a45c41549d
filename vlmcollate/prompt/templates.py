"""Inspects chat templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes

from vlmcollate.conversation import Conversation

TEMPLATE_ERRORS = (
    # raised by templates on purpose, or by access to a missing value
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,  # also RecursionError and NotImplementedError
)


def is_template_error(error: Exception) -> bool:
    """Returns whether a template raised an error, or it is deliberate.

    A TemplateError and a ValueError are deliberate. Any other error outside a running template,
    such as a TypeError, is a bug in the processor's own code.
    """
    if isinstance(error, jinja2.TemplateError | ValueError):
        return True
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "jinja2":
            return True
        traceback = traceback.tb_next
    return False


def refusal_hint(template: str, conversation: Conversation) -> str:
    """Returns what to add to the error of a template, if it knows no tool calls, or nothing."""
    has_calls = any("tool_calls" in message.extra for message in conversation.messages)
    if not has_calls or "tool_calls" in template:
        return ""
    return (
        "; it writes no tool calls, so write them as text of the answer, or set a chat template "
        "that takes 'tool_calls'"
    )


def unseparable(plain: str) -> str:
    """Returns why the strings of a conversation are not found in its rendering, and the remedy."""
    if _PRINTED_PARTS.search(plain):
        return (
            "the chat template writes the list of a message's parts as Python or JSON does; give "
            "the content of the messages as strings"
        )
    return (
        "the chat template's own text depends on the words of a message, so the two cannot be "
        "separated; simplify the message or the template"
    )


_PRINTED_PARTS = re.compile(r"""\[\{['"]type['"]: ?['"]""")


def chat_template_of(processor: Any) -> str:
    """Returns the chat template of a processor, or of its tokenizer."""
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    if isinstance(template, str):
        return str(template)
    if isinstance(template, Mapping):
        template = template.get("default", "")
    return str(template or "")


_PROMPT_VARIABLE = "add_generation_prompt"
_WANTS_STRINGS: dict[tuple[str, str], bool] = {}
_WANTS_JSON: dict[str, bool] = {}
_WANTS_EMPTY: dict[str, bool] = {}
_WANTS_LISTS: dict[tuple[str, str], bool] = {}


def wants_strings(processor: Any, template: str, role: str) -> bool:
    """Returns whether a template supports only strings as a role's content."""
    key = template, role
    if key not in _WANTS_STRINGS:
        if role == "user":
            found = _takes_strings_alone([[]], processor, role)
        else:
            as_text = wants_strings(processor, template, "user")
            found = _takes_strings_alone(_contexts(role, as_text), processor, role)
            found = as_text if found is None else found
        _WANTS_STRINGS[key] = bool(found)
    return _WANTS_STRINGS[key]


def wants_lists(processor: Any, template: str, role: str) -> bool:
    """Returns whether a template drops or misprints a role's strings."""
    key = template, role
    if key not in _WANTS_LISTS:
        as_text = role != "user" and not wants_lists(processor, template, "user")
        before = [[]] if role == "user" else _contexts(role, as_text)
        written = (_probe(processor, messages, role, _WORD) for messages in before)
        _WANTS_LISTS[key] = not any(_WORD in text for text in written)
    return _WANTS_LISTS[key]


def wants_json_arguments(processor: Any, template: str) -> bool:
    """Returns whether a template takes the arguments of calls as a JSON string only."""
    if template not in _WANTS_JSON:
        as_dict, as_text = (_written_call(processor, given) for given in ({_WORD: 1}, _ARGUMENTS))
        # a dict that is joined with text shows as Python writes it
        dict_is_good = _WORD in as_dict and f"{{'{_WORD}'" not in as_dict
        _WANTS_JSON[template] = not dict_is_good and _ARGUMENTS in as_text
    return _WANTS_JSON[template]


def wants_empty_strings(processor: Any, template: str) -> bool:
    """Returns whether a template takes a call without text with an empty string only."""
    if template not in _WANTS_EMPTY:
        as_list = _written_call(processor, {_WORD: 1}, [[]])
        as_text = _written_call(processor, {_WORD: 1}, [""])
        _WANTS_EMPTY[template] = _WORD in as_text and _WORD not in as_list
    return _WANTS_EMPTY[template]


def _written_call(processor: Any, arguments: Any, contents: Sequence[Any] = ()) -> str:
    """Returns what a template writes of a call, whatever form it takes of the messages.

    Args:
        processor: A processor with the template.
        arguments: The arguments of the call.
        contents: The contents to try beside the call; by default all that are usual.
    """
    call = {
        "type": "function",
        "id": "call00000",
        "function": {"name": "f", "arguments": arguments},
    }
    answers: list[dict[str, Any]] = [{"content": content} for content in contents]
    answers = answers or [{}, {"content": ""}, {"content": None}, {"content": []}]
    for content in ("a", [_part("a")]):
        for answer in answers:
            chat = [
                {"role": "user", "content": content},
                {"role": "assistant", "tool_calls": [call], **answer},
            ]
            try:
                return str(processor.apply_chat_template(chat))
            except TEMPLATE_ERRORS:
                continue
    return ""


def _contexts(role: str, as_text: bool) -> list[list[dict[str, Any]]]:  # noqa: FBT001
    """Returns the messages that one of this role may need before it."""

    def message(role: str, **more: Any) -> dict[str, Any]:
        return {"role": role, "content": "a" if as_text else [_part("a")], **more}

    user = message("user")
    if role in ("system", "developer"):
        return [[]]
    call = {"type": "function", "id": "call00000", "function": {"name": "f", "arguments": {}}}
    calling = message("assistant", tool_calls=[call])
    return [[user], [user, message("assistant")], [user, calling]]


def _takes_strings_alone(
    contexts: list[list[dict[str, Any]]], processor: Any, role: str
) -> bool | None:
    """Returns whether only strings are kept unchanged; `None` if nothing is."""
    for before in contexts:
        in_parts = _probe(processor, before, role, [_part(_WORD)])
        if _WORD in in_parts and not re.search(f"['\"]{_WORD}['\"]", in_parts):
            return False
        if _WORD in _probe(processor, before, role, _WORD):
            return True
    return None


_WORD = "probe"
_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "f", "parameters": {"properties": {}}},
}
_ARGUMENTS = f'{{"{_WORD}": 1}}'


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _probe(processor: Any, before: list[dict[str, Any]], role: str, content: object) -> str:
    message = {"role": role, "content": content, "tool_call_id": "call00000", "name": "f"}
    if role != "tool":
        message = {"role": role, "content": content}
    after = [{"role": "user", "content": "a"}] if role in ("system", "developer") else []
    given: tuple[dict[str, Any], ...] = ({}, {"tools": [_TOOL]})  # some loop over the tools
    for tools in given:
        for rest in (after, [{**m, "content": [_part("a")]} for m in after]):
            try:
                return str(processor.apply_chat_template([*before, message, *rest], **tools))
            except TEMPLATE_ERRORS:
                continue
    return ""


@lru_cache
def prompt_is_constant(template: str) -> bool:
    """Returns whether the generation prompt depends only on variables."""
    tree = _parse(template)
    own = {"messages", "tools", "documents"}
    own |= {n.name for n in tree.find_all(nodes.Name) if n.ctx in ("store", "param")}
    guards = [node for node in tree.find_all((nodes.If, nodes.CondExpr)) if _asks(node)]
    uses = [n for n in tree.find_all(nodes.Name) if n.name == _PROMPT_VARIABLE]
    read = {n.name for node in guards for n in node.find_all(nodes.Name)}
    return len(uses) == len(guards) and not read & own


def _asks(node: Any) -> bool:
    """Returns whether a condition tests for the generation prompt."""
    names = [node.test] if isinstance(node.test, nodes.Name) else node.test.find_all(nodes.Name)
    return any(name.name == _PROMPT_VARIABLE for name in names)


_SWITCHES: dict[str, tuple[Any, ...]] = {
    "enable_thinking": (False, True),
    "thinking": (False, True),
    "reasoning_effort": ("none", "low", "medium", "high"),
}
"""The variables by which published templates turn thinking on and off, with their values."""


@lru_cache
def switches_of(template: str) -> tuple[Mapping[str, Any], ...]:
    """Returns the values of a template's switches for thinking, one variable at a time."""
    names = {name.name for name in _parse(template).find_all(nodes.Name)}
    return tuple(
        {name: value} for name, values in _SWITCHES.items() if name in names for value in values
    )


@lru_cache
def literals_of(template: str) -> frozenset[str]:
    """Returns the strings in a template's calls, comparisons and filters."""
    tree = _parse(template)
    found: set[str] = set()
    for parent in tree.find_all((nodes.Call, nodes.Compare, nodes.Filter)):
        found |= {c.value for c in parent.find_all(nodes.Const) if isinstance(c.value, str)}
    return frozenset(t.strip() for t in found if re.search(r"[^\w\s]", t) and len(t.strip()) > 1)


@lru_cache
def constants_of(template: str) -> frozenset[str]:
    """Returns all strings in a template's expressions, without outer whitespace."""
    consts = _parse(template).find_all(nodes.Const)
    return frozenset({c.value.strip() for c in consts if isinstance(c.value, str)} - {""})


@lru_cache
def tested_literals(template: str) -> re.Pattern[str]:
    """Returns a pattern for the strings that a template tests for."""
    longest_first = sorted(literals_of(template), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


@lru_cache(maxsize=16)  # each function here parses a new template once
def _parse(template: str) -> nodes.Template:
    extensions: list[str | type[jinja2.ext.Extension]] = ["jinja2.ext.loopcontrols", _GenerationTag]
    environment = jinja2.Environment(extensions=extensions)  # noqa: S701 - it renders nothing
    return environment.parse(template)


class _GenerationTag(jinja2.ext.Extension):
    """Parses {% generation %} blocks, of which only the body matters here."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        always = nodes.Const(True)  # noqa: FBT003 - jinja2 takes it only by position
        return nodes.If(always, body, [], [], lineno=lineno)
