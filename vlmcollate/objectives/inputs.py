"""The inputs of models that generate nothing: conversations with or without a last answer.

Shapes: B examples, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation
from vlmcollate.encode.overlong import cut, length_without_cut_media
from vlmcollate.errors import ConfigError, SampleTooLongError
from vlmcollate.formats import MessagesFormat, format_of
from vlmcollate.formats.pairs import missing_answer
from vlmcollate.objectives.user_rows import user_row
from vlmcollate.preference.base import COUNTS, PreferenceBase
from vlmcollate.sample import OF_LABELS, EncodedSample

E = TypeVar("E")


@attrs.frozen(eq=False)
class InputCollator(PreferenceBase[E]):
    """Encodes conversations of which nothing trains.

    Args:
        collator: The collator of single conversations, whose options hold for each.
    """

    def __attrs_post_init__(self) -> None:
        """Refuses options of the collator that have no meaning without labels of tokens."""
        super().__attrs_post_init__()
        name = type(self).__name__
        for option, is_set in (
            ("shift_labels", self.collator.shift_labels),
            ("train_on", self.collator.train_on != "all_turns"),
            ("empty_reasoning", self.collator.empty_reasoning == "mask"),
        ):
            if is_set:
                raise ConfigError(
                    f"{name} makes no labels of tokens, which {option} would change; remove it"
                )
        if self.collator.padding.separates_by is not None:
            raise ConfigError(
                f"{name} makes a row for each conversation, found padding="
                f"{type(self.collator.padding).__name__}, which lays out packs; choose "
                "PadToLongest()"
            )

    @cached_property
    def untrained(self) -> BaseCollator:
        """The collator, which accepts samples of which nothing trains."""
        changed: BaseCollator = attrs.evolve(self.collator, require_labels=False)
        return changed


def read_input(collator: BaseCollator, row: Mapping[str, Any]) -> Conversation:
    """Reads a conversation, which may end with a question, or a text with media.

    Raises:
        ConversationError: The row is no conversation.
    """
    own = format_of(collator.format)
    if isinstance(own, MessagesFormat | None) and (asked := user_row(row)) is not None:
        return collator.read_conversation(asked)
    column = missing_answer(row) if own is None else None
    if column is None:
        return collator.read_conversation(row)
    answered = collator.read_conversation({**row, column: "."})
    return attrs.evolve(answered, messages=answered.messages[:-1])


def encode_input(
    collator: BaseCollator, conversation: Conversation, *, generation_prompt: bool
) -> EncodedSample:
    """Encodes a conversation as a whole.

    Args:
        collator: A collator that accepts samples of which nothing trains.
        conversation: The conversation.
        generation_prompt: Whether the generation prompt follows a last message that is no answer.

    Raises:
        SampleError: The conversation cannot be encoded, or is too long.
    """
    is_open = not conversation.is_plain_text and not conversation.messages[-1].is_assistant
    if not (is_open and generation_prompt):
        return collator.encode(conversation)
    if collator.on_overlong == "truncate":
        sample = _truncated_prompt(collator, conversation, collator.max_length or 0)
    else:
        sample = collator.prompt(conversation).encoded
    return collator.dummies.add(sample, [sample]) if collator.dummy_media == "sample" else sample


def _truncated_prompt(
    collator: BaseCollator, conversation: Conversation, limit: int
) -> EncodedSample:
    """Encodes a prompt and cuts its end, as processors truncate, but never media."""
    unlimited: BaseCollator = attrs.evolve(collator, max_length=None, on_overlong="raise")
    sample = unlimited.prompt(conversation).encoded
    length = length_without_cut_media(sample, limit)
    if (sample.media_ids[length:] >= 0).any():
        raise SampleTooLongError(
            f"{len(sample)} tokens, and those behind max_length={limit} hold media, which is never "
            f"cut; raise it to {len(sample)}, or drop the row"
        )
    return cut(sample, length)


def stack_inputs(collator: BaseCollator, samples: Sequence[EncodedSample]) -> dict[str, Any]:
    """Stacks samples without labels of tokens and numbers of media items.

    Returns:
        `input_ids` and `attention_mask`, (B, T) int64, the family's token types, and the media.
    """
    batch = collator.stack(samples)
    return {k: v for k, v in batch.items() if k not in COUNTS and k not in OF_LABELS}
