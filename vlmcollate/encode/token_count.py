"""How many tokens an example has, told by the sizes of its media."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from PIL import Image

from vlmcollate.conversation import MediaKind, MediaPart
from vlmcollate.encode.hooks import run_hook
from vlmcollate.encode.sample_encoder import SampleEncoder, media_counts
from vlmcollate.media import Video
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.prompt.chat import MediaSpan, Rendering

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator

_SMALL = (84, 84)
"""The height and width of a picture that any processor takes."""


@attrs.frozen(eq=False)
class TokenCounter:
    """Tells the length of an example without decoding its media.

    Args:
        encoder: Encodes the text.
    """

    encoder: SampleEncoder

    def __call__(self, example: object) -> int | None:
        """Counts one example's tokens; see `BaseCollator.token_count`."""
        encoder, collator = self.encoder, self.encoder.collator
        conversation = collator.read(example)
        kinds = [part.kind for _, part in conversation.media]
        if not collator.counts_media(kinds):
            return None
        outlines = [_outline(collator, part) for _, part in conversation.media]
        if any(outline is None for outline in outlines):
            return None
        texts = tuple(self._outlined(k, o) for k, o in zip(kinds, outlines, strict=True))
        rendering = collator.render(conversation)
        processed = ProcessedMedia(replacements=texts)
        counts = media_counts(rendering, ())
        prompt, sample = encoder.encoded(conversation, processed, rendering, counts)
        sample = collator.postprocess(encoder.with_labels(sample, prompt, conversation))
        if collator.dummy_media == "sample":
            return len(sample) + encoder.placeholders.room(sample)
        return len(sample)

    def _outlined(self, kind: MediaKind, outline: Any) -> str:
        """What stands for an item of this outline: that of a small one, stretched."""
        collator = self.encoder.collator
        if isinstance(outline, Video):
            shape: tuple[int, ...] = outline.frames.shape[:3]
            small: tuple[int, ...] = (len(outline.frames), *_SMALL)
            frames = np.zeros((*small, 3), np.uint8)
            text = self._alone(kind, attrs.evolve(outline, frames=frames))
        else:
            shape, small, text = outline, _SMALL, collator.small_image
        more = collator.num_media_tokens(kind, shape) - collator.num_media_tokens(kind, small)
        # a video may be made of image tokens
        token = next(t for t in chain.from_iterable(collator.media_tokens.values()) if t in text)
        if more > 0:
            return text.replace(token, token * (more + 1), 1)
        return text.replace(token, "", -more)

    def small_image(self) -> str:
        """What the placeholder of a small image becomes."""
        return self._alone("image", Image.new("RGB", _SMALL[::-1]))

    def _alone(self, kind: MediaKind, item: Any) -> str:
        """What the placeholder of an item becomes that is the only one."""
        text = self.encoder.collator.placeholders[kind]
        rendering = Rendering(text=text, given=(), media=(MediaSpan(0, len(text), -1, kind),))
        return self.encoder.collator.process_media(rendering, [item]).replacements[0]


def _outline(collator: BaseCollator, part: MediaPart) -> tuple[int, int] | Video | None:
    """An image's height and width, or a video's black frames."""
    hook: Callable[[], tuple[int, int] | Video | None]
    if part.kind == "image":
        hook = partial(collator.media.image_size, part.source, where=part.where)
    else:
        sampling, outline = collator.frame_sampling, collator.media.probe_video
        hook = partial(outline, part.source, sampling=sampling, where=part.where)
    return run_hook(hook, strategy=collator.media, place=part.where)
