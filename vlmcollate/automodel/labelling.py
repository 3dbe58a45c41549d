"""Automodel's label functions: masks from ids alone.

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
    """Labels by searching for each answer's tokens with a stop token behind them.

    Args:
        input_ids_batch: (B, T) int64.
        conversations: The B conversations.
        processor: The processor.

    Returns:
        (B, T) int64, not shifted, -100 outside of the answers that train.

    Raises:
        LabelError: An answer is found in no place, or in more than one.
    """
    processor = _with_tokenizer(processor)
    collator = _collator_or_none(processor, None)
    find = partial(_by_search, processor, collator)
    return _labelled(input_ids_batch, conversations, find, processor, collator)[0]


def build_labels_from_template(
    input_ids_batch: Tensor,
    conversations: Conversations,
    processor: Any,
    *,
    template_kwargs: Mapping[str, Any] | None = None,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Labels between the markers of the processor's own chat template.

    Args:
        input_ids_batch: (B, T) int64.
        conversations: The B conversations.
        processor: The processor; one without a chat template is served by `build_labels`.
        template_kwargs: Chat template variables; Automodel has no such argument.
        attention_mask: (B, T), which tells padding from a pad token that ends a turn; nor this.

    Returns:
        (B, T) int64, not shifted, -100 outside of the assistant's turns that train.

    Raises:
        LabelError: A row has more or fewer turns than its conversation has answers, as where a
            user spelled a marker or the row was cut off; or nothing but padding ends a turn.
    """
    return labels_and_weights(
        input_ids_batch,
        conversations,
        processor,
        template_kwargs=template_kwargs,
        attention_mask=attention_mask,
    )[0]


def labels_and_weights(
    input_ids: Tensor,
    conversations: Conversations,
    processor: Any,
    *,
    template_kwargs: Mapping[str, Any] | None = None,
    attention_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The labels of `build_labels_from_template`, and the weights of the loss.

    Returns:
        The labels, and (B, T) float32 where messages have weights other than 0 and 1, else `None`.
    """
    processor = _with_tokenizer(processor)
    collator = _collator_or_none(processor, template_kwargs)
    find: _Find = partial(_by_search, processor, collator)
    if collator is not None and collator.family.needs_chat_template:
        find = partial(_by_markers, collator)
    return _labelled(input_ids, conversations, find, processor, collator, attention_mask)


@attrs.frozen(eq=False)
class _Words:
    """A tokenizer in the place of a processor."""

    tokenizer: Any


def _with_tokenizer(processor: Any) -> Any:
    return processor if hasattr(processor, "tokenizer") else _Words(processor)


def _collator_or_none(
    processor: Any, template_kwargs: Mapping[str, Any] | None
) -> BaseCollator | None:
    try:
        return automodel_collator(processor, template_kwargs=template_kwargs)
    except ConfigError:
        return None  # without a template


def _by_markers(collator: BaseCollator, ids: Ints, conversation: Conversation) -> list[Turn]:
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
            f"found {len(found)} assistant turns, expected {len(answers)}; collate from the "
            "conversation, which no text can mislead"
        )
    behind = _prefix_of(collator)
    return [
        Turn(message, start + (len(behind) if _begins(ids[start:], behind) else 0), end)
        for message, (start, end) in zip(answers, found, strict=True)
    ]


def _prefix_of(collator: BaseCollator) -> Ints:
    """The ids of the thinking block that a hook may have put in front of every answer."""
    tokenizer = collator.processor.tokenizer
    prefix = ThinkingPrefix()
    if isinstance(collator, Gemma4Collator):
        prefix.check(tokenizer)
        return Vocabulary.of(tokenizer).encode(prefix.text).ids
    return np.empty(0, np.int64)


def _begins(ids: Ints, prefix: Ints) -> bool:
    return len(prefix) > 0 and np.array_equal(ids[: len(prefix)], prefix)


def _by_search(
    processor: Any, collator: BaseCollator | None, ids: Ints, conversation: Conversation
) -> list[Turn]:
    eos = [processor.tokenizer.eos_token_id]
    known = _Known(conversation, processor, eos if collator is None else collator.stop_ids)
    # the search reads no more of either than these hold
    return TextSearchLabels().find_turns(_Ids(ids), known)  # type: ignore[arg-type]


@attrs.frozen
class _Ids:
    """A prompt of which nothing is known but its ids."""

    ids: Ints


@attrs.frozen
class _Known:
    """What a text search may look at."""

    conversation: Conversation
    processor: Any
    stop_ids: Sequence[int]


def _labelled(
    input_ids: Tensor,
    conversations: Conversations,
    find: _Find,
    processor: Any,
    collator: BaseCollator | None,
    attention_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The labels and, where there are any but 0 and 1, the weights."""
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    weights = torch.zeros(input_ids.shape, dtype=torch.float32)
    given: set[float] = set()
    for row, (ids, messages) in enumerate(zip(input_ids, conversations, strict=True)):
        conversation = read_example(list(messages))
        if attention_mask is not None:
            ids = ids[: _length(attention_mask[row] != 0)]
        try:
            turns = find(ids.numpy(), conversation)
            if attention_mask is None:
                _check_ends(ids, turns, processor, collator)
        except LabelError as error:
            raise error.at(index=row) from None
        for message, start, end in turns:
            weight = conversation.messages[message].weight
            given.add(weight)
            weights[row, start:end] = weight
            if weight:
                labels[row, start:end] = ids[start:end]
    is_media = torch.isin(input_ids, torch.tensor(media_ids_of(collator), dtype=input_ids.dtype))
    labels[is_media], weights[is_media] = IGNORE_INDEX, 0
    return labels, None if given <= {0.0, 1.0} else weights


def _length(is_held: Tensor) -> int:
    """The tokens of a row up to the last that it holds."""
    places = is_held.nonzero()
    return int(places.amax()) + 1 if len(places) else 0


def _check_ends(
    ids: Tensor, turns: Sequence[Turn], processor: Any, collator: BaseCollator | None
) -> None:
    """Refuses a turn that ends with the first token of the padding, though turns end otherwise."""
    pad = processor.tokenizer.pad_token_id
    length = len(ids) if pad is None else _length(ids != pad)
    for turn in turns:
        if turn.end == length + 1 and pad != _usual_stop(processor, collator):
            raise LabelError(
                "nothing but padding ends this turn, and its pad token may also end a turn, so "
                "whether the model has to learn to stop there is not known; pass attention_mask "
                "to build_labels_from_template",
                where=f"messages[{turn.message}]",
            )


def _usual_stop(processor: Any, collator: BaseCollator | None) -> int:
    """The token that ends an answer at the end of a conversation."""
    question = {"role": "user", "content": [{"type": "text", "text": "Seven?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Eight."}]}
    try:
        labels = collator.encode([question, answer]).labels if collator is not None else None
    except SampleError:
        labels = None  # it takes no chat without media
    if labels is None:
        return int(processor.tokenizer.eos_token_id)
    return int(labels[labels != IGNORE_INDEX][-1])


def media_ids_of(collator: BaseCollator | None) -> list[int]:
    """The ids of the tokens that stand for media features."""
    if collator is None:
        return []
    vocabulary = Vocabulary.of(collator.processor.tokenizer)
    tokens = (token for tokens in collator.traits.media_tokens.values() for token in tokens)
    return [i for token in tokens if (i := vocabulary.id_of(token)) is not None]
