"""Prompts with several completions, each of which trains.

Shapes: B examples, N completions of all examples, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import attrs
import torch

from vlmcollate.encode.stackable import check_stackable
from vlmcollate.errors import ConversationError, EmptyBatchError
from vlmcollate.formats.base import row_of
from vlmcollate.objectives.completion_rows import Answers, read_answers
from vlmcollate.preference.base import PreferenceBase, refuse_for_shared_prefix
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import one_of

Layout = Literal["rows", "shared_prefix"]


@attrs.frozen(kw_only=True, eq=False)
class EncodedCompletions:
    """The encoded completions of one prompt, whose media tensors are shared.

    Attributes:
        samples: The sample of the prompt with each completion.
        prompt_length: The number of messages of the prompt.
    """

    STACKED_BY: ClassVar[str] = "CompletionsCollator.stack"

    samples: tuple[EncodedSample, ...]
    prompt_length: int


@attrs.frozen(eq=False)
class CompletionsCollator(PreferenceBase[EncodedCompletions]):
    """Collates prompts with several completions, each of which trains.

    A row holds `prompt`, a string or messages, and `completions`, a list of strings, of messages or
    of lists of messages; or `completion`, a single one, as in TRL. The media of the prompt is
    decoded and processed once, and none of the prompt trains. Columns of media, such as `images`,
    belong to the prompt. A message may have a `weight`.

    Args:
        collator: The collator of single conversations, whose options hold for each completion. If
            one completion is too long, `on_overlong` treats all of the row alike.
        layout: `"rows"` makes one row for each completion. `"shared_prefix"` makes one row for each
            prompt, with all of its completions and a mask that keeps them apart, so that the model
            reads the prompt and its media once. It needs a `padding` that makes a mask, such as
            `BlockCausalMask()`.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import tiny_processor
        >>> collate = CompletionsCollator(collator_for(tiny_processor()))
        >>> batch = collate([{"prompt": "Name a bird.", "completions": ["Emu.", "A teal."]}])
        >>> len(batch["labels"])
        2
    """

    layout: Layout = attrs.field(default="rows", validator=one_of(*get_args(Layout)), kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuses options of the collator that the layout cannot express."""
        super().__attrs_post_init__()
        if self.layout == "shared_prefix":
            refuse_for_shared_prefix(self.collator)

    def encode(self, example: object) -> EncodedCompletions:
        """Encodes all completions of a row, and their prompt once.

        Args:
            example: The row; see the class.

        Raises:
            SampleError: The row has no prompt with completions, or one of them cannot be encoded;
                the path of the error begins with the completion.
        """
        answers = read_answers(row_of(example), self.collator.read_conversation)
        if self.layout == "shared_prefix" and len(answers.conversations) > 1:
            _refuse_media(answers)
        alike = self.encode_alike(
            answers.conversations, answers.prompt_length, places=answers.places
        )
        return EncodedCompletions(samples=tuple(alike.samples), prompt_length=alike.prompt_length)

    def stack(self, encoded: Sequence[EncodedCompletions]) -> dict[str, Any]:
        """Makes a batch of the completions of some rows.

        Args:
            encoded: What `encode` returned, at least one.

        Returns:
            The batch of `BaseCollator.stack`: with `layout="rows"` of N rows, the completions of
            the first prompt first; with `layout="shared_prefix"` of B packs, with `branch_ids`,
            (B, T) int64: 0 for the prompt, and from 1 on for each completion.

        Raises:
            EmptyBatchError: There is no row.
            ConfigError: An item is of another kind; or the layout is `"shared_prefix"`, and the
                completions of a row do not begin alike, since another collator encoded them.
        """
        check_stackable(encoded, EncodedCompletions, of=self)
        if not encoded:
            raise EmptyBatchError("no completion to stack; the batch is empty")
        if self.layout == "rows":
            return self.collator.stack([s for row in encoded for s in row.samples])
        return self.collator.stack([self._pack(row) for row in encoded])

    def _pack(self, row: EncodedCompletions) -> EncodedSample:
        if len(row.samples) > 1:
            return self.collator.pack_branches(row.samples)
        pack = self.collator.pack(row.samples)
        is_answer = (pack.message_ids >= row.prompt_length).long()
        start = int(is_answer.argmax()) if is_answer.any() else len(pack)
        branch_ids = torch.zeros_like(pack.input_ids)
        branch_ids[max(start, 1) - 1 :] = 1  # with the token that predicts the first
        return attrs.evolve(pack, tokens={**pack.tokens, "branch_ids": branch_ids})


def _refuse_media(answers: Answers) -> None:
    """Refuses completions with media, which a row that holds its media once has no place for."""
    for conversation in answers.conversations:
        for at, part in conversation.media:
            if at >= answers.prompt_length:
                raise ConversationError(
                    'is media in one of several completions, for which layout="shared_prefix" has '
                    'no place; choose layout="rows", or drop the row',
                    where=part.where,
                )
