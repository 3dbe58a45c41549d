"""Loading the collator that a command runs with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from rich.console import Console

from vlmcollate.errors import ConfigError

if TYPE_CHECKING:
    from rich.status import Status

    from vlmcollate.collator import BaseCollator


def importing(console: Console) -> Status:
    """Shows that the heavy imports are running, for as long as the context lasts."""
    return console.status("Importing torch and transformers ...")


def load_collator(
    console: Console,
    processor: str,
    *,
    media_root: Path | None = None,
    max_length: int | None = None,
    trust_remote_code: bool = False,
    packs: bool = False,
) -> BaseCollator:
    """Loads a processor and returns its collator.

    Args:
        console: Where to show the status.
        processor: A folder, or a name on the Hugging Face hub.
        media_root: The folder from which relative media paths start, and which none may leave.
        max_length: The maximum tokens of a sample; a longer one is an error.
        trust_remote_code: Whether code that comes with the processor may run.
        packs: Whether the collator makes packs. If so, and if its family needs that, the model's
            configuration is loaded from the same place.

    Raises:
        ConfigError: There is no such processor, or it has no chat template.
    """
    with importing(console):
        from vlmcollate.family import NotPackable
        from vlmcollate.media import LocalMedia
        from vlmcollate.models import collator_for

        loaded = _load_processor(processor, trust_remote_code=trust_remote_code)
        collator = collator_for(loaded, media=LocalMedia(root=media_root), max_length=max_length)
        is_known = collator.family.mixing(collator.model_config) is not None
        if not packs or is_known or isinstance(collator.family.packing, NotPackable):
            return collator
        config = _load_model_config(processor, trust_remote_code=trust_remote_code)
        return attrs.evolve(collator, model_config=config)


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
