"""Documents of any length, and the pieces of them that packs hold.

Shapes: L a document's tokens, C its cuts.
"""

from __future__ import annotations

from typing import ClassVar

import attrs
import numpy as np
import torch
from torch import Tensor

from vlmcollate.conversation import Conversation
from vlmcollate.errors import MediaMismatchError
from vlmcollate.objectives.document_cuts import Encode, Ints
from vlmcollate.objectives.document_rows import plain_document
from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True, eq=False)
class EncodedDocument:
    """One encoded document of any length.

    Attributes:
        sample: The sample of the whole document.
        conversation: The document.
        encode: A function that encodes a part of the document, and shares its media.
        media_tokens: The ids of the tokens that stand for the features of media.
        cuts: (C,) int64, the tokens before which a piece may end.
        starts: (C,) int64, the token with which the next piece begins: the same, or the one before
            it if it is text, which predicts the next.
    """

    STACKED_BY: ClassVar[str] = "DocumentCollator.stack"

    sample: EncodedSample
    conversation: Conversation
    encode: Encode
    media_tokens: Tensor
    cuts: Ints
    starts: Ints

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def longest_part(self) -> int:
        """The number of tokens of the longest part that is never cut."""
        ends = np.append(self.cuts, len(self))
        return int((ends - np.append(0, self.starts)).max())

    def piece(self, start: int, stop: int) -> EncodedSample:
        """Returns the sample of some tokens, with the media that they stand for.

        Raises:
            MediaMismatchError: The processor makes other tokens of this media alone.
        """
        whole = self.sample
        if (start, stop) == (0, len(whole)):
            return whole
        media_ids = whole.media_ids[start:stop]
        piece = attrs.evolve(
            whole,
            tokens={key: value[start:stop] for key, value in whole.tokens.items()},
            message_ids=whole.message_ids[start:stop],
            media_ids=media_ids,
            media={},
            media_counts={},
            pixel_tables={},
        )
        items = media_ids[media_ids >= 0]
        if not len(items):
            return piece
        first, last = int(items[0]), int(items[-1])
        parts = [part for _, part in self.conversation.media][first : last + 1]
        alone = self.encode(plain_document(parts))
        if not torch.equal(self._features(alone, 0), self._features(piece, first)):
            raise MediaMismatchError(
                "the processor expands the media of a part of this document to other tokens than "
                "in the whole, so it cannot be split; raise max_length, or split the row",
                where=parts[0].where,
            )
        return attrs.evolve(
            piece,
            media_ids=torch.where(media_ids >= 0, media_ids - first, -1),
            media=alone.media,
            media_counts=alone.media_counts,
            pixel_tables=alone.pixel_tables,
        )

    def _features(self, sample: EncodedSample, first: int) -> Tensor:
        """Returns the media item and the token of each place that stands for a feature."""
        stands = torch.isin(sample.input_ids, self.media_tokens)
        return torch.stack([sample.media_ids - first, sample.input_ids])[:, stands]
