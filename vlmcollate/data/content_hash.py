"""Hashes of values by their content, the same in every process.

Functions count by their code and what of one's own it refers to, and objects by their class and
state.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import cached_property, partial, partialmethod
from inspect import CO_VARARGS, CO_VARKEYWORDS, getattr_static
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, strided, uint8

from vlmcollate.data.own_code import Home, is_generated, is_of_library, name_of, named_by

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_LARGE = 10_000
"""The length from which on what a function's code refers to is data, and none of its settings."""
_MOST = 100_000
"""The number of values inside a value from which on it is data."""
_DEEP = 80
"""The depth from which on what a function's code names is hashed later, to spare the stack."""
_CONTAINERS = {"builtins", "collections", "types"}
"""The modules of the standard library whose mappings and lists are settings."""


def content_hash(value: object) -> str:
    """Returns a hash of a value's content.

    Equal mappings and sets have one hash, and so have equal lists and tuples.

    Args:
        value: Any value. What cannot be pickled counts by its class and its `repr`.
    """
    return _Hasher().whole(value)


def is_plain(value: object) -> bool:
    """Returns whether the `repr` of a value shows all of its content."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return type(value) in _PLAIN


def without_addresses(text: str) -> str:
    """Removes addresses from a repr, since they differ between processes."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", text)


class _Hasher:
    """Hashes values, each object once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, object]] = {}  # with the objects, which stay alive
        self._sizes: dict[int, tuple[int, object]] = {}
        self._depth = 0
        self._later: list[FunctionType] = []

    def whole(self, value: Any) -> str:
        """Returns the hash of a value and of what its functions name, however long the chain."""
        found = [self(value)]
        for function in self._later:  # which grows
            found += [self(list(self._named(function)))]
        return self(found) if self._later else found[0]

    def __call__(self, value: Any) -> str:
        if isinstance(value, _PLAIN):  # or of a class of its own, such as an enumeration
            kind: Any = next(kind for kind in _PLAIN if isinstance(value, kind))
            return str(kind.__repr__(value))
        known = self._known.get(id(value))
        if known is None:
            self._known[id(value)] = "itself", value
            self._depth += 1
            digest = hashlib.blake2b(digest_size=12)
            for part in self._parts(value):
                digest.update(f"{len(part)}:".encode() + part.encode(errors="surrogatepass"))
            self._depth -= 1
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
            try:
                value = _bytes_of(value)
            except Exception:  # noqa: BLE001  # of a tensor without bytes, such as a sparse one
                yield without_addresses(repr(value))
                return
        if value.dtype.hasobject:
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
        wrapped = _wrapped_by(value)
        if wrapped is not None:
            yield self(wrapped)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # noqa: BLE001  # of any object, such as a lock
            yield without_addresses(repr(value))
            return
        yield self(reduced if isinstance(reduced, str) else _state(value, reduced))

    def _class(self, kind: type) -> Iterator[str]:
        yield name_of(kind)
        if is_of_library(kind):
            return
        yield self(kind.__bases__)
        home = Home.of(kind)
        yield self([self._counted(default, home) for default in _defaults(kind)])
        for name, value in sorted(vars(kind).items()):
            for found in _functions(value):
                if not is_generated(found, kind):
                    yield self([name, found])
            if not name.startswith("__"):  # others are the interpreter's
                yield from (self([name, found]) for found in self._counted(value, home))

    def _function(self, function: FunctionType) -> Iterator[str]:
        if is_of_library(function):
            yield name_of(function)
            return
        yield self(function.__code__)
        yield self([function.__defaults__, function.__kwdefaults__])
        for cell in function.__closure__ or ():
            try:
                yield self(cell.cell_contents)
            except ValueError:  # it is empty
                yield "empty"
        if self._depth > _DEEP:
            self._later.append(function)
        else:
            yield from map(self, self._named(function))

    def _named(self, function: FunctionType) -> Iterator[list[Any]]:
        """Yields what counts of the values that a function's code names, with their names."""
        home = Home.of(function)
        for name, value in named_by(function):
            for found in self._counted(value, home):
                yield [name, found]
        wrapped = vars(function).get("__wrapped__")
        if wrapped is not None:
            yield ["__wrapped__", *self._counted(wrapped, home)]

    def _counted(self, value: Any, home: Home) -> list[Any]:
        """Returns what counts of a value that code names, in a list; an empty one for nothing.

        Settings count, functions and classes of one's own, and callables around those.
        """
        kind = type(value)
        if self._is_setting(value):
            return [value]
        if issubclass(kind, FunctionType | type):
            return [value] if home.holds(value.__module__) else []
        if kind is partial or kind is partialmethod:
            given = [*value.args, *value.keywords.values()]
            parts = [self._counted(part, home) for part in (value.func, *given)]
            return [["partial", *parts, list(value.keywords)]]
        wrapped = _wrapped_by(value)
        found = [] if wrapped is None else self._counted(wrapped, home)
        return [["wrapper", kind, *found]] if found else []

    def _is_setting(self, value: Any) -> bool:
        """Returns whether a global or a class attribute is plain, and no data."""
        return self._size(value) < _MOST

    def _size(self, value: Any) -> int:
        """Returns the number of plain values inside a setting, and `_MOST` for all else."""
        kind = type(value)
        if kind in _PLAIN or kind is re.Pattern:
            return 1
        if not issubclass(kind, Mapping | Set | list | tuple):
            return _MOST
        if id(value) not in self._sizes:
            self._sizes[id(value)] = _MOST, value  # if it holds itself
            self._sizes[id(value)] = self._size_of_container(value, kind), value
        return self._sizes[id(value)][0]

    def _size_of_container(self, value: Any, kind: type) -> int:
        if is_of_library(kind) and kind.__module__ not in _CONTAINERS:  # such as `os.environ`
            return _MOST
        found = 1
        try:
            items = value.items() if issubclass(kind, Mapping) else value
            if len(value) >= _LARGE:
                return _MOST
            for item in items:
                found += self._size(item)
                if found >= _MOST:
                    return _MOST
        except Exception:  # noqa: BLE001  # of any class, or nested too deeply
            return _MOST
        return found

    def _code(self, code: CodeType) -> Iterator[str]:
        yield code.co_code.hex()
        yield self(
            [
                code.co_flags & (CO_VARARGS | CO_VARKEYWORDS),
                code.co_argcount,
                code.co_posonlyargcount,
            ]
        )
        yield self([code.co_kwonlyargcount, code.co_names, code.co_varnames])
        yield self([code.co_freevars, code.co_consts])


def _bytes_of(value: Tensor) -> Any:
    """Returns the bytes of a tensor.

    Raises:
        TypeError: It is sparse, quantized, or has none.
    """
    if value.layout != strided or value.is_meta or value.is_quantized:
        raise TypeError
    return value.detach().cpu().contiguous().reshape(-1).view(uint8).numpy()


def _functions(value: Any) -> Iterator[FunctionType]:
    """Yields the functions that an attribute of a class consists of."""
    kind = type(value)
    if kind is FunctionType:
        yield value
    elif issubclass(kind, staticmethod | classmethod):
        yield from _functions(value.__func__)
    elif issubclass(kind, property):
        for part in (value.fget, value.fset, value.fdel):
            yield from _functions(part)
    elif issubclass(kind, cached_property):
        yield from _functions(value.func)
    else:
        wrapped = _wrapped_by(value)
        yield from () if wrapped is None else _functions(wrapped)


def _wrapped_by(value: Any) -> Any:
    """Returns what a callable of another class wraps, such as one with a cache, or None."""
    if issubclass(type(value), type | FunctionType) or not callable(value):
        return None
    found = getattr_static(value, "__wrapped__", None)
    return found if callable(found) and found is not value else None


def _defaults(kind: type) -> Iterator[Any]:
    """Yields the defaults and converters of the fields of an attrs class or a dataclass."""
    fields = vars(kind).get("__dataclass_fields__", {})
    for field in (*vars(kind).get("__attrs_attrs__", ()), *fields.values()):
        default = field.default
        yield from (field.name, default, getattr(default, "factory", None))
        yield from (getattr(field, name, None) for name in ("default_factory", "converter"))


def _state(value: object, reduced: tuple[Any, ...]) -> list[Any]:
    """Returns what `__reduce_ex__` gives of an object, without what use of it has computed."""
    found = [list(part) if isinstance(part, Iterator) else part for part in reduced[1:]]
    if len(found) > 1 and type(found[1]) is dict:  # the attributes
        kinds = type(value).__mro__
        computed = {k for kind in kinds for k, v in vars(kind).items() if _is_computed(v)}
        found[1] = {k: v for k, v in found[1].items() if k not in computed} or None
    return found


def _is_computed(value: object) -> bool:
    return isinstance(value, cached_property)
