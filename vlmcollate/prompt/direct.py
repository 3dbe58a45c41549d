"""Finds a chat template, and renders it without the checks and copies of a processor.

The data of a processor's call are copied and checked, and the traceback of a template that refuses
a chat is written again line by line. Neither changes the text.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from operator import is_
from typing import Any

import jinja2
from transformers.utils import chat_template_utils

from vlmcollate.prompt.marks import REASONING_KEYS
from vlmcollate.prompt.sandbox import writer_of

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


def chat_template_of(processor: Any) -> str:
    """Returns the chat template of a processor, or of its tokenizer."""
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    if isinstance(template, str):
        return str(template)
    if isinstance(template, Mapping):
        template = template.get("default", "")
    return str(template or "")


def render_directly(
    processor: Any,
    chat: list[dict[str, Any]],
    tools: Any,
    variables: Mapping[str, Any],
    *,
    asks: bool = False,
) -> str | None:
    """Renders a chat as `apply_chat_template` of `transformers` does.

    Args:
        processor: The processor with the template.
        chat: The messages, which hold no objects.
        tools: The JSON schemas of the tools, or `None`.
        variables: The template's other variables.
        asks: Whether to add a generation prompt.

    Returns:
        The text, or `None` if the processor has a method or templates of its own.

    Raises:
        Exception: One of `TEMPLATE_ERRORS`; the template refuses the chat.
    """
    template = getattr(processor, "chat_template", None)
    if not isinstance(template, str) or not renders_as_usual(processor):
        return None
    if not _taken_names(processor.apply_chat_template.__func__).isdisjoint(variables):
        return None
    messages = [{k: v for k, v in m.items() if v is not None} for m in chat]  # as no template sees
    given = {**processor.tokenizer.special_tokens_map, **variables}
    compile_template = getattr(chat_template_utils, "_compile_jinja_template", None)
    if any(not _REASONING.isdisjoint(message) for message in messages):
        # before it had this function, transformers copied the keys inside its own call
        add_copies = getattr(chat_template_utils, "_alias_reasoning_fields", None)
        compile_template = None if add_copies is None else compile_template
        messages = messages if add_copies is None else add_copies(messages)
    if compile_template is None:
        texts, _ = chat_template_utils.render_jinja_template(
            conversations=[messages],
            tools=tools,
            chat_template=template,
            add_generation_prompt=asks,
            **given,
        )
        return texts[0] if isinstance(texts[0], str) else None
    compiled = compile_template(template)
    given |= {"messages": messages, "tools": tools, "documents": None}
    return writer_of(compiled)({**given, "add_generation_prompt": asks})


_REASONING = frozenset(REASONING_KEYS)
"""The keys that `transformers` copies to each other."""


def renders_as_usual(processor: Any) -> bool:
    """Returns whether a processor has no method of its own to render chats."""
    module = sys.modules.get("transformers.processing_utils")  # which takes seconds to import
    mixin = getattr(module, "ProcessorMixin", None)
    method = getattr(processor.apply_chat_template, "__func__", None)
    if method is None or method is not getattr(mixin, "apply_chat_template", None):
        return False
    helpers = _helpers(mixin)
    if not helpers.isdisjoint(processor.__dict__):
        return False
    kind = processor.__class__
    found = [getattr(mixin, name, None) for name in helpers]
    if not all(map(is_, found, [getattr(kind, name, None) for name in helpers])):
        return False
    return _are_theirs(method, *found, chat_template_utils.render_jinja_template)


@cache
def _helpers(mixin: Any) -> frozenset[str]:
    """Returns the names of a mixin's methods that its `apply_chat_template` calls."""
    names = inspect.unwrap(mixin.apply_chat_template).__code__.co_names
    return frozenset(name for name in names if inspect.isfunction(getattr(mixin, name, None)))


@lru_cache(maxsize=8)
def _are_theirs(*functions: Any) -> bool:
    """Returns whether functions are those of transformers, and of no other package."""
    modules = [getattr(function, "__globals__", {}).get("__name__", "") for function in functions]
    return all(str(module).startswith("transformers.") for module in modules)


@lru_cache(maxsize=1)
def _taken_names(method: Callable[..., Any]) -> frozenset[str]:
    """Returns the names of arguments, which template variables may not have."""
    functions = (method, chat_template_utils.render_jinja_template)
    return frozenset(name for f in functions for name in inspect.signature(f).parameters)
