"""A cache of values for objects, each kept for the life of its object."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class IdentityCache(Generic[T]):
    """Keeps a value for each object, without hashing or comparing it and without keeping it alive.

    Processors of remote code may define `__eq__`, which makes them unhashable.

    Example:
        >>> cache, key = IdentityCache[int](), {1, 2}
        >>> cache.get_or_make(key, lambda: 3), cache.get_or_make(key, lambda: 4)
        (3, 3)
    """

    def __init__(self) -> None:
        self._values: dict[int, T] = {}

    def get_or_make(self, key: Any, make: Callable[[], T]) -> T:
        """Returns the object's value, and makes it on first use."""
        if id(key) not in self._values:
            value = make()
            weakref.finalize(key, self._values.pop, id(key), None).atexit = False
            self._values[id(key)] = value
        return self._values[id(key)]
