"""The values of options on the command line: JSON, literals and calls of public classes."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
from typing import Any

from vlmcollate.errors import ConfigError


def value_of(text: str) -> Any:
    """Returns the value of an option: JSON, a literal or a call of Python, or the text itself.

    Args:
        text: Such as `512`, `true`, `["<a>"]`, `batch`, `PadToLongest` or
            `LocalMedia(max_bytes=1000)`.

    Raises:
        ConfigError: It calls something that is no public class of the library, or with other
            options.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    if isinstance(node, ast.Name):
        kind = _classes().get(node.id)
        return text if kind is None else _called(kind, [], {}, text)
    return text if isinstance(node, ast.BinOp | ast.Attribute) else _evaluated(node, text)


def _evaluated(node: ast.expr, text: str) -> Any:
    """The value of a literal, or of a call of a public class with literals."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        kind = _classes().get(node.func.id)
        if kind is None or any(k.arg is None for k in node.keywords):
            raise ConfigError(
                f"{node.func.id!r} in {text!r} is unknown: expected a public class of vlmcollate"
                + _hint(node.func.id, _classes())
            )
        given = [_evaluated(value, text) for value in node.args]
        named = {str(k.arg): _evaluated(k.value, text) for k in node.keywords}
        return _called(kind, given, named, text)
    if isinstance(node, ast.List | ast.Tuple):
        items = [_evaluated(item, text) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{text!r} is wrong: expected JSON, a literal of Python, or a call of a public class"
        ) from error


def _classes() -> dict[str, Any]:
    """The public classes by name."""
    import vlmcollate
    from vlmcollate import formats

    names = {name: getattr(vlmcollate, name) for name in vlmcollate.__all__}
    names |= {name: getattr(formats, name) for name in formats.__all__}
    return {name: found for name, found in names.items() if inspect.isclass(found)}


def _called(kind: Any, given: list[Any], named: dict[str, Any], text: str) -> Any:
    """Calls a class; a wrong call names the options that it takes."""
    signature = inspect.signature(kind)
    try:
        signature.bind(*given, **named)
        return kind(*given, **named)
    except ConfigError as error:
        raise ConfigError(f"{text!r} is wrong: {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        shown = ", ".join(f"{name}=..." for name in signature.parameters)
        raise ConfigError(
            f"{text!r} is wrong: {error}; write {kind.__name__}({shown}) with its options"
        ) from error


def _hint(name: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
