"""Renders compiled chat templates in Jinja's sandbox, which remembers what templates may read.

For each attribute that a template reads, the sandbox checks whether the object is an instance of a
dozen abstract classes. The result depends on the object's class and the name alone.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

Write = Callable[[Mapping[str, Any]], str]
"""A function that returns the text of a template for the values of its variables."""

_OF_DICTIONARIES = frozenset(dir(dict))


class _RememberingSandbox(ImmutableSandboxedEnvironment):
    """The sandbox of transformers, which checks each class and name once."""

    known: dict[tuple[type, str], bool]

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        key = type(obj), attr
        if key not in self.known:
            self.known[key] = super().is_safe_attribute(obj, attr, value)
        return self.known[key]

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is not dict or attribute in _OF_DICTIONARIES:
            return super().getattr(obj, attribute)
        if attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj, name=attribute)


@lru_cache
def writer_of(compiled: jinja2.Template) -> Write:
    """Returns a function that renders a compiled template as its `render` does.

    Args:
        compiled: The template.
    """
    scopes: Any = compiled.globals
    render, concat = _root(compiled), compiled.environment.concat

    def write(given: Mapping[str, Any]) -> str:
        # merged here, since Jinja looks up each global name in all scopes
        names = {k: v for scope in reversed(scopes.maps) for k, v in scope.items()}
        return concat(render(compiled.new_context({**names, **given}, shared=True)))

    return write


def _root(compiled: jinja2.Template) -> Any:
    """Returns the function of a template, whose environment is the default of an argument."""
    root: Any = compiled.root_render_func
    if type(compiled.environment) is not ImmutableSandboxedEnvironment:
        return root
    sandbox: Any = copy.copy(compiled.environment)
    sandbox.__class__, sandbox.known = _RememberingSandbox, {}
    defaults = (sandbox if value is compiled.environment else value for value in root.__defaults__)
    return types.FunctionType(root.__code__, root.__globals__, root.__name__, tuple(defaults))
