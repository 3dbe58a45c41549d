"""Renders a chat template without the checks and copies of a processor.

Only renderings that are compared with the processor's own are made this way.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import ProcessorMixin
from transformers.utils import chat_template_utils

from vlmcollate.prompt.templates import TEMPLATE_ERRORS

_ARGUMENTS = frozenset(
    {
        *inspect.signature(ProcessorMixin.apply_chat_template).parameters,
        *inspect.signature(chat_template_utils.render_jinja_template).parameters,
    }
)
"""The names that template variables may not have."""


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
    is_usual = getattr(type(processor), "apply_chat_template", None) is _USUAL
    template = getattr(processor, "chat_template", None)
    if not is_usual or not isinstance(template, str) or not _ARGUMENTS.isdisjoint(variables):
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


_USUAL = ProcessorMixin.apply_chat_template
