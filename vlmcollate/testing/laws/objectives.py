"""Laws of other objectives than the next token: labels of rows, and documents without roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch

from vlmcollate.batch.media import with_float_pixels
from vlmcollate.batch.stacking import fill_values
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import MediaMismatchError
from vlmcollate.objectives import ClassificationCollator, DocumentCollator, EncodedDocument
from vlmcollate.objectives.document_rows import plain_document
from vlmcollate.packing.documents import unpack
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.choices import first_difference
from vlmcollate.testing.laws.failure_messages import failure
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.generation import rows_of_inputs
from vlmcollate.testing.laws.packing import short_chats, with_layout
from vlmcollate.testing.laws.subject import Subject


def check_a_class_is_read_off_the_last_token(collator: BaseCollator, trial: Trial) -> None:
    """The last token of a row that is no padding token is the last of its conversation."""
    subject = rows_of_inputs(Subject.of(collator))
    classify = ClassificationCollator(subject.collator, num_labels=1)
    pad = fill_values(subject.tokenizer)["input_ids"]

    def check(examples: list[Chat]) -> None:
        rows = [{"messages": messages[:-1], "label": 0} for messages in examples]
        ends = [subject.collator.prompt(row["messages"]).encoded.input_ids[-1] for row in rows]
        ids = classify(rows)["input_ids"]
        places = (ids != pad).int() * torch.arange(ids.shape[1])
        found = ids[torch.arange(len(ids)), places.argmax(1)].tolist()
        expected = [int(end) for end in ends]
        if found != expected:
            raise failure(
                "a model would read the class of a row off another token than its last",
                "pad with the tokenizer's padding token, and end no prompt with it",
                messages=examples[0],
                found=found,
                expected=expected,
            )

    forall(trial, batches(short_chats(subject), min_size=2), check)


def check_documents_are_split_without_loss(collator: BaseCollator, trial: Trial) -> None:
    """Split documents train each token of text once, and keep each image whole."""
    subject = Subject.of(collator)
    if subject.collator.packing_refusal:
        raise NotApplicable(subject.collator.packing_refusal)
    if not subject.collator.declared.needs_chat_template:
        raise NotApplicable("it takes no plain text")
    changed: dict[str, Any] = {"split_turns": False, "shift_labels": False, "require_labels": False}
    changed["format"] = "auto"  # a document has none of the formats of conversations
    packs = with_layout(attrs.evolve(subject.collator, **changed))

    def check(messages: Chat) -> None:
        row = {"content": [part for message in messages for part in _parts(message)]}
        whole = DocumentCollator(attrs.evolve(packs, max_length=1_000_000)).encode(row)
        limit = max(len(whole) // 2, whole.longest_part, 2)
        split = DocumentCollator(attrs.evolve(packs, max_length=limit))
        try:
            pieces = [piece for pack in split.packs([row]) for piece in unpack(pack)]
        except MediaMismatchError:  # the processor tiles an image by the others of its call
            return
        _check_text(pieces, whole, messages)
        _check_media(packs, pieces, whole, messages)

    drawn = subject.chats(max_turns=min(2, subject.turns))
    forall(trial, drawn, check, also=[subject.chat("Yes", images=subject.images)])


def _check_text(pieces: Sequence[EncodedSample], whole: EncodedDocument, messages: Chat) -> None:
    """Checks that pieces train the tokens of the document, each once."""
    labels = torch.cat([piece.labels[1:] for piece in pieces])
    found = labels[labels != IGNORE_INDEX].tolist()
    expected = whole.sample.labels[1:]
    if found != expected[expected != IGNORE_INDEX].tolist():
        raise failure(
            "the pieces of a document train other tokens than the whole",
            "encode a text as the same tokens whatever media stands beside it",
            messages=messages,
            found=found,
            expected=expected[expected != IGNORE_INDEX].tolist(),
        )


def _check_media(
    packs: BaseCollator, pieces: Sequence[EncodedSample], whole: EncodedDocument, messages: Chat
) -> None:
    """Checks that pieces have the media of their images, encoded in a call of its own."""
    parts = iter([part for _, part in whole.conversation.media])
    for piece in pieces:
        own = [next(parts) for _ in range(sum(piece.media_counts.values()))]
        alone = packs.encode(plain_document(own)) if own else piece
        pixels = [with_float_pixels(sample) for sample in (piece, alone)]
        differs = first_difference(*([attrs.evolve(sample, tokens={})] for sample in pixels))
        if differs is not None:
            raise failure(
                "a piece of a document has other media than its images alone",
                "encode each conversation from its own media in `sharing`",
                messages=messages,
                found=differs,
                expected="the media of its images",
            )
    if next(parts, None) is not None:
        raise failure(
            "an image of a document is in none of its pieces",
            "encode each conversation with all of its media in `sharing`",
            messages=messages,
        )


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
