"""Refuses to stack what no `encode` returned for it, and names the call that takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmcollate.errors import ConfigError
from vlmcollate.plain_values import describe


def check_stackable(found: object, kind: type[Any], *, of: object) -> None:
    """Checks the argument of a `stack`, before anything is read from it.

    A class that some `stack` or call takes has `STACKED_BY`, the name of that call.

    Args:
        found: The argument.
        kind: The class of the items that are stacked.
        of: The collator that stacks them.

    Raises:
        ConfigError: It is no list, or holds an item of another kind.
    """
    if not isinstance(found, Sequence):
        hint = "[sample]" if isinstance(found, kind) else "list(...)"
        raise ConfigError(
            f"{type(of).__name__} cannot stack this: found {_name(found)}, expected a list of "
            f"{kind.__name__}; pass {hint}"
        )
    for place, item in enumerate(found):
        if not isinstance(item, kind):
            raise ConfigError(
                f"{type(of).__name__} cannot stack this: found {_shown(item)} at place {place}, "
                f"expected {kind.__name__}; {_remedy(item, kind)}"
            )


def _name(found: object) -> str:
    return "nothing" if found is None else type(found).__name__


def _shown(item: object) -> str:
    return type(item).__name__ if hasattr(item, "STACKED_BY") else describe(item)


def _remedy(item: object, kind: type[Any]) -> str:
    """Returns what to do with an item of another kind."""
    call = getattr(item, "STACKED_BY", None)
    if call is not None:
        return f"pass it to {call}"
    if isinstance(item, list | tuple) and item and all(isinstance(one, kind) for one in item):
        return "this is a list of such; join the lists"
    return "pass examples to the collator itself, or to its `encode` first"
