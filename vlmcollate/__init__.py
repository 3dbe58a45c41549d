"""Exact training batches for vision-language models.

Importing the package is cheap: each public name imports its module at first access.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator
    from vlmcollate.conversation import Conversation
    from vlmcollate.data.robust import Resample, RobustCollator, TooManyFailuresError
    from vlmcollate.encode.thinking_prefix import ThinkingPrefix
    from vlmcollate.errors import (
        CollateError,
        ConfigError,
        ConversationError,
        EmptyBatchError,
        LabelError,
        MediaError,
        MediaMismatchError,
        SampleError,
        SampleTooLongError,
        StrategyError,
        TemplateOmissionWarning,
    )
    from vlmcollate.explain import Explanation
    from vlmcollate.labels import (
        FirstApplicable,
        GenerationTagLabels,
        LabelStrategy,
        PrefixMaskLabels,
        RenderedSpanLabels,
        TemplateMarkerLabels,
        TextSearchLabels,
        TurnMarkers,
    )
    from vlmcollate.media import (
        Concatenate,
        FrameSampling,
        Join,
        LocalMedia,
        MediaStrategy,
        PadAndConcatenate,
        Stack,
        UrlFetcher,
        Video,
        VideoLimits,
    )
    from vlmcollate.models import collator_for, register
    from vlmcollate.packing import PackPlan, plan_packs, split_microbatches, stream_packs, unpack
    from vlmcollate.padding import (
        BlockCausalMask,
        DocumentLayout,
        FlattenedDocuments,
        FlexBlockMask,
        IndexedMask,
        PaddingStrategy,
        PadToLength,
        PadToLongest,
        TransformerEngineTHD,
    )
    from vlmcollate.sample import IGNORE_INDEX, EncodedSample

__all__ = [
    "IGNORE_INDEX",
    "BaseCollator",
    "BlockCausalMask",
    "CollateError",
    "Concatenate",
    "ConfigError",
    "Conversation",
    "ConversationError",
    "DocumentLayout",
    "EmptyBatchError",
    "EncodedSample",
    "Explanation",
    "FirstApplicable",
    "FlattenedDocuments",
    "FlexBlockMask",
    "FrameSampling",
    "GenerationTagLabels",
    "IndexedMask",
    "Join",
    "LabelError",
    "LabelStrategy",
    "LocalMedia",
    "MediaError",
    "MediaMismatchError",
    "MediaStrategy",
    "PackPlan",
    "PadAndConcatenate",
    "PadToLength",
    "PadToLongest",
    "PaddingStrategy",
    "PrefixMaskLabels",
    "RenderedSpanLabels",
    "Resample",
    "RobustCollator",
    "SampleError",
    "SampleTooLongError",
    "Stack",
    "StrategyError",
    "TemplateMarkerLabels",
    "TemplateOmissionWarning",
    "TextSearchLabels",
    "ThinkingPrefix",
    "TooManyFailuresError",
    "TransformerEngineTHD",
    "TurnMarkers",
    "UrlFetcher",
    "Video",
    "VideoLimits",
    "collator_for",
    "plan_packs",
    "register",
    "split_microbatches",
    "stream_packs",
    "unpack",
]

_EXPORTS = {
    "collator": ("BaseCollator",),
    "conversation": ("Conversation",),
    "data.robust": ("Resample", "RobustCollator", "TooManyFailuresError"),
    "encode.thinking_prefix": ("ThinkingPrefix",),
    "errors": (
        "CollateError",
        "ConfigError",
        "ConversationError",
        "EmptyBatchError",
        "LabelError",
        "MediaError",
        "MediaMismatchError",
        "SampleError",
        "SampleTooLongError",
        "StrategyError",
        "TemplateOmissionWarning",
    ),
    "explain": ("Explanation",),
    "labels": (
        "FirstApplicable",
        "GenerationTagLabels",
        "LabelStrategy",
        "PrefixMaskLabels",
        "RenderedSpanLabels",
        "TemplateMarkerLabels",
        "TextSearchLabels",
        "TurnMarkers",
    ),
    "media": (
        "Concatenate",
        "FrameSampling",
        "Join",
        "LocalMedia",
        "MediaStrategy",
        "PadAndConcatenate",
        "Stack",
        "UrlFetcher",
        "Video",
        "VideoLimits",
    ),
    "models": ("collator_for", "register"),
    "packing": ("PackPlan", "plan_packs", "split_microbatches", "stream_packs", "unpack"),
    "padding": (
        "BlockCausalMask",
        "DocumentLayout",
        "FlattenedDocuments",
        "FlexBlockMask",
        "IndexedMask",
        "PaddingStrategy",
        "PadToLength",
        "PadToLongest",
        "TransformerEngineTHD",
    ),
    "sample": ("IGNORE_INDEX", "EncodedSample"),
}
"""The modules that define the public names, relative to this package."""

_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

if not TYPE_CHECKING:  # else a type checker would accept any attribute

    def __getattr__(name: str) -> object:
        """Imports a public name or a submodule at first access."""
        from importlib import import_module
        from importlib.util import find_spec

        if name in _MODULE_OF:
            value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        elif find_spec(f"{__name__}.{name}") is not None:
            value = import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value  # found there from now on
        return value

    def __dir__() -> list[str]:
        """Lists the public names and the attributes that are present."""
        return sorted({*globals(), *__all__})
