"""Label strategies, which find the trained tokens of a conversation."""

from vlmcollate.labels.base import LabelContext, LabelStrategy
from vlmcollate.labels.first_applicable import FirstApplicable
from vlmcollate.labels.generation_tag import GenerationTagLabels
from vlmcollate.labels.prefix_mask import PrefixMaskLabels
from vlmcollate.labels.rendered_span import RenderedSpanLabels
from vlmcollate.labels.template_marker import TemplateMarkerLabels, TurnMarkers
from vlmcollate.labels.text_search import TextSearchLabels

__all__ = [
    "FirstApplicable",
    "GenerationTagLabels",
    "LabelContext",
    "LabelStrategy",
    "PrefixMaskLabels",
    "RenderedSpanLabels",
    "TemplateMarkerLabels",
    "TextSearchLabels",
    "TurnMarkers",
]
