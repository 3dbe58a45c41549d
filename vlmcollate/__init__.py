"""Exact training batches for vision-language models."""

from vlmcollate.collator import BaseCollator, DroppedTextWarning
from vlmcollate.conversation import Conversation
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
)
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
    Join,
    LocalMedia,
    MediaStrategy,
    PadAndConcatenate,
    Stack,
)
from vlmcollate.models import collator_for, register
from vlmcollate.padding import PaddingStrategy, PadToLength, PadToLongest
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
    "FirstApplicable",
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
    "SampleError",
    "SampleTooLongError",
    "Stack",
    "TemplateMarkerLabels",
    "TextSearchLabels",
    "TurnMarkers",
    "collator_for",
    "register",
]
