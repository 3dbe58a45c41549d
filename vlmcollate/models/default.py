"""Any other processor with a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import MediaKind
from vlmcollate.errors import ConfigError
from vlmcollate.family import Family, NotPackable, Packable, TokenTypes
from vlmcollate.media import ProcessedMedia
from vlmcollate.models.probing import check_prompt, probe
from vlmcollate.prompt.rendering import Rendering

_ENCODER_DECODER = frozenset(
    {
        "BartTokenizer",
        "M2M100Tokenizer",
        "MBart50Tokenizer",
        "MBartTokenizer",
        "NllbTokenizer",
        "PegasusTokenizer",
        "T5Tokenizer",
        "UdopTokenizer",
    }
)
_EMPTY = Family()
_IMAGES = frozenset({"image"})
_EXACT: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        (
            "AriaProcessor",
            "Cohere2VisionProcessor",
            "Cosmos3EdgeProcessor",
            "Dots3NoteProcessor",
            "Granite4VisionProcessor",
            "HyperCLOVAXVisionV2Processor",
            "InternVLProcessor",
            "LightOnOcrProcessor",
            "LlavaNextProcessor",
            "LlavaNextVideoProcessor",
            "MuseGlimmerProcessor",
            "MuseSparkProcessor",
            "PixtralProcessor",
            "VideoLlama3Processor",
        ),
        _IMAGES,
    ),
    **dict.fromkeys(
        (
            "CohereCompassProcessor",
            "Exaone4_5_Processor",
            "Glm5NextProcessor",
            "Lfm3VlProcessor",
            "MiniMaxM3VLProcessor",
        ),
        _IMAGES | {"video"},
    ),
}
"""The processors whose `_get_num_multimodal_tokens` agrees with their own prompts, by kind."""


class DefaultCollator(BaseCollator):
    """Collates for a processor without a family of its own.

    Its family is probed: a few small images, videos and audio items are processed one by one and as
    a batch, and each key gets the joining rule that makes the batch of the single results. A key
    that no rule explains is refused. A processor that changes the prompt around its media, for
    example by writing a video's length, is refused as well: the first use of each kind compares a
    short prompt with the processor's own. For these, `register` a subclass of `BaseCollator`.
    """

    def __attrs_post_init__(self) -> None:
        """Refuses models that do not continue their prompt."""
        super().__attrs_post_init__()
        name = type(self.processor.tokenizer).__name__.removesuffix("Fast")
        if name in _ENCODER_DECODER:
            raise ConfigError(
                f"{type(self.processor).__name__} has the {name} of an encoder-decoder model, "
                "which takes the answer as decoder inputs and not after the prompt; write a "
                "collator for it"
            )

    @cached_property
    def family(self) -> Family:
        """The result of probing the processor."""
        found = probe(self.processor)
        grids = sorted(key for key in found.joins if key.endswith("_grid_thw"))
        reason = f"with {grids[0]} its positions may have several axes" if grids else ""
        return Family(
            joins=found.joins,
            token_types=TokenTypes(found.token_types) if found.token_types else None,
            exact_token_counts=_EXACT.get(type(self.processor).__name__, frozenset()),
            packing=NotPackable(reason) if grids else Packable(),
        )

    @property
    def declared(self) -> Family:
        """An empty family, so that a prompt is written without probing the processor."""
        return _EMPTY

    def counts_media(self, kinds: Sequence[MediaKind]) -> bool:
        """See `BaseCollator`."""
        exact = _EXACT.get(type(self.processor).__name__, frozenset())
        return not kinds or (exact.issuperset(kinds) and super().counts_media(kinds))

    def supports(self, kind: MediaKind) -> bool:
        """See `BaseCollator`."""
        return kind in probe(self.processor).kinds

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        for kind in {span.kind for span in rendering.media}:
            check_prompt(self, kind)
        return super().process_media(rendering, media)
