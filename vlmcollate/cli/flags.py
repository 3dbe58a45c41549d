"""Errors of the library in the words of the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import typer

from vlmcollate.errors import CollateError, ConfigError

_NAME = re.compile(
    r"(?<![\w.\-/\"'(])(?<!-O )(?<!--option )(?P<name>[a-z]+(?:_[a-z]+)*)"
    r"(?:=(?P<value>\"[^\"]*\"|'[^']*'|\.\.\.|-?\w+(?:\.\d+)?)|(?P<wrong>(?= must be| is wrong))"
    r"|(?![\w.=(\-]|\.\w))"
)
"""A name in a sentence, but not in a call, a path or quotation marks."""
_QUOTES = "\"'"


_running: ContextVar[dict[str, Any]] = ContextVar("_running", default={})  # noqa: B039  # never written
"""The options of the command that runs, by their Python names."""


@contextmanager
def naming_flags(context: typer.Context) -> Iterator[None]:
    """Names the flags of a command in its errors.

    Args:
        context: The context of the command.

    Raises:
        ConfigError: An error of vlmcollate left the context.
    """
    params = context.command.params
    options = {str(p.name): p for p in params if p.param_type_name == "option"}
    token = _running.set(options)
    try:
        yield
    except CollateError as error:
        raise ConfigError(in_flags(str(error))) from error
    finally:
        _running.reset(token)


def in_flags(text: str) -> str:
    """Names the flags of the running command in place of the options of Python.

    Args:
        text: The text of an error.

    Example:
        >>> in_flags("raise max_length=4")  # no command runs
        'raise max_length=4'
    """
    flags = _running.get()
    others = _collator_options() if "option" in flags else frozenset()

    def renamed(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        is_certain = "_" in name or value is not None or found["wrong"] is not None
        if not is_certain or (name not in flags and name not in others):
            return found.group()
        if name not in flags:
            return f"--option {name}" + ("" if value is None else f"={value.strip(_QUOTES)}")
        return _flag(flags[name], value)

    if "media_root" in flags:
        text = text.replace("set the root option", "set --media-root")
    return _NAME.sub(renamed, text)


def _flag(option: Any, value: str | None) -> str:
    flag: str = max(option.opts, key=len)
    if value is None or (option.is_flag and value == "True"):
        return flag
    if value in ("None", "False"):
        return f"no {flag}"
    return f"{flag} {value.strip(_QUOTES)}"


def _collator_options() -> frozenset[str]:
    """The options of collators, as soon as they are imported; no error names one before."""
    module: object = sys.modules.get("vlmcollate.encode.options")
    typed: object = getattr(module, "CollatorOptionsDict", None)
    names: Mapping[str, object] = getattr(typed, "__annotations__", {})
    return frozenset(names) - {"model_config"}  # which commands load with the processor
