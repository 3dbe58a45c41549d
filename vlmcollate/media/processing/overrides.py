"""Whether a processor's methods are those of transformers, so that some of them may be skipped."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from functools import cache
from typing import Any

_PROCESSING = (
    *("__call__", "preprocess", "_preprocess", "process_image", "resize", "center_crop", "pad"),
    *("rescale", "normalize", "rescale_and_normalize", "patchify", "crop_image_to_patches"),
    *("convert_to_rgb", "replace_image_token", "_prepare_input_videos", "sample_frames"),
)
"""The methods that decide about pixels."""
_DECORATED = "transformers", "torch"
"""The packages whose functions the methods of transformers are, some behind a decorator."""


def methods_of(kind: Any) -> tuple[Any, ...]:
    """Returns the methods of a class that decide about pixels, which anyone may replace."""
    return tuple([getattr(kind, name, None) for name in _PROCESSING])


def is_changed(part: Any, but: Collection[str] = frozenset()) -> bool:
    """Returns whether a subclass, the object itself, or somebody replaces a method of transformers.

    Args:
        part: A processor, or its image processor.
        but: The names of methods that may be replaced.
    """
    changed, methods = _of_class(part.__class__, methods_of(part.__class__))
    replaced = changed | (methods & getattr(part, "__dict__", {}).keys())
    return not replaced <= frozenset(but)


@cache
def _of_class(kind: Hashable, current: tuple[Any, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the methods of transformers that are replaced in a class, and all of them.

    Args:
        kind: The class.
        current: Its methods, which are others if somebody replaced some.
    """
    del current
    classes = kind.__mro__ if isinstance(kind, type) else ()
    known = [c for c in classes if c.__module__.startswith("transformers.")]
    others = [c for c in classes if not c.__module__.startswith(("transformers.", "vlmcollate."))]
    methods = frozenset(name for c in known for name, value in vars(c).items() if callable(value))
    own = {name for c in others for name in vars(c)}
    own |= {name for c in known for name, value in vars(c).items() if not _is_theirs(value)}
    ignored = {name for name in own if name.startswith("__") and name != "__call__"}
    return frozenset((own - ignored) & methods), methods


def _is_theirs(value: Any) -> bool:
    """Returns whether an attribute of a class of transformers is no function of somebody else."""
    names = getattr(getattr(value, "__func__", value), "__globals__", {})
    return str(names.get("__name__", "transformers")).partition(".")[0] in _DECORATED
