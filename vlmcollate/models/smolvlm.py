"""SmolVLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import MediaKind
from vlmcollate.errors import MediaError
from vlmcollate.media import PadAndConcatenate, process_one_by_one
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.packing.token_mixing import TokenMixing
from vlmcollate.prompt.chat import Rendering


@attrs.frozen(kw_only=True, eq=False)
class SmolVLMCollator(BaseCollator):
    """Collates for SmolVLM and SmolVLM2: text with images, or with videos.

    Media keys, one row a sample that has images and one a video: `pixel_values` (rows, most tiles,
    3, height, width), `pixel_attention_mask` (rows, most tiles, height, width), padded with zeros.

    Source:
        transformers, `SmolVLMProcessor`.
    """

    media_joins = {
        "pixel_values": PadAndConcatenate(rows="samples with image + video"),
        "pixel_attention_mask": PadAndConcatenate(rows="samples with image + video"),
    }
    exact_token_counts = ("image",)
    default_stop_tokens = ("<end_of_utterance>",)
    token_mixing = TokenMixing(model="SmolVLM")

    def num_media_tokens(self, kind: MediaKind, size: tuple[int, ...]) -> int:
        """See `BaseCollator`.

        A picture is a grid of tiles, each with two tokens before it, and each row with a line
        break; and a last tile that shows the whole, with one token more and another line break.
        """
        del kind
        height, width = size
        _, rows, columns = self.processor.image_processor.get_number_of_image_patches(height, width)
        tile: int = self.processor.image_seq_len
        breaks = rows
        if rows:  # the last row's break and the one before the last tile may be one token
            breaks += len(self.processor.tokenizer.encode("\n\n", add_special_tokens=False)) - 1
        return int(rows * columns * (tile + 2) + breaks + tile + 3)

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`.

        Raises:
            MediaError: A sample holds both images and videos; the processor would keep one kind.
        """
        if len({span.kind for span in rendering.media}) > 1:
            raise MediaError(
                "the sample holds images and videos, of which this processor keeps only one kind; "
                "split the sample, or pass the video's frames as images"
            )
        if all(span.kind == "image" for span in rendering.media):
            return super().process_media(rendering, media)
        kinds = [span.kind for span in rendering.media]
        return process_one_by_one(
            self.processor,
            [self.placeholders[kind] for kind in kinds],
            kinds,
            media,
            self.media_joins,
            # until transformers 5.22 it takes its videos in lists of samples
            [{"videos": [[video.frames]]} for video in media],
        )
