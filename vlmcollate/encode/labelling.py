"""Turns a prompt's tokens and its assistant turns into a labelled sample.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmcollate.conversation import Conversation, MediaKind, TextPart
from vlmcollate.encode.answer_weights import (
    empty_reasoning_tokens,
    part_factors,
    reasoning_weights,
)
from vlmcollate.encode.hooks import breach, run_hook
from vlmcollate.encode.media_borders import border_weights, media_borders
from vlmcollate.encode.off_prompt import check_last_turn
from vlmcollate.encode.prompt_tools import PromptTools
from vlmcollate.encode.train_on import PartWeights, TrainOn, choose_messages
from vlmcollate.errors import LabelError
from vlmcollate.family import TOKEN_TYPES, TokenTypes
from vlmcollate.labels import (
    FirstApplicable,
    LabelContext,
    LabelStrategy,
    RenderedSpanLabels,
)
from vlmcollate.pixels import PixelTable
from vlmcollate.prompt.encoder import EncodedPrompt, Turn
from vlmcollate.prompt.off_prompt import OffPromptPolicy
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary

Floats = npt.NDArray[np.float64]


def unlabelled_sample(
    prompt: EncodedPrompt,
    media: Mapping[str, Tensor],
    counts: Mapping[str, int],
    *,
    token_types: TokenTypes | None,
    media_tokens: Mapping[MediaKind, Sequence[str]],
    pixel_tables: Mapping[str, PixelTable],
) -> EncodedSample:
    """Returns the sample of an encoded prompt, without labels.

    Args:
        prompt: The prompt of L tokens.
        media: Its media tensors.
        counts: The number of its items of each kind.
        token_types: The token types that the model takes.
        media_tokens: The tokens of each kind of media.
        pixel_tables: The tables of the media tensors that hold bytes.
    """
    input_ids = torch.from_numpy(prompt.ids)
    mask = torch.from_numpy(np.ones(len(prompt.ids), np.int64))
    tokens = {"input_ids": input_ids, "attention_mask": mask}
    if token_types is not None:
        tokens[token_types.key] = _token_types(prompt, token_types, media_tokens)
    return EncodedSample(
        tokens=tokens,
        message_ids=torch.from_numpy(prompt.message_ids),
        media_ids=torch.from_numpy(prompt.media_ids),
        media=media,
        media_counts=counts,
        pixel_tables=pixel_tables,
    )


def place_turns(
    strategy: LabelStrategy, prompt: EncodedPrompt, context: LabelContext
) -> tuple[str, list[Turn]]:
    """Finds the assistant turns.

    Returns:
        The name of the strategy that found the turns, and the turns.

    Raises:
        LabelError: The strategy cannot locate a turn.
        StrategyError: The strategy fails, or returns invalid turns.
    """
    if isinstance(strategy, FirstApplicable):
        return strategy.first_of(partial(place_turns, prompt=prompt, context=context))
    name = type(strategy).__name__
    if type(strategy) is RenderedSpanLabels:  # the rendering's own turns need no check
        return name, prompt.turns
    turns = run_hook(strategy.find_turns, prompt, context, strategy=strategy)
    _check_turns(turns, strategy, prompt)
    return name, turns


def label_sample(
    prompt: EncodedPrompt,
    sample: EncodedSample,
    conversation: Conversation,
    turns: Sequence[Turn],
    *,
    strategy: str,
    train_on: TrainOn,
    part_weights: PartWeights | None,
    masks_empty_reasoning: bool,
    off_prompt: OffPromptPolicy,
    tools: PromptTools,
) -> EncodedSample:
    """Returns a sample with the labels of its turns.

    Args:
        prompt: The encoded prompt.
        sample: Its sample without labels.
        conversation: The conversation, for the weights of its messages and parts.
        turns: The assistant turns.
        strategy: The name of the strategy that found the turns.
        train_on: The choice of what trains.
        part_weights: The weights of the parts of answers; `None` if all are 1.
        masks_empty_reasoning: Whether blocks without reasoning do not train.
        off_prompt: The policy for a last turn that lacks the end of its generation prompt.
        tools: The tools of the prompt.

    Raises:
        OffPromptError: The last turn trains and lacks that end, and the policy is `"error"`.
    """
    messages = conversation.messages
    parts = (part for message in messages for part in message.content)
    untrained: list[tuple[int, int]] = []
    own_weights: list[tuple[int, int, float]] = []
    if conversation.is_plain_text or any(
        messages[span.message].role == "assistant" for span in prompt.rendering.media
    ):
        borders = media_borders(prompt, tools)
        asked = border_weights(prompt, borders)
        untrained += [place for place, weight in zip(borders, asked, strict=True) if not weight]
        own_weights += [(*b, weight) for b, weight in zip(borders, asked, strict=True) if weight]
    if masks_empty_reasoning:
        untrained += empty_reasoning_tokens(prompt, tools.reasoning_forms)
    if any(isinstance(p, TextPart) and p.weight is not None for p in parts):
        reasoning = reasoning_weights(prompt, tools.reasoning_forms)
        own_weights = [*reasoning, *prompt.part_weights, *own_weights]
    labelled = with_labels(
        prompt,
        sample,
        turns,
        conversation,
        train_on=train_on,
        strategy=strategy,
        part_weights=own_weights,
        factors=part_factors(prompt, part_weights, tools.reasoning_forms) if part_weights else (),
        untrained=untrained,
    )
    if off_prompt == "error" and prompt.rendering.notes:
        check_last_turn(labelled, prompt.rendering, conversation, tools)
    return labelled


def with_labels(
    prompt: EncodedPrompt,
    sample: EncodedSample,
    turns: Sequence[Turn],
    conversation: Conversation,
    *,
    train_on: TrainOn,
    strategy: str,
    part_weights: Sequence[tuple[int, int, float]] = (),
    factors: Sequence[tuple[int, int, float]] = (),
    untrained: Sequence[tuple[int, int]] = (),
) -> EncodedSample:
    """Returns a sample with the labels, and any weights, of its turns.

    Args:
        prompt: The prompt, whose ids the sample shares.
        sample: The sample without labels, whose `message_ids` are updated.
        turns: The assistant turns.
        conversation: The conversation, for the weights of its messages.
        train_on: The choice of what trains.
        strategy: The name of the strategy that found the turns.
        part_weights: The parts with a weight of their own; see `EncodedPrompt.part_weights`.
        factors: The stretches whose weights are multiplied: first token, last + 1, factor.
        untrained: The stretches of tokens without labels, each the first token and the last + 1.
    """
    ids, message_ids = prompt.ids, prompt.message_ids
    labels = np.full(len(ids), IGNORE_INDEX, np.int64)
    for message, start, end in turns:
        message_ids[start:end] = message
    changes = (*part_weights, *factors, *untrained)
    messages, weights = conversation.messages, None
    if changes or train_on != "all_turns" or any(messages[k].weight != 1 for k, *_ in turns):
        weights = _weights(
            len(ids), turns, conversation, train_on, part_weights, factors, untrained
        )
        labels[weights > 0] = ids[weights > 0]
    else:
        for _, start, end in turns:
            labels[start:end] = ids[start:end]
    if sample.media_counts:
        is_media = prompt.media_ids >= 0
        labels[is_media] = IGNORE_INDEX
        if weights is not None:
            weights[is_media] = 0
    tokens = {**sample.tokens, "labels": torch.from_numpy(labels)}
    if weights is not None and ((weights != 0) & (weights != 1)).any():
        tokens["loss_weights"] = torch.from_numpy(_as_float32(weights))
    return EncodedSample(
        tokens=tokens,
        message_ids=sample.message_ids,
        media_ids=sample.media_ids,
        media=sample.media,
        media_counts=sample.media_counts,
        label_strategy=strategy,
        documents=sample.documents,
        pixel_tables=sample.pixel_tables,
    )


def _weights(
    length: int,
    turns: Sequence[Turn],
    conversation: Conversation,
    train_on: TrainOn,
    part_weights: Sequence[tuple[int, int, float]],
    factors: Sequence[tuple[int, int, float]],
    untrained: Sequence[tuple[int, int]],
) -> Floats:
    """Returns the weight of each token, (L,); see `with_labels`."""
    weights = np.zeros(length, np.float64)
    chosen = (
        None
        if train_on == "all_turns"
        else choose_messages(conversation, [turn.message for turn in turns], train_on)
    )
    for message, start, end in turns:
        weights[start:end] = conversation.messages[message].weight
        for first, behind, own in part_weights:
            weights[max(first, start) : max(min(behind, end), start)] = own
        if chosen is not None:
            weights[start:end] *= chosen[message]
    for start, end, factor in factors:
        weights[start:end] *= factor
    for start, end in untrained:
        weights[start:end] = 0
    return weights


def trains(sample: EncodedSample) -> bool:
    """Returns whether a sample has a trained token."""
    return bool(np.count_nonzero(sample.tokens["labels"].numpy() != IGNORE_INDEX))


def check_trains(sample: EncodedSample) -> None:
    """Refuses a sample without a trained token.

    Raises:
        LabelError: No token has a label.
    """
    if not trains(sample):
        raise LabelError(
            "nothing is trained: no assistant message, or part of one that train_on chooses, has a "
            "weight above 0; add one, or set require_labels=False"
        )


def _as_float32(weights: Floats) -> npt.NDArray[np.float32]:
    """Returns the weights in the dtype of a batch, (L,).

    Raises:
        LabelError: A product of weights has no value in float32.
    """
    with np.errstate(over="ignore"):
        found = weights.astype(np.float32)
    if not np.isfinite(found).all() or ((found == 0) & (weights != 0)).any():
        raise LabelError(
            "the weights of a message, its parts and train_on multiply to a weight that float32 "
            f"cannot hold: found {weights.min():.3g} to {weights.max():.3g}; choose weights near 1"
        )
    return found


def _check_turns(turns: Any, strategy: object, prompt: EncodedPrompt) -> None:
    """Refuses invalid turns from a label strategy.

    A turn must lie inside the assistant message's turn in the rendering, if that is known. Outside
    are headers, other messages and their media, which a label strategy cannot train.
    """
    length, messages = len(prompt.ids), prompt.conversation.messages
    expected = f"turns in order, each of an assistant message, within {length} tokens"
    if not isinstance(turns, list | tuple):
        raise breach(turns, expected, strategy)
    known: dict[int, list[Turn]] = {}  # more than one if the template parts a message
    for own in () if prompt.rendering.turn_error else prompt.turns:
        known.setdefault(own.message, []).append(own)
    done = 0
    for turn in turns:
        if not isinstance(turn, tuple) or list(map(type, turn)) != [int, int, int]:
            raise breach(turn, expected, strategy)
        message, start, end = turn
        is_answer = 0 <= message < len(messages) and messages[message].role == "assistant"
        if not (is_answer and done <= start <= end <= length):
            raise breach(turn, expected, strategy)
        places = known.get(message, [Turn(message, start, end)])
        if not any(own.start <= start <= end <= own.end for own in places):
            inside = " or ".join(str(tuple(own)) for own in places)
            raise breach(turn, f"a turn inside {inside}", strategy)
        done = end


def _token_types(
    prompt: EncodedPrompt, declared: TokenTypes, media_tokens: Mapping[MediaKind, Sequence[str]]
) -> Tensor:
    types = np.zeros(len(prompt.ids), np.int64)
    if not prompt.rendering.media:
        return torch.from_numpy(types)
    of_item = np.array([TOKEN_TYPES[span.kind] for span in prompt.rendering.media], np.int64)
    vocabulary: Vocabulary = prompt.vocabulary
    for kind, tokens in media_tokens.items():
        for token in tokens:
            at = (prompt.ids == vocabulary.id_of(token)) & (prompt.media_ids >= 0)
            by_item = declared.token_type_from == "item"
            types[at] = of_item[prompt.media_ids[at]] if by_item else TOKEN_TYPES[kind]
    return torch.from_numpy(types)
