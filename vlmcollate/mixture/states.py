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
            raise ConfigError(
                f"the state is of another mixture: found {name} {there!r}, expected {here!r}; "
                f"resume with the same {name}"
            )
    check_count("the state's position", state.get("position"), least=0)
    return int(state["position"])
