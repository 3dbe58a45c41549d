"""Automodel's label functions, which find labels in the ids.

Shapes: B rows, T tokens a row, L a row's tokens without padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from vlmcollate.automodel.conventions import automodel_collator
from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation
from vlmcollate.encode.thinking_prefix import ThinkingPrefix
from vlmcollate.errors import ConfigError, LabelError, SampleError
from vlmcollate.formats import read_example
from vlmcollate.labels import LabelContext, TemplateMarkerLabels, TextSearchLabels
from vlmcollate.models.gemma4 import Gemma4Collator
from vlmcollate.prompt.encoder import Turn
from vlmcollate.sample import IGNORE_INDEX
from vlmcollate.tokens.vocabulary import Ints, Vocabulary

Conversations = Sequence[Sequence[Mapping[str, Any]]]
_Find = Callable[[Ints, Conversation], Sequence[Turn]]


def build_labels(input_ids_batch: Tensor, conversations: Conversations, processor: Any) -> Tensor:
    """Labels the answers and their stop tokens, found by text search.

    Args:
        input_ids_batch: The token ids, (B, T) int64.
        conversations: The B conversations.
        processor: The processor.

    Returns:
        The labels, (B, T) int64, not shifted, -100 outside the trained answers.

    Raises:
        LabelError: An answer does not occur in the ids, or at more than one position.
    """
    processor = _with_tokenizer(processor)
    collator = _collator_or_none(processor, None)
    find = partial(_find_by_search, processor, collator)
    return _label(input_ids_batch, conversations, find, processor, collator)[0]


def build_labels_from_template(
    input_ids_batch: Tensor,
    conversations: Conversations,
    processor: Any,
    *,
    template_kwargs: Mapping[str, Any] | None = None,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Labels the assistant turns, found by the chat template's markers.

    `template_kwargs` and `attention_mask` are not arguments of Automodel's function.

    Args:
        input_ids_batch: The token ids, (B, T) int64.
        conversations: The B conversations.
        processor: The processor. Without a chat template, `build_labels` is used.
        template_kwargs: The variables of the chat template.
        attention_mask: The attention mask, (B, T). It distinguishes padding from a pad token that
            ends a turn.

    Returns:
        The labels, (B, T) int64, not shifted, -100 outside the trained turns.

    Raises:
        LabelError: The number of turns in a row differs from the number of answers, for example
            because a user spelled a marker or the row is truncated; or only padding ends a turn.
    """
    return label_batch(
        input_ids_batch,
        conversations,
        processor,
        template_kwargs=template_kwargs,
        attention_mask=attention_mask,
    )[0]


def label_batch(
    input_ids: Tensor,
    conversations: Conversations,
    processor: Any,
    *,
    template_kwargs: Mapping[str, Any] | None = None,
    attention_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Finds the labels by markers or text search, and the loss weights.

    Returns:
        The labels, and the weights (B, T) float32, or `None` if all weights are 0 or 1.
    """
    processor = _with_tokenizer(processor)
    collator = _collator_or_none(processor, template_kwargs)
    find: _Find = partial(_find_by_search, processor, collator)
    if collator is not None and collator.family.needs_chat_template:
        find = partial(_find_by_markers, collator)
    return _label(input_ids, conversations, find, processor, collator, attention_mask)


@attrs.frozen(eq=False)
class _TokenizerOnly:
    """A tokenizer with the attribute of a processor."""

    tokenizer: Any


def _with_tokenizer(processor: Any) -> Any:
    return processor if hasattr(processor, "tokenizer") else _TokenizerOnly(processor)


def _collator_or_none(
    processor: Any, template_kwargs: Mapping[str, Any] | None
) -> BaseCollator | None:
    try:
        return automodel_collator(processor, template_kwargs=template_kwargs)
    except ConfigError:
        return None  # the processor has no chat template


def _find_by_markers(collator: BaseCollator, ids: Ints, conversation: Conversation) -> list[Turn]:
    context = LabelContext(
        conversation=conversation,
        render=collator.renderer,
        encode=collator.prompt_encoder,
        stop_ids=collator.stop_ids,
    )
    found = TemplateMarkerLabels().markers(context).turns(ids)
    answers = [i for i, message in enumerate(conversation.messages) if message.is_assistant]
    if len(found) != len(answers):
        raise LabelError(
            f"the number of assistant turns is wrong: found {len(found)}, expected {len(answers)}; "
            "collate from the conversation, in which text cannot spell a turn"
        )
    prefix = _thinking_prefix(collator)
    return [
        Turn(message, start + (len(prefix) if _starts_with(ids[start:], prefix) else 0), end)
        for message, (start, end) in zip(answers, found, strict=True)
    ]


def _thinking_prefix(collator: BaseCollator) -> Ints:
    """Returns the ids of the thinking block that a hook may insert."""
    tokenizer = collator.processor.tokenizer
    prefix = ThinkingPrefix()
    if isinstance(collator, Gemma4Collator):
        prefix.check(tokenizer)
        return Vocabulary.of(tokenizer).encode(prefix.text).ids
    return np.empty(0, np.int64)


def _starts_with(ids: Ints, prefix: Ints) -> bool:
    return len(prefix) > 0 and np.array_equal(ids[: len(prefix)], prefix)


def _find_by_search(
    processor: Any, collator: BaseCollator | None, ids: Ints, conversation: Conversation
) -> list[Turn]:
    eos = [processor.tokenizer.eos_token_id]
    context = _SearchContext(
        conversation, processor, eos if collator is None else collator.stop_ids
    )
    # the search reads only the attributes that these classes have
    return TextSearchLabels().find_turns(_Ids(ids), context)  # type: ignore[arg-type]


@attrs.frozen
class _Ids:
    """The ids of a prompt whose text is unknown."""

    ids: Ints


@attrs.frozen
class _SearchContext:
    """The part of a `LabelContext` that a text search reads."""

    conversation: Conversation
    processor: Any
    stop_ids: Sequence[int]


def _label(
    input_ids: Tensor,
    conversations: Conversations,
    find: _Find,
    processor: Any,
    collator: BaseCollator | None,
    attention_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Returns the labels, and the weights if any of them is neither 0 nor 1."""
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    weights = torch.zeros(input_ids.shape, dtype=torch.float32)
    used_weights: set[float] = set()
    for row, (ids, messages) in enumerate(zip(input_ids, conversations, strict=True)):
        conversation = read_example(list(messages))
        if attention_mask is not None:
            ids = ids[: _length_without_padding(attention_mask[row] != 0)]
        try:
            turns = find(ids.numpy(), conversation)
            if attention_mask is None:
                _check_ends(ids, turns, processor, collator)
        except LabelError as error:
            raise error.at(index=row) from None
        for message, start, end in turns:
            weight = conversation.messages[message].weight
            used_weights.add(weight)
            weights[row, start:end] = weight
            if weight:
                labels[row, start:end] = ids[start:end]
    is_media = torch.isin(input_ids, torch.tensor(media_ids_of(collator), dtype=input_ids.dtype))
    labels[is_media], weights[is_media] = IGNORE_INDEX, 0
    return labels, None if used_weights <= {0.0, 1.0} else weights


def _length_without_padding(is_token: Tensor) -> int:
    """Returns the number of tokens up to the last one that is no padding."""
    indices = is_token.nonzero()
    return int(indices.amax()) + 1 if len(indices) else 0


def _check_ends(
    ids: Tensor, turns: Sequence[Turn], processor: Any, collator: BaseCollator | None
) -> None:
    """Refuses a turn that only padding ends, unless turns usually do."""
    pad = processor.tokenizer.pad_token_id
    length = len(ids) if pad is None else _length_without_padding(ids != pad)
    for turn in turns:
        if turn.end == length + 1 and pad != _usual_stop(processor, collator):
            raise LabelError(
                "only padding ends this turn, and the pad token can also end a turn, so the stop "
                "token of the turn is unknown; pass attention_mask to build_labels_from_template",
                where=f"messages[{turn.message}]",
            )


def _usual_stop(processor: Any, collator: BaseCollator | None) -> int:
    """Returns the token that ends an answer at the end of a conversation."""
    question = {"role": "user", "content": [{"type": "text", "text": "Seven?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Eight."}]}
    try:
        labels = collator.encode([question, answer]).labels if collator is not None else None
    except SampleError:
        labels = None  # the model requires media
    if labels is None:
        return int(processor.tokenizer.eos_token_id)
    return int(labels[labels != IGNORE_INDEX][-1])


def media_ids_of(collator: BaseCollator | None) -> list[int]:
    """Returns the ids of the media tokens."""
    if collator is None:
        return []
    vocabulary = Vocabulary.of(collator.processor.tokenizer)
    tokens = (token for tokens in collator.traits.media_tokens.values() for token in tokens)
    return [i for token in tokens if (i := vocabulary.id_of(token)) is not None]
