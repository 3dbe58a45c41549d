"""Renders a chat template without the checks and copies of a processor.

Only renderings that are compared with the processor's own are made this way.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from transformers.utils import chat_template_utils

from vlmcollate.prompt.templates import TEMPLATE_ERRORS


def render_directly(
    processor: Any, chat: list[dict[str, Any]], tools: Any, variables: Mapping[str, Any]
) -> str | None:
    """Renders a chat as `apply_chat_template` of `transformers` does.

    Args:
        processor: The processor with the template.
        chat: The messages, which hold no objects.
        tools: The JSON schemas of the tools, or `None`.
        variables: The template's other variables.

    Returns:
        The text, or `None` if the processor has a method or templates of its own, or the template
        fails.
    """
    template = getattr(processor, "chat_template", None)
    if not isinstance(template, str) or not renders_as_usual(processor):
        return None
    if not _taken_names(processor.apply_chat_template.__func__).isdisjoint(variables):
        return None
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            conversations=[[_present(message) for message in chat]],
            tools=tools,
            chat_template=template,
            **{**processor.tokenizer.special_tokens_map, **variables},
        )
    except TEMPLATE_ERRORS:
        return None
    text = texts[0]
    return text if isinstance(text, str) else None


def _present(message: dict[str, Any]) -> dict[str, Any]:
    """Returns a message without the keys whose value is `None`, which no template sees."""
    return {key: value for key, value in message.items() if value is not None}


def renders_as_usual(processor: Any) -> bool:
    """Returns whether a processor has no method of its own to render chats."""
    module = sys.modules.get("transformers.processing_utils")  # which takes seconds to import
    usual = getattr(getattr(module, "ProcessorMixin", None), "apply_chat_template", None)
    method = getattr(processor.apply_chat_template, "__func__", None)
    return method is not None and method is usual


@lru_cache(maxsize=1)
def _taken_names(method: Callable[..., Any]) -> frozenset[str]:
    """Returns the names of arguments, which template variables may not have."""
    functions = (method, chat_template_utils.render_jinja_template)
    return frozenset(name for f in functions for name in inspect.signature(f).parameters)
