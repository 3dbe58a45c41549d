"""Preference pairs: two answers to one prompt, of which one was chosen.

Shapes: B pairs, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs
import torch

from vlmcollate.encode.stackable import check_stackable
from vlmcollate.errors import (
    ConfigError,
    ConversationError,
    EmptyBatchError,
    SampleTooLongError,
)
from vlmcollate.preference.base import (
    PreferenceBase,
    completions,
    refuse_for_shared_prefix,
    refuse_for_trl,
)
from vlmcollate.preference.rows import SIDES, read_row, side_rows
from vlmcollate.preference.scores import pop_margin, pop_number
from vlmcollate.preference.sides import Sides, read_sides
from vlmcollate.sample import EncodedSample

Layout = Literal["trl", "side_by_side", "shared_prefix"]
_LAYOUTS: tuple[Layout, ...] = ("trl", "side_by_side", "shared_prefix")
_REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
"""The columns that TRL's trainer adds for a reference model that ran before."""


@attrs.frozen(kw_only=True, eq=False)
class EncodedPair:
    """Two encoded conversations with one prompt, whose media tensors are shared.

    Attributes:
        chosen: The sample of the chosen answer.
        rejected: The sample of the rejected answer.
        numbers: Further numbers of the row, such as a margin, by the key in the batch.
    """

    STACKED_BY: ClassVar[str] = "PreferenceCollator.stack or RewardCollator.stack"

    chosen: EncodedSample
    rejected: EncodedSample
    numbers: Mapping[str, float] = attrs.field(factory=dict)


class _Pairs(PreferenceBase[EncodedPair]):
    """Encodes both sides of a row."""

    def encode(self, example: object) -> EncodedPair:
        """Encodes both sides of a row, and their prompt once.

        Args:
            example: The row; see the class.

        Raises:
            SampleError: The row has no two answers to one prompt, or a side cannot be encoded; the
                path of the error begins with the side.
        """
        row = read_row(example)
        numbers = self._pop_numbers(row)
        rows = side_rows(row)
        sides = read_sides(rows, self.collator.read_conversation)
        alike = self.encode_alike(
            [sides.chosen, sides.rejected],
            sides.prompt_length,
            places=[side.place for side in rows],
        )
        chosen, rejected = alike.samples
        if torch.equal(chosen.input_ids, rejected.input_ids):
            self._refuse_equal(sides, chosen)
        return EncodedPair(chosen=chosen, rejected=rejected, numbers=numbers)

    def _refuse_equal(self, sides: Sides, sample: EncodedSample) -> None:
        """Refuses two sides of the same tokens, unless their media differs."""
        first, second = (list(side.media) for side in (sides.chosen, sides.rejected))
        if any(a is not b for (_, a), (_, b) in zip(first, second, strict=False)):
            return  # one answer to two images
        if self.collator.max_length is not None and len(sample) >= self.collator.max_length:
            raise SampleTooLongError(
                f"both answers begin alike and are cut at max_length={self.collator.max_length} "
                "before they differ; raise it, or drop the row"
            )
        raise ConversationError(
            "has the tokens of the chosen side, since the chat template writes both alike; drop "
            "the row",
            where="rejected",
        )

    def _pop_numbers(self, row: dict[str, Any]) -> dict[str, float]:
        """Reads the numbers of a row that its sides do not hold."""
        del row
        return {}


def numbers_of(pairs: Sequence[EncodedPair]) -> dict[str, Any]:
    """Returns the numbers of pairs, each (B,) float32.

    Raises:
        ConfigError: Some pairs have a number that others lack.
    """
    keys = dict.fromkeys(key for pair in pairs for key in pair.numbers)
    for key in keys:
        missing = [index for index, pair in enumerate(pairs) if key not in pair.numbers]
        if missing:
            raise ConfigError(
                f"pair {missing[0]} of the batch has no {key!r}, which others have; give it to all "
                "rows, or to none"
            )
    values = {key: [pair.numbers[key] for pair in pairs] for key in keys}
    return {key: torch.tensor(found, dtype=torch.float32) for key, found in values.items()}


def _layout(instance: object, attribute: Any, value: object) -> None:
    del instance, attribute
    if value not in _LAYOUTS:
        raise ConfigError(f"layout is wrong: found {value!r:.60}, expected one of {list(_LAYOUTS)}")


@attrs.frozen(eq=False)
class PreferenceCollator(_Pairs):
    """Collates pairs of a chosen and a rejected answer, for DPO and its relatives.

    A row holds `prompt`, `chosen` and `rejected`, strings or messages; or whole conversations under
    `chosen` and `rejected`; or a conversation with `rejected_response` or `rejected_messages`
    beside it, as ms-swift; or a question in any format of `vlmcollate.formats` with `chosen` and
    `rejected` instead of its answer, as LLaMA-Factory; or a row of any format on both sides. The
    messages with which both sides begin are the prompt: its media is decoded and processed once,
    and none of it trains.

    Args:
        collator: The collator of single conversations, whose options hold for both sides. If one
            side is too long, `on_overlong` treats both alike.
        layout: `"trl"` makes the batches of TRL's `DPOTrainer`: the rows of all chosen sides, then
            those of all rejected ones, with `completion_mask` instead of `labels`.
            `"side_by_side"` makes two batches in one, whose keys begin with `chosen_` and
            `rejected_`. `"shared_prefix"` makes one row for each pair: the prompt, the chosen and
            the rejected answer, with a mask that keeps the two answers apart, so that the model
            reads the prompt and its media once. It needs a `padding` that makes a mask, such as
            `BlockCausalMask()`.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import tiny_processor
        >>> collate = PreferenceCollator(collator_for(tiny_processor()))
        >>> batch = collate([{"prompt": "Is it blue?", "chosen": "Yes.", "rejected": "No idea."}])
        >>> sorted(batch), tuple(batch["input_ids"].shape[:1])
        (['attention_mask', 'completion_mask', 'input_ids', 'mm_token_type_ids'], (2,))
    """

    layout: Layout = attrs.field(default="trl", validator=_layout, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuses options of the collator that the layout cannot express."""
        super().__attrs_post_init__()
        if self.layout == "trl":
            refuse_for_trl(self.collator, 'layout="trl"')
        if self.layout == "shared_prefix":
            refuse_for_shared_prefix(self.collator)

    def stack(self, encoded: Sequence[EncodedPair]) -> dict[str, Any]:
        """Makes a batch of encoded pairs.

        Args:
            encoded: What `encode` returned, at least one.

        Returns:
            With `layout="trl"`: `input_ids`, `attention_mask` and `completion_mask`, (2B, T) int64,
            the family's token types, and the media tensors of all 2B rows. With
            `layout="side_by_side"`: the batch of `BaseCollator.stack` for each side, with prefixed
            keys. With `layout="shared_prefix"`: the batch of `BaseCollator.stack` for packs, with
            `branch_ids`, (B, T) int64: 0 for the prompt, 1 for the chosen and 2 for the rejected
            answer. `ref_chosen_logps` and `ref_rejected_logps`, (B,) float32, if the rows have
            them.

        Raises:
            EmptyBatchError: There is no pair.
            ConfigError: An item is of another kind; an answer has a fractional weight, which the
                layout `"trl"` cannot hold; or the layout is `"shared_prefix"` and the sides have
                media of their own.
        """
        check_stackable(encoded, EncodedPair, of=self)
        if not encoded:
            raise EmptyBatchError("no pair to stack; the batch is empty")
        chosen = [pair.chosen for pair in encoded]
        rejected = [pair.rejected for pair in encoded]
        numbers = numbers_of(encoded)
        if self.layout == "shared_prefix":
            packs = [self.collator.pack_branches([p.chosen, p.rejected]) for p in encoded]
            return {**self.collator.stack(packs), **numbers}
        if self.layout == "trl":
            return {**completions(self.collator, [*chosen, *rejected]), **numbers}
        batch: dict[str, Any] = {}
        for side, samples in zip(SIDES, (chosen, rejected), strict=True):
            stacked = self.collator.stack(samples)
            batch |= {f"{side}_{key}": value for key, value in stacked.items()}
        return {**batch, **numbers}

    def _pop_numbers(self, row: dict[str, Any]) -> dict[str, float]:
        given = {key: pop_number(row, key) for key in _REFERENCE if key in row}
        if len(given) == 1:
            (name,) = {*_REFERENCE} - given.keys()
            raise ConversationError(
                "has the log probability of one answer; add that of the other, or remove it",
                where=name,
            )
        return given


@attrs.frozen(eq=False)
class RewardCollator(_Pairs):
    """Collates pairs of a chosen and a rejected answer, for reward models.

    Rows are those of `PreferenceCollator`. A row may hold `margin`, by which the reward of the
    chosen answer should be larger, or the scores of both answers, whose difference is the margin:
    `score_chosen` and `score_rejected`, or `chosen_score` and `rejected_score`, or the same with
    `rating` or `reward`.

    Args:
        collator: The collator of single conversations, whose options hold for both sides.
    """

    def __attrs_post_init__(self) -> None:
        """Refuses options of the collator that the batch cannot express."""
        super().__attrs_post_init__()
        refuse_for_trl(self.collator, "RewardCollator")

    def stack(self, encoded: Sequence[EncodedPair]) -> dict[str, Any]:
        """Makes a batch of encoded pairs.

        Args:
            encoded: What `encode` returned, at least one.

        Returns:
            As TRL's `RewardTrainer` takes it: `input_ids` and `attention_mask`, (2B, T) int64, the
            chosen rows first, the family's token types, the media tensors of all rows, and `margin`
            (B,) float32 if the rows have margins or scores.

        Raises:
            EmptyBatchError: There is no pair.
            ConfigError: An item is of another kind.
        """
        check_stackable(encoded, EncodedPair, of=self)
        if not encoded:
            raise EmptyBatchError("no pair to stack; the batch is empty")
        samples = [pair.chosen for pair in encoded] + [pair.rejected for pair in encoded]
        batch = completions(self.collator, samples)
        del batch["completion_mask"]
        return {**batch, **numbers_of(encoded)}

    def _pop_numbers(self, row: dict[str, Any]) -> dict[str, float]:
        margin = pop_margin(row)
        return {} if margin is None else {"margin": margin}
