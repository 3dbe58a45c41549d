"""Loading the collator that a command runs with."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from rich.console import Console

from vlmcollate.cli.output import status
from vlmcollate.cli.settings import CollatorSettings
from vlmcollate.errors import ConfigError

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator


def importing(console: Console) -> AbstractContextManager[Any]:
    """Shows that the heavy imports are running, for as long as the context lasts."""
    return status(console, "Importing torch and transformers ...")


def load_collator(
    console: Console,
    processor: str,
    settings: CollatorSettings,
    *,
    media_root: Path | None = None,
    max_length: int | None = None,
    on_overlong: str | None = None,
    trust_remote_code: bool = False,
    packs: bool = False,
) -> BaseCollator:
    """Loads a processor and returns its collator.

    Args:
        console: Where to show the status.
        processor: A folder, or a name on the Hugging Face hub.
        settings: The options of the collator, which the others of these override.
        media_root: The folder from which relative media paths start, and which none may leave.
        max_length: The maximum tokens of a sample; a longer one is an error.
        on_overlong: The policy for longer samples.
        trust_remote_code: Whether code that comes with the processor may run.
        packs: Whether the collator makes packs. If so, and if its family needs that, the model's
            configuration is loaded from the same place.

    Raises:
        ConfigError: There is no such processor, it has no chat template, or an option is wrong.
    """
    with importing(console):
        from vlmcollate.family import NotPackable

        options = settings.options()
        given = {"max_length": max_length, "on_overlong": on_overlong}
        options |= {name: value for name, value in given.items() if value is not None}
        _set_media(options, media_root, settings.fps)
        loaded = _load_processor(processor, trust_remote_code=trust_remote_code)
        if settings.max_pixels is not None:
            _set_max_pixels(loaded, settings.max_pixels)
        collator = settings.make(loaded, options)
        is_known = collator.family.mixing(collator.model_config) is not None
        if not packs or is_known or isinstance(collator.family.packing, NotPackable):
            return collator
        config = _load_model_config(processor, trust_remote_code=trust_remote_code)
        return attrs.evolve(collator, model_config=config)


def _set_media(options: dict[str, Any], root: Path | None, fps: float | None) -> None:
    """Adds the root of media and the rate of frames to the media strategy."""
    from vlmcollate.media import FrameSampling, LocalMedia

    if root is not None and not root.is_dir():
        raise ConfigError(
            f"--media-root is wrong: found no folder {str(root)!r}; create it or correct the path"
        )
    changes: dict[str, Any] = {} if root is None else {"root": root}
    if fps is not None:
        changes["frames"] = FrameSampling(fps=fps)
    media = options.get("media", LocalMedia())
    if changes and not isinstance(media, LocalMedia):
        raise ConfigError(
            f"--media-root and --fps are options of LocalMedia, found {type(media).__name__}; set "
            "them in the media strategy"
        )
    options["media"] = attrs.evolve(media, **changes) if changes else media


def _set_max_pixels(processor: Any, pixels: int) -> None:
    """Limits the size of images, if the processor has an option for it."""
    images: Any = getattr(processor, "image_processor", None)
    size = getattr(images, "size", None) or {}
    has_areas = hasattr(images, "merge_size") and "longest_edge" in size  # an area, not a side
    if not has_areas and not hasattr(images, "max_pixels"):
        raise ConfigError(
            f"--max-pixels has no effect: {type(images).__name__} has no max_pixels; set the size "
            "in the preprocessor_config.json of the processor"
        )
    if hasattr(images, "max_pixels"):
        images.max_pixels = pixels
    if has_areas:
        images.size = {**dict(size), "longest_edge": pixels}


def _load_processor(name: str, *, trust_remote_code: bool) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, LookupError) as error:
        raise ConfigError(f"cannot load the processor {name!r}: {error}") from error


def _load_model_config(name: str, *, trust_remote_code: bool) -> Any:
    """Loads the model's configuration; returns `None` if the folder holds only a processor."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):  # packs may not need it
        return None
