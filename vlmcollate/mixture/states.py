"""States of mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.errors import ConfigError
from vlmcollate.validators import check_count


def position_of(state: Any, identity: Mapping[str, Any]) -> int:
    """Returns the position of a state.

    Args:
        state: The state.
        identity: What decides the draws here.

    Raises:
        ConfigError: It is no state, or one of another mixture.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("mixture"), Mapping):
        raise ConfigError(
            f"the state is of no mixture: found {type(state).__name__}, expected a result of "
            "state_dict; pass one"
        )
    for name, here in identity.items():
        there = state["mixture"].get(name)
        if there != here:
            there, here = _first_difference(there, here)
            raise ConfigError(
                f"the state is of another mixture: found {name} {there!r}, expected {here!r}; "
                f"resume with the same {name}"
            )
    return count_of(state, "position")


def count_of(state: Any, name: str) -> int:
    """Returns a number of a state.

    Raises:
        ConfigError: The state has no such number.
    """
    found: Any = state.get(name) if isinstance(state, Mapping) else None
    check_count(f"the state's {name}", found, least=0)
    return int(found)


def _first_difference(there: Any, here: Any) -> tuple[Any, Any]:
    """Returns the first items of lists that differ, of which there may be thousands."""
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return next(pair for pair in zip(there, here, strict=True) if pair[0] != pair[1])
    return there, here
