"""Hashes of values by their content, the same in every process.

Functions count by their code and what it refers to, and objects by their class and state.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, uint8

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_LIBRARIES = {*sys.stdlib_module_names, "attr", "numpy", "PIL", "torch", "transformers"}
_LIBRARIES |= {"tokenizers", "vlmcollate"}
"""The packages whose classes and functions count by name; of some a fingerprint has the version."""
_LARGE = 10_000
"""The length from which on what a function's code refers to is data, and none of its settings."""


def content_hash(value: object) -> str:
    """Returns a hash of a value's content.

    Equal mappings and sets have one hash, and so have equal lists and tuples.

    Args:
        value: Any value. What cannot be pickled counts by its class and its `repr`.
    """
    return _Hasher()(value)


def is_plain(value: object) -> bool:
    """Returns whether the `repr` of a value shows all of its content."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return type(value) in _PLAIN


def without_addresses(text: str) -> str:
    """Removes addresses from a repr, since they differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


class _Hasher:
    """Hashes values, each object once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, object]] = {}  # with the objects, which stay alive

    def __call__(self, value: Any) -> str:
        if isinstance(value, _PLAIN):  # or of a class of its own, such as an enumeration
            kind: Any = next(kind for kind in _PLAIN if isinstance(value, kind))
            return str(kind.__repr__(value))
        known = self._known.get(id(value))
        if known is None:
            self._known[id(value)] = "itself", value
            digest = hashlib.blake2b(digest_size=12)
            for part in self._parts(value):
                digest.update(f"{len(part)}:".encode() + part.encode(errors="surrogatepass"))
            known = self._known[id(value)] = digest.hexdigest(), value
        return known[0]

    def _parts(self, value: Any) -> Iterable[str]:
        """Returns texts, the first of which is the kind of the value."""
        if isinstance(value, Mapping):
            return "mapping", *sorted(self([k, v]) for k, v in value.items())
        if isinstance(value, Set):
            return "set", *sorted(map(self, value))
        if isinstance(value, list | tuple):
            return "list", *map(self, value)
        if isinstance(value, Tensor | np.ndarray):
            return "array", *self._array(value)
        if isinstance(value, ModuleType):
            return "module", value.__name__
        if isinstance(value, type):
            return "class", *self._class(value)
        if isinstance(value, FunctionType):
            return "function", *self._function(value)
        if isinstance(value, CodeType):
            return "code", *self._code(value)
        return "object", *self._object(value)

    def _array(self, value: Any) -> Iterator[str]:
        yield f"{value.dtype} {tuple(value.shape)}"
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous().reshape(-1).view(uint8).numpy()
        if value.dtype == object:
            yield self(value.tolist())
        else:
            yield hashlib.blake2b(np.ascontiguousarray(value).tobytes()).hexdigest()

    def _object(self, value: Any) -> Iterator[str]:
        if isinstance(value, MethodType):
            yield self([value.__func__, value.__self__])
            return
        if isinstance(value, partial):
            yield self([value.func, value.args, value.keywords])
            return
        yield self(type(value))
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # noqa: BLE001  # of any object, such as a lock
            yield without_addresses(repr(value))
            return
        found = reduced if isinstance(reduced, str) else [_listed(part) for part in reduced[1:]]
        yield self(found)

    def _class(self, kind: type) -> Iterator[str]:
        yield f"{kind.__module__}.{kind.__qualname__}"
        if _is_of_library(kind):
            return
        yield self(kind.__bases__)
        for name, value in sorted(vars(kind).items()):
            for found in _functions(value):
                yield self([name, found])
            if not name.startswith("__") and _is_setting(value):  # others are the interpreter's
                yield self([name, value])

    def _function(self, function: FunctionType) -> Iterator[str]:
        if _is_of_library(function):
            yield f"{function.__module__}.{function.__qualname__}"
            return
        yield self(function.__code__)
        yield self([function.__defaults__, function.__kwdefaults__])
        for cell in function.__closure__ or ():
            try:
                yield self(cell.cell_contents)
            except ValueError:  # it is empty
                yield "empty"
        for name in sorted(_names(function.__code__) & function.__globals__.keys()):
            value = function.__globals__[name]
            if _is_setting(value) or _is_neighbour(value, function):
                yield self([name, value])

    def _code(self, code: CodeType) -> Iterator[str]:
        yield code.co_code.hex()
        yield self([code.co_names, code.co_varnames, code.co_freevars, code.co_consts])


def _functions(value: Any) -> Iterator[FunctionType]:
    """Yields the functions that an attribute of a class consists of."""
    names = "__func__", "fget", "fset", "func"  # of methods of the class, and of properties
    found = (value, *(getattr(value, name, None) for name in names))
    yield from (function for function in found if isinstance(function, FunctionType))


def _listed(value: Any) -> Any:
    """Returns a list of what an iterator of `__reduce_ex__` yields."""
    return list(value) if isinstance(value, Iterator) else value


def _names(code: CodeType) -> set[str]:
    """Returns the names that code, and the code inside it, refers to."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _is_of_library(value: Any) -> bool:
    return str(value.__module__).partition(".")[0] in _LIBRARIES


def _is_neighbour(value: Any, function: FunctionType) -> bool:
    """Returns whether a value is a function or a class of the package of a function."""
    package = str(function.__module__).partition(".")[0]
    is_code = isinstance(value, FunctionType | type)
    return is_code and str(value.__module__).partition(".")[0] == package


def _is_setting(value: Any) -> bool:
    """Returns whether a global or a class attribute is plain, and no data."""
    if isinstance(value, re.Pattern):
        return True
    if isinstance(value, Mapping | Set | list | tuple):
        items = value.items() if isinstance(value, Mapping) else value
        return len(value) < _LARGE and all(map(_is_setting, items))
    return type(value) in _PLAIN
