"""What counts of the values that code names: settings, and code of one's own, but no data."""

from __future__ import annotations

import enum
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from functools import cached_property, lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from vlmcollate.data.code_names import origin_of, package_of

PLAIN = (type(None), bool, int, float, complex, str, bytes)
LRU_CACHED: Any = type(lru_cache(len))
"""The class of functions with a cache."""
_LARGE = 10_000
"""The length from which on what code names is data, and none of its settings."""
_MOST = 100_000
"""The number of values inside a value from which on it is data."""
_STANDARD = {"argparse", "builtins", "collections", "configparser", "datetime", "decimal", "enum"}
_STANDARD |= {"fractions", "ipaddress", "operator", "pathlib", "re", "string", "types", "uuid"}
"""The modules of the standard library whose objects are settings, which no use changes."""


class Unordered(list[Any]):
    """Values whose order does not count."""


class _LargeError(Exception):
    """A value holds too much for a setting."""


def name_of(value: Any) -> str:
    """Returns the full name of a function or a class, in every process the same."""
    module = str(value.__module__)
    return f"{'__main__' if module == '__mp_main__' else module}.{value.__qualname__}"


def is_followed(module: str, package: str) -> bool:
    """Returns whether code of a module counts by its content if code of a package names it."""
    origin = origin_of(module)
    return origin == "own" or (origin == "installed" and package_of(module) == package)


def setting_of(value: object, package: str) -> Any:
    """Returns what counts of a value that code names.

    Args:
        value: The value.
        package: The first part of the name of the module whose code names it.

    Returns:
        Plain values, arrays, functions and classes, and lists of them; the name of its class stands
        for data.
    """
    try:
        return _Reduction(package)(value)
    except (_LargeError, RecursionError):
        return name_of(type(value))


def state_of(value: object) -> list[Any]:
    """Returns what `pickle` would store of an object, without what use of it has computed.

    Raises:
        Exception: Any, of an object that cannot be pickled, such as a lock.
    """
    reduced = value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return [reduced]
    return [_uncached(value, _listed(part)) for part in reduced[1:]]


def _listed(value: Any) -> Any:
    """Returns a list of what an iterator of `__reduce_ex__` yields."""
    return list(value) if isinstance(value, Iterator) else value


def _uncached(value: object, state: Any) -> Any:
    """Removes the properties that are computed once from the attributes of an object."""
    if type(state) is not dict:
        return state
    kinds = type(value).__mro__
    computed = {k for kind in kinds for k, v in vars(kind).items() if type(v) is cached_property}
    return {name: part for name, part in state.items() if name not in computed}


class _Reduction:
    """Reduces one value; see `setting_of`."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._left = _MOST
        self._open: set[int] = set()

    def __call__(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _LargeError
        if type(value) in PLAIN or type(value) is re.Pattern:
            return value
        if id(value) in self._open:
            return "itself"
        self._open.add(id(value))
        found = self._reduce(value, type(value))
        self._open.remove(id(value))
        return found

    def _reduce(self, value: Any, kind: type) -> Any:
        if issubclass(kind, FunctionType | type):
            return value if is_followed(str(value.__module__), self._package) else name_of(value)
        if issubclass(kind, ModuleType):
            return ["module", value.__name__]
        if issubclass(kind, np.ndarray | Tensor):
            return value if np.prod(value.shape) < _LARGE else name_of(kind)
        if issubclass(kind, enum.Enum):
            return [self(kind), value.name, self(value.value)]
        callee = _callee_of(value, kind)
        if callee is not None:
            return [name_of(kind), *map(self, callee)]
        if issubclass(kind, np.generic):
            return [name_of(kind), repr(value)]
        return self._object(value, kind)

    def _object(self, value: Any, kind: type) -> Any:
        origin = origin_of(kind.__module__)
        if origin == "library" and kind.__module__.lstrip("_") not in _STANDARD:
            return name_of(kind)
        is_own = is_followed(kind.__module__, self._package)
        if issubclass(kind, Mapping | Set | list | tuple):
            return self._container(value, kind, is_own=is_own)
        is_iterator = issubclass(kind, Iterator)  # which use changes
        if not is_own and (is_iterator or origin != "library"):
            return name_of(kind)
        try:
            state = state_of(value)
        except Exception:  # noqa: BLE001  # of any object, such as one that holds a lock
            return self(kind)
        return [self(kind), *map(self, state)]

    def _container(self, value: Any, kind: type, *, is_own: bool) -> Any:
        if len(value) >= _LARGE:
            return name_of(kind)
        found: Any = list(map(self, _items(value, kind)))
        if issubclass(kind, Mapping | Set):
            found = Unordered(found)
        if issubclass(kind, defaultdict):
            found = [self(value.default_factory), found]
        if not is_own:
            return found
        return [self(kind), found, self(dict(getattr(value, "__dict__", {})))]


def _items(value: Any, kind: type) -> Iterable[Any]:
    return list(value.items()) if issubclass(kind, Mapping) else value


def _callee_of(value: Any, kind: type) -> list[Any] | None:
    """Returns what a value calls, and with what, if it is a callable around another one."""
    if issubclass(kind, LRU_CACHED):
        return [value.__wrapped__]
    if issubclass(kind, MethodType):
        return [value.__func__, value.__self__]
    if issubclass(kind, partial):
        return [value.func, value.args, value.keywords]
    if issubclass(kind, BuiltinFunctionType):
        owner = value.__self__  # of `len` its module, and of a method such as `words.count` a list
        return [value.__qualname__, None if isinstance(owner, ModuleType) else owner]
    return None
