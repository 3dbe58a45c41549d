"""Finds the tokens of the parts of answers, with their weights in the loss."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vlmcollate.conversation import TextPart
from vlmcollate.encode.train_on import PartWeights
from vlmcollate.prompt.answer_parts import answer_parts, empty_reasoning, reasoning_blocks
from vlmcollate.prompt.encoder import EncodedPrompt
from vlmcollate.prompt.reasoning import ReasoningForm
from vlmcollate.prompt.rendering import Rendering


def part_factors(
    prompt: EncodedPrompt, weights: PartWeights, forms: Sequence[ReasoningForm]
) -> list[tuple[int, int, float]]:
    """Returns the parts of the answers: first token, last + 1, weight.

    A token belongs to the last part of which it holds more than whitespace.

    Args:
        prompt: The encoded prompt.
        weights: The weights of the parts.
        forms: How reasoning may be written.

    Raises:
        LabelError: The turns of the prompt, and thus their parts, are unknown.
    """
    if prompt.rendering.turn_error is not None:
        raise prompt.rendering.turn_error
    parts = list(answer_parts(prompt.rendering, forms))
    places = prompt.tokens_of([(part.start, part.end) for part in parts])
    return [(a, b, weights.of(p.kind)) for p, (a, b) in zip(parts, places, strict=True)]


def reasoning_weights(
    prompt: EncodedPrompt, forms: Sequence[ReasoningForm]
) -> list[tuple[int, int, float]]:
    """Returns the reasoning in text parts that have weights: first token, last + 1, weight.

    A template may write the tags of such reasoning itself.

    Args:
        prompt: The encoded prompt.
        forms: How reasoning may be written.
    """
    weights: dict[int, float] = {}
    for k, message in enumerate(prompt.conversation.messages):
        first = message.content[0] if message.is_assistant and message.content else None
        if not isinstance(first, TextPart) or first.weight is None:
            continue
        if any(form.split(first.text) for form in forms):
            weights[k] = first.weight
    blocks = reasoning_blocks(prompt.rendering, forms) if weights else []
    blocks = [block for block in blocks if block.message in weights]
    places = prompt.tokens_apart(blocks)
    return [(a, b, weights[s.message]) for s, (a, b) in zip(blocks, places, strict=True)]


def last_turn_trains(
    rendering: Rendering,
    weights: PartWeights,
    forms: Sequence[ReasoningForm],
    *,
    masks_empty_reasoning: bool,
) -> bool:
    """Returns whether a part of the last message, an answer, has a weight above 0.

    Args:
        rendering: The prompt.
        weights: The weights of the parts.
        forms: How reasoning may be written.
        masks_empty_reasoning: Whether blocks without reasoning do not train.

    Raises:
        LabelError: The parts are unknown.
    """
    if not rendering.turns:
        return True  # its sample names the reason
    last = rendering.turns[-1].message
    own = attrs.evolve(rendering, turns=tuple(t for t in rendering.turns if t.message == last))
    blocks = empty_reasoning(own, forms) if masks_empty_reasoning else []
    return any(
        weights.of(part.kind) > 0
        and not any(block.start <= part.start and part.end <= block.end for block in blocks)
        for part in answer_parts(own, forms)
        if part.start < part.end
    )


def empty_reasoning_tokens(
    prompt: EncodedPrompt, forms: Sequence[ReasoningForm]
) -> list[tuple[int, int]]:
    """Returns the blocks without reasoning that begin answers: first token, last + 1.

    A token that also holds text of the answer behind a block is none of its tokens.

    Args:
        prompt: The encoded prompt.
        forms: How reasoning may be written.
    """
    return prompt.tokens_apart(empty_reasoning(prompt.rendering, forms))
