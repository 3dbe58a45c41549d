"""Any other processor with a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import MediaKind
from vlmcollate.errors import ConfigError
from vlmcollate.media import Join
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.models.probing import check_prompt, facts_of
from vlmcollate.prompt.chat import Rendering

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
_IMAGES: tuple[MediaKind, ...] = ("image",)
_COUNTED: dict[str, tuple[MediaKind, ...]] = {
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
        (*_IMAGES, "video"),
    ),
}
"""The processors whose `_get_num_multimodal_tokens` agrees with what they write."""


@attrs.frozen(kw_only=True, eq=False)
class DefaultCollator(BaseCollator):
    """Collates for a processor without a family of its own.

    How its media keys join is learned from the processor itself: a few small pictures, videos and
    sounds are processed one by one and as a batch, and for each key the rule is kept that makes the
    batch out of the single ones. A key that no rule explains is refused. So is a processor that
    changes the prompt around its media, such as by writing a video's length: for each kind, the
    first use compares a short prompt with the processor's own. `register` a subclass of
    `BaseCollator` where that happens.
    """

    def __attrs_post_init__(self) -> None:
        """Refuses models that do not continue their prompt."""
        super().__attrs_post_init__()
        name = type(self.processor.tokenizer).__name__.removesuffix("Fast")
        if name in _ENCODER_DECODER:
            raise ConfigError(
                f"{type(self.processor).__name__} has a {name}, as encoder-decoder models have it; "
                "they take the answer as the decoder's inputs instead of behind the prompt, which "
                "needs a collator of its own"
            )

    @cached_property
    def media_joins(self) -> Mapping[str, Join]:  # type: ignore[override]  # learned, not declared
        """How each media key becomes one tensor of the batch."""
        return facts_of(self).joins

    @property
    def exact_token_counts(self) -> tuple[MediaKind, ...]:  # type: ignore[override]  # by processor
        """The kinds whose tokens the processor tells, where that is known to be true."""
        return _COUNTED.get(type(self.processor).__name__, ())

    @property
    def no_packs_because(self) -> str:  # type: ignore[override]  # it depends on what was learned
        """The rotary axes of a model that takes grids are its own."""
        grids = sorted(key for key in self.media_joins if key.endswith("_grid_thw"))
        return f"with {grids[0]} its positions may have several axes" if grids else ""

    @cached_property
    def token_type_key(self) -> str | None:  # type: ignore[override]  # learned, not declared
        """The key of the token types, where the processor returns one."""
        return facts_of(self).types

    def supports(self, kind: MediaKind) -> bool:
        """See `BaseCollator`."""
        return kind in facts_of(self).kinds

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        for kind in {span.kind for span in rendering.media}:
            check_prompt(self, kind)
        return super().process_media(rendering, media)
