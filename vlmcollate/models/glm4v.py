"""GLM-4.1V, GLM-4.5V and GLM-4.6V."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, NotPackable, TokenTypes
from vlmcollate.media import grid_joins

_FAMILY = Family(
    joins=grid_joins(),
    stop_tokens=("<|user|>", "<|observation|>", "<|endoftext|>"),
    token_types=TokenTypes("mm_token_type_ids", token_type_from="item"),
    exact_token_counts=frozenset({"image", "video"}),
    packing=NotPackable("the positions of its media in a pack are unknown"),
    last_turn_end="<|user|>",
)


class Glm4vCollator(BaseCollator):
    """Collates for GLM-4.1V and GLM-4.5V: text, images and videos.

    Only the marker of the next role ends a turn, so the model learns to stop with that marker. The
    template leaves the last turn open; `<|user|>` ends it as well.

    Media keys: `pixel_values` and `pixel_values_videos` (patches, features), `image_grid_thw` and
    `video_grid_thw` (items, 3).

    Source:
        transformers, `Glm4vProcessor`; the stop tokens of the models' generation configs.
    """

    family = _FAMILY


class Glm46VCollator(BaseCollator):
    """Collates for GLM-4.6V, as `Glm4vCollator` does for GLM-4.5V.

    Source:
        transformers, `Glm46VProcessor`; the stop tokens of the models' generation configs.
    """

    family = _FAMILY
