"""The values that the code of a function refers to by a name."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import attrs

from vlmcollate.data.code_names import (
    imported_in,
    names_in,
    package_of,
    written_in,
)
from vlmcollate.data.named_values import is_followed

Globals = frozenset[tuple[int, str, str]]
"""Globals: the identity of the dictionary that holds it, its name, and a key; see `written_in`."""


@attrs.frozen(eq=False)
class Reference:
    """A value that code names.

    Attributes:
        scope: The identity of the dictionary that holds it.
        module: The name of the module of which it is an attribute; "" for that of the code.
        name: Its name.
        value: The value.
        package: The package of the code.
    """

    scope: int
    module: str
    name: str
    value: object
    package: str

    def stable_value(self, unstable: Globals) -> list[Any]:
        """Returns the value without the entries that code writes, in a list; an empty one for none.

        Args:
            unstable: The globals that code writes.
        """
        keys = {key for scope, name, key in unstable if (scope, name) == (self.scope, self.name)}
        if not keys:
            return [self.value]
        if "" not in keys and type(self.value) is dict:
            return [{key: v for key, v in self.value.items() if repr(key) not in keys}]
        if "" not in keys and type(self.value) is list:
            return [[v for i, v in enumerate(self.value) if repr(i) not in keys]]
        return []


def home_of(function: FunctionType) -> str:
    """Returns the name of the module in which a function, which may wrap another, was defined."""
    return str(function.__globals__.get("__name__") or function.__module__)


def is_library_wrapper(function: FunctionType) -> bool:
    """Returns whether a library has wrapped a function of another package, as a decorator does."""
    return not is_followed(home_of(function), package_of(str(function.__module__)))


def references_of(function: FunctionType) -> tuple[list[Reference], Globals]:
    """Returns the values that a function's code names, and the globals that it writes.

    An attribute counts if the code names it and the module, in whatever order. A function that a
    library wraps around another names values of that library alone.
    """
    if is_library_wrapper(function):
        return [], frozenset()
    package = package_of(str(function.__module__))
    scope, names = function.__globals__, names_in(function.__code__)
    search = _Search(names, package)
    found = list(search.in_scope(scope, ""))
    for module in imported_in(function):
        found += search.in_module(module)
    return found, _written(function)


def _written(function: FunctionType) -> Globals:
    scope = function.__globals__
    return frozenset((id(scope), *found) for found in written_in(function.__code__))


class _Search:
    """Finds names in the globals of a function, and in the modules among them, each once."""

    def __init__(self, names: set[str], package: str) -> None:
        self._names = names
        self._package = package
        self._seen: set[int] = set()

    def in_scope(self, scope: dict[str, Any], module: str) -> Iterator[Reference]:
        for name in sorted(self._names & scope.keys()):
            value = scope[name]
            if issubclass(type(value), ModuleType):
                yield from self.in_module(value)
            else:
                yield Reference(id(scope), module, name, value, self._package)

    def in_module(self, module: ModuleType) -> Iterator[Reference]:
        name = module.__name__
        if id(module) not in self._seen and is_followed(name, self._package):
            self._seen.add(id(module))
            yield from self.in_scope(vars(module), name)
