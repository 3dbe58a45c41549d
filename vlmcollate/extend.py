"""What authors of collators and strategies import, and users of the built-in ones do not need."""

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import (
    Conversation,
    MediaKind,
    MediaOptions,
    MediaPart,
    Message,
    TextPart,
)
from vlmcollate.encode.options import CollatorOptions
from vlmcollate.family import TOKEN_TYPES, Family, NotPackable, Packable, TokenTypes
from vlmcollate.formats import DatasetFormat, Fields, Reading, read_example, register_format
from vlmcollate.formats.messages import read_messages
from vlmcollate.labels import LabelContext, LabelStrategy, TurnMarkers
from vlmcollate.labels.base import assistant_indices
from vlmcollate.media import (
    Concatenate,
    FrameSampling,
    Join,
    MediaRequest,
    MediaStrategy,
    PadAndConcatenate,
    ProcessedMedia,
    Stack,
    Video,
    grid_joins,
    process_omni,
    process_patch_grids,
    process_per_item,
    process_together,
    processor_inputs,
)
from vlmcollate.models import COLLATORS, register
from vlmcollate.packing.mrope import MRope
from vlmcollate.packing.token_mixing import TokenMixing
from vlmcollate.padding import DocumentLayout, PaddingStrategy
from vlmcollate.padding.base import Separation
from vlmcollate.prompt.encoder import EncodedPrompt, Turn
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.plain import PromptWriter, prompt_and_answer
from vlmcollate.prompt.rendering import MediaSpan, Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

__all__ = [
    "COLLATORS",
    "IGNORE_INDEX",
    "TOKEN_TYPES",
    "BaseCollator",
    "CollatorOptions",
    "Concatenate",
    "Conversation",
    "DatasetFormat",
    "DocumentLayout",
    "EncodedPrompt",
    "EncodedSample",
    "Family",
    "Fields",
    "FrameSampling",
    "Join",
    "LabelContext",
    "LabelStrategy",
    "MRope",
    "MediaKind",
    "MediaOptions",
    "MediaPart",
    "MediaRequest",
    "MediaSpan",
    "MediaStrategy",
    "Message",
    "NotPackable",
    "Packable",
    "PadAndConcatenate",
    "PaddingStrategy",
    "ProcessedMedia",
    "PromptWriter",
    "Reading",
    "Rendering",
    "Separation",
    "Span",
    "Stack",
    "TextPart",
    "TokenMixing",
    "TokenTypes",
    "Turn",
    "TurnMarkers",
    "Video",
    "assistant_indices",
    "grid_joins",
    "process_omni",
    "process_patch_grids",
    "process_per_item",
    "process_together",
    "processor_inputs",
    "prompt_and_answer",
    "read_example",
    "read_messages",
    "register",
    "register_format",
]
