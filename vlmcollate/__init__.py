"""Exact training batches for vision-language models.

Importing the package is cheap: each public name imports its module at first access.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator
    from vlmcollate.data.robust import Resample, RobustCollator
    from vlmcollate.encode.thinking_prefix import ThinkingPrefix
    from vlmcollate.encode.train_on import PartWeights, Reasoning
    from vlmcollate.errors import (
        CollateError,
        ConfigError,
        SampleError,
    )
    from vlmcollate.explain import Explanation
    from vlmcollate.labels import (
        FirstApplicable,
        GenerationTagLabels,
        PrefixMaskLabels,
        RenderedSpanLabels,
        TemplateMarkerLabels,
        TextSearchLabels,
    )
    from vlmcollate.media import (
        FrameSampling,
        LocalMedia,
        ObjectStores,
        UrlFetcher,
        VideoLimits,
    )
    from vlmcollate.models import collator_for, register
    from vlmcollate.packing import plan_packs, split_microbatches, stream_packs, unpack
    from vlmcollate.padding import (
        BlockCausalMask,
        FlattenedDocuments,
        FlexBlockMask,
        IndexedMask,
        PadToLength,
        PadToLongest,
        TransformerEngineTHD,
    )
    from vlmcollate.pixels import finish_pixels, normalize_pixels
    from vlmcollate.sample import IGNORE_INDEX, EncodedSample

__all__ = [
    "IGNORE_INDEX",
    "BaseCollator",
    "BlockCausalMask",
    "CollateError",
    "ConfigError",
    "EncodedSample",
    "Explanation",
    "FirstApplicable",
    "FlattenedDocuments",
    "FlexBlockMask",
    "FrameSampling",
    "GenerationTagLabels",
    "IndexedMask",
    "LocalMedia",
    "ObjectStores",
    "PadToLength",
    "PadToLongest",
    "PartWeights",
    "PrefixMaskLabels",
    "Reasoning",
    "RenderedSpanLabels",
    "Resample",
    "RobustCollator",
    "SampleError",
    "TemplateMarkerLabels",
    "TextSearchLabels",
    "ThinkingPrefix",
    "TransformerEngineTHD",
    "UrlFetcher",
    "VideoLimits",
    "collator_for",
    "finish_pixels",
    "normalize_pixels",
    "plan_packs",
    "register",
    "split_microbatches",
    "stream_packs",
    "unpack",
]

_EXPORTS = {
    "collator": ("BaseCollator",),
    "data.robust": ("Resample", "RobustCollator"),
    "encode.thinking_prefix": ("ThinkingPrefix",),
    "encode.train_on": ("PartWeights", "Reasoning"),
    "errors": (
        "CollateError",
        "ConfigError",
        "SampleError",
    ),
    "explain": ("Explanation",),
    "labels": (
        "FirstApplicable",
        "GenerationTagLabels",
        "PrefixMaskLabels",
        "RenderedSpanLabels",
        "TemplateMarkerLabels",
        "TextSearchLabels",
    ),
    "media": (
        "FrameSampling",
        "LocalMedia",
        "ObjectStores",
        "UrlFetcher",
        "VideoLimits",
    ),
    "models": ("collator_for", "register"),
    "packing": ("plan_packs", "split_microbatches", "stream_packs", "unpack"),
    "padding": (
        "BlockCausalMask",
        "FlattenedDocuments",
        "FlexBlockMask",
        "IndexedMask",
        "PadToLength",
        "PadToLongest",
        "TransformerEngineTHD",
    ),
    "pixels": ("finish_pixels", "normalize_pixels"),
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
