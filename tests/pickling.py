"""Pickled copies of collators without the seconds that parsing a real vocabulary takes."""

from __future__ import annotations

import io
import pickle
from typing import Any, TypeVar

from tokenizers import Tokenizer

T = TypeVar("T")


def pickled_copy(value: T) -> T:
    """Returns a pickled copy that shares the backends of tokenizers with the original.

    A backend is pickled by its library; the law `check_a_pickled_copy_agrees` includes it, and
    sends the copy to another process.
    """
    backends: list[Tokenizer] = []

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> int | None:
            if not isinstance(obj, Tokenizer):
                return None
            backends.append(obj)
            return len(backends) - 1

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            return backends[pid]

    file = io.BytesIO()
    Pickler(file).dump(value)
    file.seek(0)
    copy: T = Unpickler(file).load()
    return copy
