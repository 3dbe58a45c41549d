"""Automodel's label functions: masks from ids alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.labels import LabelContext, TemplateMarkerLabels, TextSearchLabels
from vlmcollate.models import collator_for
from vlmcollate.sample import IGNORE_INDEX
from vlmcollate.tokenizing import Ints, Vocabulary

Conversations = Sequence[Sequence[Mapping[str, Any]]]


@attrs.frozen
class _Ids:
    """A prompt of which nothing is known but its ids."""

    ids: Ints


@attrs.frozen
class _Search:
    """What a text search may look at."""

    conversation: Conversation
    processor: Any
    stop_ids: Sequence[int]


def build_labels(input_ids_batch: Tensor, conversations: Conversations, processor: Any) -> Tensor:
    """Labels by searching for each answer's tokens with a stop token behind them.

    Args:
        input_ids_batch: (B, T) int64.
        conversations: The B conversations.
        processor: The processor.

    Returns:
        (B, T) int64, not shifted, -100 outside of answers.

    Raises:
        LabelError: An answer is found in no place, or in more than one.
    """
    stops = _stop_ids(processor)
    labels = torch.full_like(input_ids_batch, IGNORE_INDEX)
    for row, conversation in enumerate(conversations):
        ids = input_ids_batch[row]
        search = _Search(Conversation.from_example(list(conversation)), processor, stops)
        try:
            # the search reads no more of either than these hold
            turns = TextSearchLabels()(_Ids(ids.numpy()), search)  # type: ignore[arg-type]
        except LabelError as error:
            raise error.at(index=row) from None
        for turn in turns:
            labels[row, turn.start : turn.end] = ids[turn.start : turn.end]
    return labels


def build_labels_from_template(
    input_ids_batch: Tensor, conversations: Conversations, processor: Any
) -> Tensor:
    """Labels between the markers of the processor's own chat template.

    Args:
        input_ids_batch: (B, T) int64.
        conversations: The B conversations.
        processor: The processor; one without a chat template is served by `build_labels`.

    Returns:
        (B, T) int64, not shifted, -100 outside of the assistant's turns.

    Raises:
        LabelError: A row has more or fewer turns than its conversation has answers, as where a
            user spelled a marker or the row was cut off.
    """
    try:
        collator = collator_for(processor)
    except ConfigError:
        return build_labels(input_ids_batch, conversations, processor)
    labels = torch.full_like(input_ids_batch, IGNORE_INDEX)
    for row, conversation in enumerate(conversations):
        read = Conversation.from_example(list(conversation))
        context = LabelContext(
            conversation=read,
            render=collator._renderer,
            encode=collator.prompt_encoder,
            stop_ids=collator.stop_ids,
        )
        ids = input_ids_batch[row]
        found = TemplateMarkerLabels().markers(context).turns(ids.numpy())
        expected = sum(message.is_assistant for message in read.messages)
        if len(found) != expected:
            raise LabelError(
                f"found {len(found)} assistant turns, expected {expected}; collate from the "
                "conversation, which no text can mislead",
                index=row,
            )
        for start, end in found:
            labels[row, start:end] = ids[start:end]
    return labels


def _stop_ids(processor: Any) -> list[int]:
    try:
        return list(collator_for(processor).stop_ids)
    except ConfigError:
        return [processor.tokenizer.eos_token_id]


def _get_assistant_marker(tokenizer: Any) -> list[int] | None:
    """The ids of `<|im_start|>assistant` and a newline, or `None` where there is no such token."""
    if Vocabulary.of(tokenizer).id_of("<|im_start|>") is None:
        return None
    ids: list[int] = Vocabulary.of(tokenizer).encode("<|im_start|>assistant\n").ids.tolist()
    return ids


def _get_stop_token_id(tokenizer: Any) -> int | None:
    """The id of `<|im_end|>`, or `None` where there is no such token."""
    return Vocabulary.of(tokenizer).id_of("<|im_end|>")


def _find_pattern_indices(
    template: Tensor | Sequence[int],
    pattern: Tensor | Sequence[int],
    search_start_index: int = 0,
    allow_first_token_mismatch: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
) -> tuple[int, int]:
    """Where a run of ids first stands, as (first, behind the last), or (-1, -1)."""
    ids, wanted = torch.as_tensor(template), torch.as_tensor(pattern)
    size, skip = len(wanted), int(allow_first_token_mismatch)
    if not size or len(ids) - search_start_index < size:
        return -1, -1
    windows = ids[search_start_index:].unfold(0, size, 1)
    places = (windows[:, skip:] == wanted[skip:]).all(dim=1).nonzero()
    if not len(places):
        return -1, -1
    start = search_start_index + int(places[0])
    return start, start + size


def _decode_single_token(tokenizer: Any, token_id: int) -> str:
    """The text of one token."""
    text: str = tokenizer.decode([token_id])
    return text
