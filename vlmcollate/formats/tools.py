"""The tools of an example, as JSON schemas."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from transformers.utils import chat_template_utils

from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import as_list, parsed
from vlmcollate.plain_values import describe, fields_of, plain, show, unwrap

_SCHEMA_ERRORS = (
    # what making a JSON schema of a function raises
    chat_template_utils.DocstringParsingException,
    chat_template_utils.TypeHintParsingException,
    AttributeError,
    LookupError,
    NameError,  # of a type hint
    SyntaxError,
    TypeError,
    ValueError,
)


def read_tools(value: object, where: str) -> list[Any]:
    """Reads the tools of an example.

    Args:
        value: A list of JSON schemas, or of functions with type hints and a docstring, or one of
            these; JSON of the list, or of a schema, is parsed. An empty string is no tools.
        where: Its path in the example.

    Returns:
        The JSON schemas, copied.

    Raises:
        ConversationError: If a tool is anything else.
    """
    value = parsed(unwrap(value), where, "[{")
    if value == "":
        return []
    is_one = inspect.isroutine(value) or (
        isinstance(value, Mapping) and bool({"name", "function"}.intersection(value))
    )
    items = [value] if is_one else as_list(value, where)
    return [_read_tool(tool, f"{where}[{i}]") for i, tool in enumerate(items)]


def _read_tool(value: object, where: str) -> Mapping[str, Any]:
    if inspect.isfunction(value) or inspect.ismethod(value):
        tool = _schema_of(value, where)
    else:
        tool = fields_of(parsed(unwrap(value), where, "{"))
    if not isinstance(tool, Mapping):
        raise ConversationError(
            f"expected a JSON schema or a function, found {describe(tool)}", where=where
        )
    schema: Mapping[str, Any] = plain(tool, where)
    function = schema.get("function", {})
    if not isinstance(function, Mapping):
        raise ConversationError(
            f"expected a dict with 'name', found {describe(function)}", where=f"{where}.function"
        )
    return schema


def _schema_of(function: Callable[..., Any], where: str) -> Mapping[str, Any]:
    """The JSON schema of a function, made here so that its strings are checked like a dict's."""
    try:
        schema: Mapping[str, Any] = chat_template_utils.get_json_schema(function)
    except _SCHEMA_ERRORS as error:
        raise ConversationError(
            f"no JSON schema can be made of {show(function)}: {error}; give its "
            "arguments type hints and descriptions under 'Args:' in its docstring, or pass the "
            "schema as a dict",
            where=where,
        ) from error
    return schema
