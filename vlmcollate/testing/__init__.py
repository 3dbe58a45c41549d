"""Tests for any collator: laws, hypothesis strategies, and processors without a download."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmcollate.testing.checking import (
        LawResult,
        Report,
        check_collator,
        parametrize_with_checks,
    )
    from vlmcollate.testing.generators import (
        audio_clips,
        batches,
        conversations,
        hostile_text,
        images,
        register_profiles,
        texts,
        videos,
    )
    from vlmcollate.testing.laws import LAWS, LawFailure, Trial
    from vlmcollate.testing.processors import tiny_model, tiny_processor

_HOME = {
    "checking": ("LawResult", "Report", "check_collator", "parametrize_with_checks"),
    "generators": (
        "batches",
        "conversations",
        "hostile_text",
        "images",
        "register_profiles",
        "audio_clips",
        "texts",
        "videos",
    ),
    "laws": ("LAWS", "LawFailure", "Trial"),
    "processors": ("tiny_model", "tiny_processor"),
}

__all__ = [
    "LAWS",
    "LawFailure",
    "LawResult",
    "Report",
    "Trial",
    "batches",
    "check_collator",
    "conversations",
    "hostile_text",
    "images",
    "parametrize_with_checks",
    "register_profiles",
    "audio_clips",
    "texts",
    "tiny_model",
    "tiny_processor",
    "videos",
]


def __getattr__(name: str) -> Any:
    """Imports a name at first access: some need hypothesis, and others all of transformers."""
    import importlib

    for module, names in _HOME.items():
        if name in names:
            try:
                return getattr(importlib.import_module(f"{__name__}.{module}"), name)
            except ModuleNotFoundError as error:
                if error.name != "hypothesis":
                    raise
                raise ImportError(
                    f"vlmcollate.testing.{name} needs hypothesis; run "
                    "pip install 'vlmcollate[testing]'"
                ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
