"""Exact training batches for vision-language models."""

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation
from vlmcollate.data.robust import Resample, RobustCollator, TooManyFailuresError, resample
from vlmcollate.encode.sample_encoder import DroppedTextWarning
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
    "CollateError",
    "Concatenate",
    "ConfigError",
    "Conversation",
    "ConversationError",
    "DroppedTextWarning",
    "EmptyBatchError",
    "EncodedSample",
    "Explanation",
    "FirstApplicable",
    "FrameSampling",
    "GenerationTagLabels",
    "Join",
    "LabelError",
    "LabelStrategy",
    "LocalMedia",
    "MediaError",
    "MediaMismatchError",
    "MediaStrategy",
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
    "TextSearchLabels",
    "ThinkingPrefix",
    "TooManyFailuresError",
    "TurnMarkers",
    "UrlFetcher",
    "Video",
    "VideoLimits",
    "collator_for",
    "register",
    "resample",
    "BlockCausalMask",
    "DocumentLayout",
    "FlattenedDocuments",
    "FlexBlockMask",
    "IndexedMask",
    "TransformerEngineTHD",
    "PackPlan",
    "plan_packs",
    "split_microbatches",
    "stream_packs",
    "unpack",
]
