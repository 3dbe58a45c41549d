"""Checks that a layout keeps the documents of a pack apart in a model."""

from __future__ import annotations

from typing import Any

from vlmcollate.errors import ConfigError
from vlmcollate.packing.token_mixing import TokenMixing
from vlmcollate.padding import (
    BlockCausalMask,
    FlattenedDocuments,
    FlexBlockMask,
    IndexedMask,
    PaddingStrategy,
    TransformerEngineTHD,
)


def right_layouts(mixing: TokenMixing) -> tuple[str, ...]:
    """Returns the built-in layouts that are right for a model, as code."""
    window: dict[str, Any] = {"sliding_window": mixing.window or 1} if mixing.slides else {}
    layouts = (
        BlockCausalMask(**window),
        FlexBlockMask(**window),
        FlattenedDocuments(),
        IndexedMask(),
        TransformerEngineTHD(),
    )
    shown = f"sliding_window={mixing.window or '...'}" if window else ""
    return tuple(
        f"{type(layout).__name__}({shown if layout.separates_by == 'mask' else ''})"
        for layout in layouts
        if layout.separates_by in mixing.separates_by
    )


def check_layout(layout: PaddingStrategy, mixing: TokenMixing) -> None:
    """Refuses a layout that would mix documents, or mask parts of them.

    Raises:
        ConfigError: The layout is not right for the model.
    """
    name = type(layout).__name__
    if layout.separates_by not in mixing.separates_by:
        raise ConfigError(
            f"{name} does not keep the documents of a pack apart in a {mixing.model!r} model: "
            f"{mixing.why}; {_remedy(mixing)}"
        )
    given = getattr(layout, "sliding_window", None)
    if layout.separates_by != "mask" or given == mixing.window is not None:
        return
    if mixing.slides and (given is None or mixing.window is not None):
        raise ConfigError(
            f"{name} has the wrong sliding window for a {mixing.model!r} model, whose "
            f"sliding_attention layers need a mask of their own: found {given}, expected "
            f"{mixing.window or 'that of its text config'}; set {name}(sliding_window="
            f"{mixing.window or '...'})"
        )
    if given is not None and not mixing.slides:
        raise ConfigError(
            f"{name} has a sliding window that a {mixing.model!r} model lacks: found {given}, "
            "expected None; remove sliding_window, or set model_config to the model's config"
        )


def refusal(mixing: TokenMixing) -> str:
    """Returns why no layout is right for a model, or an empty string."""
    return "" if mixing.separates_by else f"{mixing.why}; pad instead, with PadToLongest()"


def _remedy(mixing: TokenMixing) -> str:
    layouts = right_layouts(mixing)
    if not layouts:
        return "pad instead, with PadToLongest()"
    return f"set padding to {' or '.join(layouts)}"
