"""Which code of one's own the code of a function names; nothing is imported, and no code runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import attrs

_LIBRARIES = {*sys.stdlib_module_names, "attr", "attrs", "numpy", "PIL", "torch", "transformers"}
_LIBRARIES |= {"tokenizers", "vlmcollate"}
"""The packages whose classes and functions count by name; of some a fingerprint has the version."""
_INSTALLED = {"site-packages", "dist-packages"}
_GENERATED = "<attrs generated", "<string>"
"""How the names of files begin for methods that attrs and dataclasses generate."""


def name_of(value: Any) -> str:
    """Returns the full name of a function or a class, the same in every process."""
    module = str(value.__module__)
    return f"{'__main__' if module == '__mp_main__' else module}.{value.__qualname__}"


def is_of_library(value: Any) -> bool:
    """Returns whether a function or a class counts by its name."""
    return _package_of(str(value.__module__)) in _LIBRARIES


def is_generated(function: FunctionType, kind: type) -> bool:
    """Returns whether attrs or a dataclass has generated a method of a class.

    The `__hash__` of attrs holds a number that differs between processes.
    """
    by_attrs, by_dataclass = _GENERATED
    file = function.__code__.co_filename
    if file.startswith(by_attrs):
        return True
    is_special = function.__name__.startswith("__")
    return file == by_dataclass and is_special and "__dataclass_fields__" in vars(kind)


@attrs.frozen
class Home:
    """The code that a function or a class belongs to.

    Attributes:
        packages: The names of its packages, or of its top-level module.
        folder: The folder of a script or another top-level module; "" for others.
    """

    packages: frozenset[str]
    folder: str = ""

    @classmethod
    def of(cls, value: FunctionType | type) -> Home:
        """Returns that of a function or a class."""
        module = str(value.__module__)
        package = _package_of(module)
        scope = _scope_of(sys.modules.get(module))
        run_as = str(scope.get("__package__") or package)  # another one for `python -m package.run`
        folder = "" if "." in module else _folder_of(package)
        return cls(frozenset({package, _package_of(run_as)}), folder)

    def holds(self, module: object) -> bool:
        """Returns whether a module is of the same package, or beside the script."""
        package = _package_of(str(module))
        if package in _LIBRARIES:
            return False
        return package in self.packages or self.folder == _folder_of(package) != ""


def named_by(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yields the globals that a function's code names, and attributes of modules of its own.

    Of a module, such as `rules` in `rules.choose`, those are yielded that the code names, wherever.
    """
    names, scope, home = _names(function.__code__), function.__globals__, Home.of(function)
    for name in sorted(names & scope.keys()):
        if issubclass(type(scope[name]), ModuleType):
            yield from _in_module(scope[name], names, home)
        else:
            yield name, scope[name]


def _in_module(module: ModuleType, names: set[str], home: Home) -> Iterator[tuple[str, Any]]:
    scope = _scope_of(module)
    name = str(scope.get("__name__"))
    if sys.modules.get(name) is not module or not home.holds(name):
        return
    for key in sorted(names & scope.keys()):
        full, value = f"{name}.{key}", scope[key]
        if not issubclass(type(value), ModuleType):
            yield full, value
        elif _scope_of(value).get("__name__") == full:  # as in `package.rules.choose`
            yield from _in_module(value, names, home)


def _names(code: CodeType) -> set[str]:
    """Returns the names that code, and the code inside it, refers to."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _package_of(module: str) -> str:
    return module.partition(".")[0]


def _scope_of(module: object) -> dict[str, Any]:
    """Returns the attributes of a module without loading one that is loaded at its first use."""
    if not issubclass(type(module), ModuleType):
        return {}
    found: dict[str, Any] = ModuleType.__getattribute__(module, "__dict__")
    return found


def _folder_of(package: str) -> str:
    """Returns the folder that a package or a top-level module lies in; "" for an installed one."""
    scope = _scope_of(sys.modules.get(package))
    file = next(iter(scope.get("__path__") or ()), scope.get("__file__"))
    folder = os.path.dirname(os.path.abspath(file)) if isinstance(file, str) else ""
    return "" if os.path.basename(folder) in _INSTALLED else folder
