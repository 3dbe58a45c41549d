"""Finds the tokens of the parts of answers, with their weights in the loss."""

from __future__ import annotations

from collections.abc import Sequence

from vlmcollate.encode.train_on import PartWeights
from vlmcollate.prompt.answer_parts import answer_parts, empty_reasoning
from vlmcollate.prompt.encoder import EncodedPrompt
from vlmcollate.prompt.reasoning import ReasoningForm


def part_factors(
    prompt: EncodedPrompt, weights: PartWeights, forms: Sequence[ReasoningForm]
) -> list[tuple[int, int, float]]:
    """Returns the parts of the answers: first token, last + 1, weight.

    A token belongs to the part in which it starts.

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
    starts = prompt.tokens_at([part.start for part in parts])
    ends = prompt.tokens_at([part.end for part in parts])
    return [(a, b, weights.of(p.kind)) for p, a, b in zip(parts, starts, ends, strict=True)]


def empty_reasoning_tokens(
    prompt: EncodedPrompt, forms: Sequence[ReasoningForm]
) -> list[tuple[int, int]]:
    """Returns the blocks without reasoning that begin answers: first token, last + 1.

    A token that begins with the whitespace behind a block, and holds text of the answer, is none of
    its tokens.

    Args:
        prompt: The encoded prompt.
        forms: How reasoning may be written.
    """
    return prompt.tokens_inside(empty_reasoning(prompt.rendering, forms))
