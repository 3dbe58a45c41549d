"""Processors whose chat template is wrong on purpose, each in one way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vlmcollate.testing import tiny_processor

_HEADER = "message.role +"
_FOOTER = "{{- '<|im_end|>\\n' -}}"
_TEXT = "part.text"
_IMAGE = (
    "{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}{%- elif"
)
_ASKS = "{{- '<|im_start|>assistant\\n' -}}"
_LATE_IMAGES = (
    "{%- if message.content is not string -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
)


def _of(role: str, change: str) -> str:
    return f"({change} if message.role == '{role}' else part.text)"


def _said(message: str) -> str:
    return f"{{{{- {message}.content[-1].text if {message}.content is not string -}}}}"


CHANGES: Mapping[str, tuple[str, str]] = {
    "no end token": ("<|im_", "<im_"),
    "swapped roles": (
        _HEADER,
        "{'user': 'assistant', 'assistant': 'user'}.get(message.role, message.role) +",
    ),
    "one role for all": (_HEADER, "'assistant' +"),
    "asks as the user": (_ASKS, "{{- '<|im_start|>user\\n' -}}"),
    "echoes the user": (
        _FOOTER,
        "{%- if message.role == 'assistant' -%}"
        f"{_said('messages[loop.index0 - 1]')}{{%- endif -%}}{_FOOTER}",
    ),
    "answers twice": (
        _FOOTER,
        f"{{%- if message.role == 'assistant' -%}}{_said('message')}{{%- endif -%}}{_FOOTER}",
    ),
    "drops the user": (_TEXT, _of("user", "''")),
    "drops the system": ("message.content is string", "message.role == 'system'"),
    "shouts": (_TEXT, _of("user", "part.text | upper")),
    "shouts answers": (_TEXT, _of("assistant", "part.text | upper")),
    "cuts answers": (_TEXT, _of("assistant", "part.text[:6]")),
    "trims answers": (_TEXT, _of("assistant", "part.text | trim")),  # which is right
    "drops pictures": (_IMAGE, "{%- if part.type == 'nothing' -%}{%- elif"),
    "pictures late": (_IMAGE, "{%- if part.type == 'nothing' -%}{%- elif"),
}
"""For each fault, a piece of the template of `tiny_processor()` and what stands in its place."""


def processor(fault: str) -> Any:
    """A processor with one fault of `CHANGES`."""
    made = tiny_processor()
    old, new = CHANGES[fault]
    template = made.chat_template
    if fault == "drops the system":
        template = template.replace("{{- message.content -}}", "{{- '' -}}", 1)
        old, new = "message.content is string", "message.role == 'system'"
    if fault == "shouts answers":  # else it would be given strings, which it leaves as they are
        is_string = "message.content is string"
        template = template.replace(is_string, f"{is_string} and message.role != 'assistant'")
    if fault == "pictures late":
        template = template.replace(_FOOTER, _LATE_IMAGES + _FOOTER)
    assert old in template, fault
    made.chat_template = template.replace(old, new)
    return made


Build = Callable[[], Any]


_TOOLS = (
    "{%- if tools -%}{{- '<|im_start|>system\\n' -}}"
    "{%- for tool in tools -%}{{- tool | tojson -}}{{- '\\n' -}}{%- endfor -%}"
    "{{- '<|im_end|>\\n' -}}{%- endif -%}"
)
_REASONING = (
    "{%- if message.reasoning_content -%}"
    "{{- '<think>\\n' -}}{{- message.reasoning_content -}}{{- '\\n</think>\\n\\n' -}}{%- endif -%}"
)
_CALLS = (
    '{%- for call in message.tool_calls or [] -%}{{- \'<tool_call>\\n{"name": "\' -}}'
    '{{- call.function.name -}}{{- \'", "arguments": \' -}}{{- call.function.arguments | tojson -}}'
    "{{- '}\\n</tool_call>' -}}{%- endfor -%}"
)


def with_tools() -> Any:
    """A right processor whose template writes tools, calls and reasoning."""
    made = tiny_processor()
    is_string = "{%- if message.content is string -%}"
    assert is_string in made.chat_template
    assert _FOOTER in made.chat_template
    template = made.chat_template.replace(is_string, _REASONING + is_string, 1)
    made.chat_template = _TOOLS + template.replace(_FOOTER, _CALLS + _FOOTER, 1)
    return made
