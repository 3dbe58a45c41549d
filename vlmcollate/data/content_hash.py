"""Hashes of values by their content, the same in every process.

Functions count by their code and everything that it names, and objects by their class and state.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from enum import EnumMeta
from functools import cached_property, partial, partialmethod, singledispatchmethod
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, uint8

from vlmcollate.data.code_names import origin_of, package_of
from vlmcollate.data.named_values import (
    LRU_CACHED,
    PLAIN,
    Unordered,
    name_of,
    setting_of,
    state_of,
)
from vlmcollate.data.references import (
    Globals,
    Reference,
    home_of,
    is_library_wrapper,
    references_of,
)

_AROUND_FUNCTIONS: tuple[type, ...] = (staticmethod, classmethod, property, cached_property)
_AROUND_FUNCTIONS += (singledispatchmethod, partialmethod, LRU_CACHED)
_ATTRIBUTES = "fget", "fset", "fdel", "func", "dispatcher", "__wrapped__"


def content_hash(value: object) -> str:
    """Returns a hash of a value's content.

    Equal mappings and sets have one hash, and so have equal lists and tuples.

    Args:
        value: Any value. What cannot be pickled counts by its class and its `repr`.
    """
    written: Globals = frozenset()
    while True:  # once more if code writes globals
        hasher = _Hasher(written)
        found = hasher.whole(value)
        if hasher.written <= written:
            return found
        written |= hasher.written


def is_plain(value: object) -> bool:
    """Returns whether the `repr` of a value shows all of its content."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return type(value) in PLAIN


def without_addresses(text: str) -> str:
    """Removes addresses from a repr, since they differ between processes."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", text)


class _Hasher:
    """Hashes values, each object once.

    The code that functions name is hashed one after the other, so that a long chain of functions
    needs no deep stack, and a circle of them has one hash.

    Args:
        unstable: The globals that do not count, since the code that is hashed writes them.
    """

    def __init__(self, unstable: Globals) -> None:
        self._known: dict[int, tuple[str, object]] = {}  # with the objects, which stay alive
        self._functions: list[FunctionType] = []
        self._unstable = unstable
        self.written: Globals = frozenset()

    def whole(self, value: Any) -> str:
        """Returns the hash of a value and of all that the functions inside it name."""
        found = self(value)
        named = []
        for function in self._functions:  # which grows
            references, written = references_of(function)
            self.written |= written
            named.append(self([function, *self._settings(references)]))
        return self([found, *sorted(named)]) if named else found

    def _settings(self, references: Iterable[Reference]) -> Iterator[list[Any]]:
        for reference in references:
            for value in reference.stable_value(self._unstable):
                yield [reference.module, reference.name, setting_of(value, reference.package)]

    def __call__(self, value: Any) -> str:
        if isinstance(value, PLAIN):  # or of a class of its own, such as an enumeration
            kind: Any = next(kind for kind in PLAIN if isinstance(value, kind))
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
        if isinstance(value, Unordered):
            return "unordered", *sorted(map(self, value))
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
        if isinstance(value, LRU_CACHED):
            yield self(value.__wrapped__)
            return
        try:
            state = state_of(value)
        except Exception:  # noqa: BLE001  # of any object, such as a lock
            yield without_addresses(repr(value))
            return
        yield self(state)

    def _class(self, kind: type) -> Iterator[str]:
        yield name_of(kind)
        if _is_of_library(kind):
            return
        yield self(kind.__bases__)
        is_enum = isinstance(kind, EnumMeta)
        if isinstance(kind, EnumMeta):
            members: Mapping[str, Any] = kind.__members__
            yield self([[name, member.value] for name, member in members.items()])
        for name, value in sorted(vars(kind).items()):
            for found in _functions(value):
                yield self([name, found])
            if not name.startswith("__") and not is_enum:  # others are the interpreter's
                yield self([name, setting_of(value, package_of(kind.__module__))])

    def _function(self, function: FunctionType) -> Iterator[str]:
        if _is_of_library(function):
            yield name_of(function)
            return
        registry = getattr(function, "registry", None)
        if home_of(function) == "functools" and registry is not None:  # of `singledispatch`
            yield self(dict(registry))
            return
        self._functions.append(function)
        yield self(function.__code__)
        yield self([function.__defaults__, function.__kwdefaults__])
        yield from map(self, _cells(function))

    def _code(self, code: CodeType) -> Iterator[str]:
        yield code.co_code.hex()
        yield self([code.co_names, code.co_varnames, code.co_freevars, code.co_consts])


def _functions(value: Any) -> Iterator[FunctionType]:
    """Yields the functions that an attribute of a class consists of."""
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, _AROUND_FUNCTIONS):
        for name in _ATTRIBUTES:
            yield from _functions(getattr(value, name, None))


def _cells(function: FunctionType) -> Iterator[Any]:
    """Yields the variables that a function closes over, and what counts of those of a wrapper."""
    is_wrapper = is_library_wrapper(function)
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # it is empty
            yield "empty"
        else:
            package = package_of(str(function.__module__))
            yield setting_of(value, package) if is_wrapper else value


def _is_of_library(value: Any) -> bool:
    return origin_of(str(value.__module__)) == "library"
