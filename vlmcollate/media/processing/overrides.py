"""Whether a processor's methods are those of transformers, so that some of them may be skipped."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from functools import cache
from typing import Any


def is_changed(part: Any, but: Collection[str] = frozenset()) -> bool:
    """Returns whether a subclass, or the object itself, replaces a method of transformers.

    Args:
        part: A processor, or its image processor.
        but: The names of methods that may be replaced.
    """
    changed, methods = _of_class(part.__class__)
    replaced = changed | (methods & getattr(part, "__dict__", {}).keys())
    return not replaced <= frozenset(but)


@cache
def _of_class(kind: Hashable) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the methods of transformers that a class replaces, and all of them."""
    classes = kind.__mro__ if isinstance(kind, type) else ()
    known = [c for c in classes if c.__module__.startswith("transformers.")]
    others = [c for c in classes if not c.__module__.startswith(("transformers.", "vlmcollate."))]
    methods = frozenset(name for c in known for name, value in vars(c).items() if callable(value))
    own = {name for c in others for name in vars(c)}
    ignored = {name for name in own if name.startswith("__") and name != "__call__"}
    return frozenset((own - ignored) & methods), methods
