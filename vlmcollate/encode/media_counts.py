"""Counting the tokens of an example without decoding its media."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from importlib.metadata import version
from typing import final

import attrs

from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.encode.media import count_media
from vlmcollate.encode.stages import Stages
from vlmcollate.encode.token_count import media_texts, small_image
from vlmcollate.media import ProcessedMedia


@cache
def processors_count_videos() -> bool:
    """Whether the processors of this transformers count the tokens of videos, as since 5.18."""
    major, minor, *_ = version("transformers").split(".")
    return (int(major), int(minor)) >= (5, 18)


@attrs.frozen(kw_only=True, eq=False)
class MediaCounts(Stages):
    """Counts tokens from the sizes of media; see `BaseCollator`."""

    def counts_media(self, kinds: Sequence[MediaKind]) -> bool:
        """Returns whether token counts of these kinds follow from media sizes."""
        family = self.family
        counts = family.count_tokens is not None or (
            hasattr(self.processor, "_get_num_multimodal_tokens")
            and ("video" not in kinds or processors_count_videos())
        )
        return not kinds or (counts and family.exact_token_counts.issuperset(kinds))

    def num_media_tokens(self, kind: MediaKind, size: tuple[int, ...]) -> int:
        """Returns the number of tokens of one item.

        A term that is the same for all images, or for all videos with as many frames, may be
        omitted.

        Args:
            kind: `"image"` or `"video"`.
            size: (height, width), or (frames, height, width).
        """
        count = self.family.count_tokens
        if count is not None:
            return count(self.processor, kind, size)
        counts = self.processor._get_num_multimodal_tokens(**{f"{kind}_sizes": [size]})
        return int(counts[f"num_{kind}_tokens"][0])

    @cached_property
    def _small_image(self) -> str:
        return self._replacement("image", small_image())

    @final
    def token_count(self, example: object) -> int | None:
        """Counts the tokens of an example without decoding its media.

        The sizes of images come from their headers, those of videos from their headers and the
        times of their frames.

        Args:
            example: A conversation in any form that `read_example` reads.

        Returns:
            The length of the sample that `encode` returns without a `max_length`, with
            `split_turns` that of all; or `None` if the tokens of the family's media do not follow
            from sizes.

        Raises:
            SampleError: The example is at fault, as far as that shows without its media.
        """
        counts = self.turn_token_counts(example)
        return None if counts is None else sum(counts)

    @final
    def turn_token_counts(self, example: object) -> list[int] | None:
        """Counts the tokens of each sample of `encode_all`; see `token_count`."""
        self._current_tools()
        conversation = self.read_conversation(example)
        turns = self._each_turn(conversation) if self.split_turns else [conversation]
        parts = [part for _, part in turns[-1].media]
        if not self.counts_media([part.kind for part in parts]):
            return None
        texts = media_texts(
            parts,
            self.media,
            self.traits,
            self.processor,
            count=self.num_media_tokens,
            final_size=self._final_size,
            text_of=self._replacement,
            text_of_small_image=lambda: self._small_image,
        )
        return None if texts is None else [self._count(turn, texts) for turn in turns]

    def _count(self, conversation: Conversation, texts: Sequence[str]) -> int:
        """Returns the length of a sample whose media has these texts in the prompt."""
        known = ProcessedMedia(replacements=tuple(texts[: len(list(conversation.media))]))
        rendering = self._render(conversation)
        counts = count_media(rendering, ())
        prompt, sample = self._encode_prompt(conversation, rendering, known, counts)
        name, turns = self._place_turns(prompt, conversation)
        labelled = self._with_labels(prompt, sample, conversation, name, turns)
        sample = self.postprocess(labelled)
        return len(sample) + (self._dummy_room(sample) if self.dummy_media == "sample" else 0)
