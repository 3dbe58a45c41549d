"""GLM-4.1V and GLM-4.5V."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate


@attrs.frozen(kw_only=True, eq=False)
class Glm4vCollator(BaseCollator):
    """Collates for GLM-4.1V and GLM-4.5V: text, images and videos.

    Nothing ends a turn but the marker of the next role, so that marker is what the model learns to
    stop with. The template leaves the last turn open; it is ended by `<|user|>`, too.

    Media keys: `pixel_values` and `pixel_values_videos` (patches, features), `image_grid_thw` and
    `video_grid_thw` (items, 3).

    Source:
        transformers, `Glm4vProcessor`; the stop tokens of the models' generation configs.
    """

    media_joins = {
        "pixel_values": Concatenate(rows="image_grid_thw"),
        "image_grid_thw": Concatenate(rows="image"),
        "pixel_values_videos": Concatenate(rows="video_grid_thw"),
        "video_grid_thw": Concatenate(rows="video"),
    }
    token_type_key = "mm_token_type_ids"
    types_by_item = True
    exact_token_counts = ("image", "video")
    default_stop_tokens = ("<|user|>", "<|observation|>", "<|endoftext|>")
    no_packs_because = "the positions of its media in a pack are not known"
    closing = "<|user|>"
