"""Documents of text and media without roles, packed to full length for continued pretraining.

Shapes: P packs, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.encode.each import raise_error
from vlmcollate.encode.labelling import check_trains
from vlmcollate.encode.stackable import check_stackable
from vlmcollate.errors import ConfigError, EmptyBatchError, SampleError
from vlmcollate.formats import TextFormat, format_of
from vlmcollate.formats.base import row_of
from vlmcollate.objectives.document_cuts import find_cuts
from vlmcollate.objectives.document_packs import check_fits, fill_packs
from vlmcollate.objectives.document_rows import form_of, read_document
from vlmcollate.objectives.encoded_document import EncodedDocument
from vlmcollate.preference.base import PreferenceBase
from vlmcollate.sample import EncodedSample


@attrs.frozen(eq=False)
class DocumentCollator(PreferenceBase[EncodedDocument]):
    """Packs documents of text and media for continued pretraining.

    A row holds `content`, a list of parts such as `{"type": "text", "text": ...}` and
    `{"type": "image", "image": ...}`; or `texts` and `images`, lists of one length with `None` in
    one of them at each place, as in OBELICS; or `text` with tags such as `<image>`, as in
    `TextFormat`. Media beside `content` fills its empty parts, as beside messages. A `weight` is
    that of the text in the loss. Other columns are not read.

    All text trains, and so does the tokenizer's end token behind each document. Media never trains.
    Packs are filled in the order of the documents, and a document that does not fit is continued in
    the next pack: between two tokens of text, of which the first is repeated there, since it
    predicts the second; or before media, which is never cut.

    Args:
        collator: The collator of single conversations. Its `max_length` is that of a pack, its
            `padding` keeps documents apart, such as `BlockCausalMask()`, and its `format` may be a
            `TextFormat` with a `column` and a `media_root`.

    Example:
        >>> from vlmcollate import BlockCausalMask, collator_for
        >>> from vlmcollate.testing import tiny_processor
        >>> collator = collator_for(tiny_processor(), max_length=8, padding=BlockCausalMask())
        >>> collate = DocumentCollator(collator)
        >>> batch = collate([{"content": "One."}, {"content": "Two, three and four."}])
        >>> batch["input_ids"].shape[1]
        8
    """

    def __attrs_post_init__(self) -> None:
        """Refuses options of the collator that documents cannot have."""
        super().__attrs_post_init__()
        if self.collator.max_length is None:
            raise ConfigError("DocumentCollator needs the length of a pack; set max_length")
        if self.collator.max_length < 2:
            raise ConfigError(
                f"a pack of max_length={self.collator.max_length} trains nothing, since no token "
                "precedes its first; raise it"
            )
        if self.collator.padding.separates_by is None:
            raise ConfigError(
                "DocumentCollator makes packs, whose documents would attend to each other with "
                f"{type(self.collator.padding).__name__}; set padding to a layout that keeps them "
                "apart, such as BlockCausalMask()"
            )
        if self.collator.on_overlong in ("truncate", "drop_turns"):
            raise ConfigError(
                "DocumentCollator splits documents and cuts nothing off: found on_overlong="
                f'"{self.collator.on_overlong}"; set it to "raise", or to "drop" for documents '
                "with media that is longer than a pack"
            )
        if not isinstance(format_of(self.collator.format), TextFormat | None):
            raise ConfigError(
                f"DocumentCollator reads documents: found format={self.collator.format!r:.60}, "
                'expected "auto" or TextFormat(), whose media_root holds for all forms; remove it'
            )
        if self.collator.dummy_media != "never":
            raise ConfigError(
                "packs of documents have no place for dummy media: found dummy_media="
                f'"{self.collator.dummy_media}"; set it to "never"'
            )

    @property
    def _text_format(self) -> TextFormat:
        given = format_of(self.collator.format)
        return given if isinstance(given, TextFormat) else TextFormat()

    @property
    def _limit(self) -> int:
        return self.collator.max_length or 0

    @cached_property
    def _whole(self) -> BaseCollator:
        """The collator of documents of any length."""
        changed: BaseCollator = attrs.evolve(
            self.collator, max_length=None, on_overlong="raise", require_labels=False
        )
        return changed

    @cached_property
    def _media_tokens(self) -> Tensor:
        tokenizer = self.collator.processor.tokenizer
        names = {name for names in self.collator.traits.media_tokens.values() for name in names}
        return torch.tensor(tokenizer.convert_tokens_to_ids(sorted(names)))

    def encode(self, example: object) -> EncodedDocument:
        """Encodes one document of any length.

        Args:
            example: The row; see the class.

        Raises:
            SampleError: The row is no document, holds media that is longer than a pack, or has the
                weight 0.
        """
        row = row_of(example)
        conversation = read_document(row, self.collator.on_unread, self._text_format)
        encode = self._whole.sharing([conversation])
        try:
            sample = encode(conversation)
        except SampleError as error:  # a document is one message inside
            where = error.where
            if where is not None and where.startswith("messages[0]"):
                where = form_of(row, self._text_format)
            raise type(error)(error.problem, where=where) from error.__cause__
        if self.collator.require_labels:
            check_trains(sample)
        cuts, starts = find_cuts(sample, conversation, encode)
        document = EncodedDocument(
            sample=sample,
            conversation=conversation,
            encode=encode,
            media_tokens=self._media_tokens,
            cuts=cuts,
            starts=starts,
        )
        check_fits(document, self._limit)
        return document

    def stack(self, encoded: Sequence[EncodedDocument]) -> dict[str, Any]:
        """Makes a batch of the packs of some documents.

        Args:
            encoded: What `encode` returned, at least one.

        Returns:
            The batch of `BaseCollator.stack` of P packs, as many as the documents fill; all but the
            last have `max_length` tokens, or fewer if media comes next.

        Raises:
            EmptyBatchError: There is no document.
            ConfigError: An item is of another kind.
            MediaMismatchError: The processor makes other tokens of the media of a piece alone.
        """
        check_stackable(encoded, EncodedDocument, of=self)
        if not encoded:
            raise EmptyBatchError("no document to stack; the batch is empty")
        packs = [self.collator.pack(pieces) for pieces in fill_packs(encoded, self._limit)]
        return self.collator.stack(packs)

    def packs(
        self,
        rows: Iterable[object],
        *,
        on_error: Callable[[SampleError], Sequence[EncodedDocument]] = raise_error,
    ) -> Iterator[EncodedSample]:
        """Packs a stream of documents, for `collator.stack`.

        Args:
            rows: The dataset's rows.
            on_error: Called with each `SampleError`, which holds the index of its row. It returns
                documents to use instead, none of them to skip the row, or raises.

        Yields:
            The packs.

        Raises:
            SampleError: A row is at fault; the error holds its index.
            MediaMismatchError: The processor makes other tokens of the media of a piece alone.
        """
        for pieces in fill_packs(self._encoded(rows, on_error), self._limit):
            yield self.collator.pack(pieces)

    def _encoded(
        self,
        rows: Iterable[object],
        on_error: Callable[[SampleError], Sequence[EncodedDocument]],
    ) -> Iterator[EncodedDocument]:
        for index, row in enumerate(rows):
            try:
                documents: Sequence[EncodedDocument] = self._encode_kept(row)
            except SampleError as error:
                located = error.at(index=index)
                located.__cause__ = error.__cause__
                documents = on_error(located)
            yield from documents
