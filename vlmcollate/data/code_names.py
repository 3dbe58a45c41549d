"""What code refers to: the names that it reads, those that it writes, and what it imports."""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, resolve_name
from types import CodeType, FunctionType, ModuleType
from typing import Any, Literal

Origin = Literal["own", "installed", "library"]

_BY_VERSION = {"attr", "numpy", "PIL", "tokenizers", "torch", "transformers", "vlmcollate"}
"""The packages that are a library wherever they lie; of some a fingerprint has the version."""
_STANDARD = os.path.dirname(os.__file__) + os.sep
_INSTALLED = {"site-packages", "dist-packages"}
_IMPORT = dis.opmap["IMPORT_NAME"]
_WRITING = {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop"}
_WRITING |= {"popitem", "popleft", "remove", "setdefault", "update"}
"""The methods that change a list, a mapping or a set."""


def package_of(module: str) -> str:
    """Returns the first part of a module's name."""
    return module.partition(".")[0]


def origin_of(module: str) -> Origin:
    """Returns whose code a module is, by its file.

    Args:
        module: Its name.

    Returns:
        "library" for the standard library and the packages that this one builds on, "installed" for
        others below `site-packages`, and "own" for all that is left, such as a script.
    """
    name = package_of(module)
    if name in _BY_VERSION:
        return "library"
    found = sys.modules.get(module)
    file = getattr(found, "__dict__", {}).get("__file__")
    if not isinstance(file, str):
        return "library" if name in sys.stdlib_module_names else "own"
    return _origin_of_file(file)


def _origin_of_file(file: str) -> Origin:
    if _INSTALLED & {*os.path.normpath(file).split(os.sep)}:
        return "installed"
    return "library" if file.startswith(_STANDARD) else "own"


def _is_own(spec: ModuleSpec) -> bool:
    if package_of(spec.name) in _BY_VERSION:
        return False
    if spec.has_location and spec.origin:
        return _origin_of_file(spec.origin) == "own"
    return spec.submodule_search_locations is not None  # a folder without `__init__.py`


def code_inside(code: CodeType) -> Iterator[CodeType]:
    """Yields code and the code of functions, lambdas and comprehensions inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from code_inside(const)


def names_in(code: CodeType) -> set[str]:
    """Returns the names of globals and of attributes that code, and the code inside, refers to."""
    return {name for part in code_inside(code) for name in part.co_names}


def written_in(code: CodeType) -> set[tuple[str, str]]:
    """Returns the globals that code sets or changes, each as its name and the key of an entry.

    The key is the `repr` of a constant, and "" for any other, or for all of the global.
    """
    return {found for part in code_inside(code) for found in _written(part)}


def _written(code: CodeType) -> Iterator[tuple[str, str]]:
    steps = list(dis.get_instructions(code))
    for at, step in enumerate(steps):
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            yield step.argval, ""
        elif step.opname in ("LOAD_METHOD", "LOAD_ATTR") and step.argval in _WRITING:
            yield from _global_at(steps, at - 1, "")
        elif _changes_an_entry(steps, at):
            is_constant = steps[at - 1].opname in ("LOAD_CONST", "LOAD_SMALL_INT")
            key = repr(steps[at - 1].argval) if is_constant else ""
            yield from _global_at(steps, _before_the_key(steps, at), key)


def _changes_an_entry(steps: list[dis.Instruction], at: int) -> bool:
    """Returns whether a step is the first after the key of an entry that is set or removed."""
    name, before = steps[at].opname, steps[at - 1].opname
    if name == "COPY":  # twice, for `counts[key] += 1`
        return steps[at].arg == 2 and before != "COPY" and steps[at + 1].opname == "COPY"
    is_store = name in ("STORE_SUBSCR", "DELETE_SUBSCR")
    return name == "DUP_TOP_TWO" or (is_store and before not in ("SWAP", "ROT_THREE"))


def _before_the_key(steps: list[dis.Instruction], at: int) -> int:
    """Returns the step that put what a key belongs to on the stack, or -1."""
    pushed = 0
    for i in range(at - 1, -1, -1):
        step = steps[i]
        if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            return -1
        pushed += dis.stack_effect(step.opcode, step.arg)
        if pushed == 1:
            return i - 1
    return -1


def _global_at(steps: list[dis.Instruction], at: int, key: str) -> Iterator[tuple[str, str]]:
    if at >= 0 and steps[at].opname in ("LOAD_GLOBAL", "LOAD_NAME"):
        yield steps[at].argval, key


def imported_in(function: FunctionType) -> Iterator[ModuleType]:
    """Yields the modules of one's own that the body of a function imports, and imports them."""
    for code in code_inside(function.__code__):
        if _IMPORT not in code.co_code[::2]:
            continue
        steps = list(dis.get_instructions(code))
        for i, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":
                level, names = steps[i - 2].argval, steps[i - 1].argval
                yield from _imported(step.argval, level, names, function.__globals__)


def _imported(name: str, level: int, names: Any, scope: dict[str, Any]) -> Iterator[ModuleType]:
    with suppress(Exception):  # the call of the function raises it
        package = scope.get("__package__") or ""
        spec = find_spec(resolve_name("." * level + name, package))
        if spec is not None and _is_own(spec):
            yield __import__(name, scope, None, names, level)
