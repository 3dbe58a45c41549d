"""Prompts with several completions, each of which trains.

Shapes: B examples, N completions of all examples, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import attrs
import torch

from vlmcollate.encode.stackable import check_stackable
from vlmcollate.errors import EmptyBatchError
from vlmcollate.formats.base import row_of
from vlmcollate.objectives.completion_rows import read_answers
from vlmcollate.preference.base import PreferenceBase, refuse_for_shared_prefix
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.validators import one_of

Layout = Literal["rows", "shared_prefix"]


@attrs.frozen(kw_only=True, eq=False)
class EncodedCompletions:
    """The encoded completions of one prompt, whose media tensors are shared.

    Attributes:
        samples: The sample of the prompt with each completion.
    """

    STACKED_BY: ClassVar[str] = "CompletionsCollator.stack"

    samples: tuple[EncodedSample, ...]


@attrs.frozen(eq=False)
class CompletionsCollator(PreferenceBase[EncodedCompletions]):
    """Collates prompts with several completions, each of which trains.

    A row holds `prompt`, a string or messages, and `completions`, a list of strings, of messages or
    of lists of messages; or `completion`, a single one, as in TRL. The media of the prompt is
    decoded and processed once, and none of the prompt trains. A message may have a `weight`.

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
        alike = self.encode_alike(
            answers.conversations, answers.prompt_length, places=answers.places
        )
        return EncodedCompletions(samples=tuple(alike.samples))

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
            ConfigError: An item is of another kind; or the layout is `"shared_prefix"`, and
                completions hold media.
        """
        check_stackable(encoded, EncodedCompletions, of=self)
        if not encoded:
            raise EmptyBatchError("no completion to stack; the batch is empty")
        if self.layout == "rows":
            return self.collator.stack([s for row in encoded for s in row.samples])
        return self.collator.stack([self._pack(row.samples) for row in encoded])

    def _pack(self, samples: Sequence[EncodedSample]) -> EncodedSample:
        if len(samples) > 1:
            return self.collator.pack_branches(samples)
        pack = self.collator.pack(samples)
        trains = (pack.labels != IGNORE_INDEX).nonzero()
        branch_ids = torch.zeros_like(pack.input_ids)
        branch_ids[int(trains[0]) - 1 :] = 1  # with the token that predicts the first
        return attrs.evolve(pack, tokens={**pack.tokens, "branch_ids": branch_ids})
