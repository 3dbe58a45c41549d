"""Encodes parts of prompts, whose media may depend on that of the parts before.

Shapes: L a prompt's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import cached_property, partial
from typing import Any

import attrs
import torch
from PIL import Image

from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.encode.batches import Batches
from vlmcollate.encode.dummy_media import bare_placeholders
from vlmcollate.encode.rollouts import Piece
from vlmcollate.errors import MediaMismatchError
from vlmcollate.formats.roles import RESULTS
from vlmcollate.media import ProcessedMedia
from vlmcollate.prompt.encoder import EncodedPrompt
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample


@attrs.frozen(kw_only=True, eq=False)
class Pieces(Batches):
    """Encodes parts of prompts; see `BaseCollator`."""

    def _encode_piece(
        self,
        conversation: Conversation,
        rendering: Rendering,
        media: Sequence[Any],
        *,
        before: Sequence[Piece] | None = None,
    ) -> Piece:
        """Encodes a part of a prompt.

        Args:
            conversation: The messages that the part belongs to.
            rendering: The part.
            media: Its decoded media.
            before: The parts before it; `None` for the first, to which the tokens belong that the
                tokenizer adds before a text.
        """
        past = [piece for piece in before or () if piece.media]
        kinds = tuple(span.kind for span in rendering.media)
        takes_all = bool(past and kinds) and not self._treats_apart(
            {*kinds, *(kind for piece in past for kind in piece.kinds)}
        )
        process_given = partial(self._processed_after, past) if takes_all else self.process_media
        replacements: list[str] = []

        def process(rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
            found = process_given(rendering, media)
            replacements[:] = found.replacements
            return found

        prompt, sample = self._tokenize(conversation, media, rendering, process)
        short = self._unexpanded(conversation, rendering) if media else prompt
        return Piece(
            sample=_untrained_part(sample, _own_tokens(prompt, keeps_prefix=before is None)),
            token_ids=tuple(short.ids[_own_tokens(short, keeps_prefix=before is None)].tolist()),
            text=rendering.text,
            media=tuple(media),
            kinds=kinds,
            replacements=tuple(replacements),
            holds_all_media=takes_all,
            messages=len(conversation.messages),
            holds_results=any(message.role in RESULTS for message in conversation.messages),
        )

    def _unexpanded(self, conversation: Conversation, rendering: Rendering) -> EncodedPrompt:
        """Encodes a rendering with one placeholder for each media item."""
        placeholders = tuple(self.traits.placeholders[span.kind] for span in rendering.media)
        return self.prompt_encoder(
            conversation, rendering, ProcessedMedia(replacements=placeholders)
        )

    def _processed_after(
        self, past: Sequence[Piece], rendering: Rendering, media: Sequence[Any]
    ) -> ProcessedMedia:
        """Processes media together with that before it.

        Returns:
            The replacements of the media, and the tensors of all.

        Raises:
            MediaMismatchError: The earlier media would have other tokens than it has.
        """
        items = [item for piece in past for item in piece.media]
        kinds = [kind for piece in past for kind in piece.kinds]
        kinds += [span.kind for span in rendering.media]
        together = bare_placeholders(kinds, self.traits.placeholders)
        found = self.process_media(together, [*items, *media])
        known = tuple(text for piece in past for text in piece.replacements)
        if found.replacements[: len(known)] != known:
            raise MediaMismatchError(
                "the processor expands the earlier media to other tokens once more media follows, "
                "so a prompt cannot grow by media; pass all of it in the first prompt"
            )
        return attrs.evolve(found, replacements=found.replacements[len(known) :])

    def _treats_apart(self, kinds: Set[MediaKind]) -> bool:
        """Returns whether the processor treats each item as it would alone, tried on images."""
        return kinds == {"image"} and self._treats_images_apart

    @cached_property
    def _treats_images_apart(self) -> bool:
        if any((join.rows or "sample").startswith("sample") for join in self.family.joins.values()):
            return False
        images = [Image.new("RGB", size, "gray") for size in ((640, 480), (300, 900))]
        together, *each = (
            self.process_media(
                bare_placeholders(["image"] * len(some), self.traits.placeholders), some
            )
            for some in (images, images[:1], images[1:])
        )
        return together.replacements == (*each[0].replacements, *each[1].replacements)


def _own_tokens(prompt: EncodedPrompt, *, keeps_prefix: bool) -> slice:
    """Returns the tokens of a prompt, with or without those that the tokenizer adds before it."""
    return slice(0 if keeps_prefix else prompt.inner.start, prompt.inner.stop)


def _untrained_part(sample: EncodedSample, kept: slice) -> EncodedSample:
    """Returns some tokens of a sample, none of which trains."""
    tokens = {key: value[kept] for key, value in sample.tokens.items()}
    tokens["labels"] = torch.full_like(tokens["input_ids"], IGNORE_INDEX)
    return attrs.evolve(
        sample,
        tokens=tokens,
        message_ids=sample.message_ids[kept],
        media_ids=sample.media_ids[kept],
    )
