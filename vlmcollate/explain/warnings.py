"""Finds possible mistakes in an encoded sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np

from vlmcollate.conversation import Conversation
from vlmcollate.encode.trace import Trace
from vlmcollate.prompt.answer_parts import empty_reasoning, has_reasoning_behind
from vlmcollate.prompt.encoder import EncodedPrompt, PromptEncoder
from vlmcollate.prompt.notes import TurnNote, merged
from vlmcollate.prompt.reasoning import ReasoningForm
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.tokens.vocabulary import Ints

_MUCH_MEDIA = 0.95
_NO_LIMIT = 10**9
"""The smallest limit that means none: tokenizers without a limit declare a huge one."""


def find_warnings(
    sample: EncodedSample, trace: Trace, encoder: PromptEncoder, notes: Iterable[TurnNote]
) -> Iterator[str]:
    """Finds possible mistakes of the user.

    Args:
        sample: The encoded sample.
        trace: The results of its stages.
        encoder: The encoder of the collator's prompts.
        notes: What is unusual about the turns that train.

    Yields:
        One sentence per mistake.
    """
    whole: Conversation = trace.last("read")
    first: EncodedPrompt = trace.first("tokenize")
    prompt: EncodedPrompt = trace.last("tokenize")
    conversation = prompt.conversation
    yield from _left_out(trace.first("render"), whole, conversation)
    yield from map(str, notes)
    yield from _cut(sample, first, len(first.conversation.messages), len(conversation.messages))
    yield from _silent_turns(sample, conversation)
    yield from _escaped(prompt, encoder)
    yield from _lengths(sample, encoder.processor)
    bos = encoder.processor.tokenizer.bos_token_id
    if bos is not None and prompt.ids[:2].tolist() == [bos, bos]:
        yield "the sequence begins with two bos tokens; the template and the tokenizer add one each"


def _left_out(
    rendering: Rendering, whole: Conversation, conversation: Conversation
) -> Iterator[str]:
    if rendering.dropped:
        yield f"the chat template omits {', '.join(rendering.dropped)}"
    if rendering.altered:
        yield f"the chat template changes the text of {', '.join(rendering.altered)}"
    fewer = len(whole.messages) - len(conversation.messages)
    if fewer:
        yield f"{fewer} of the {len(whole.messages)} messages were dropped to fit max_length"


def turn_notes(
    sample: EncodedSample,
    rendering: Rendering,
    forms: Sequence[ReasoningForm],
    chars: Ints,
    may_end: Callable[[int], bool],
) -> Iterator[TurnNote]:
    """Yields what is unusual about the turns that train.

    Args:
        sample: The encoded sample.
        rendering: Its prompt.
        forms: How an answer may hold reasoning.
        chars: (2, L) int64, the start and end of each token in the prompt, or -1.
        may_end: A function that returns whether a chat may end with a turn.
    """
    is_trained = (sample.labels != IGNORE_INDEX).numpy()
    trained = set(sample.message_ids[is_trained].tolist())
    for note in filter(None, (note.among(trained) for note in rendering.notes)):
        turns = note.messages or sorted(trained)
        splits = not note.concerns_earlier_turns or all(map(may_end, turns))
        yield attrs.evolve(note, splits=splits)
    starts, ends = np.sort(chars[:, is_trained])
    blocks = {}
    for block in empty_reasoning(rendering, forms):
        text = rendering.text[block.start : block.end].rstrip()
        first = starts.searchsorted(block.start)
        if first < ends.searchsorted(block.start + len(text), "right"):  # a whole token of it
            doubled = forms[0].key if has_reasoning_behind(rendering, block, forms) else None
            note = TurnNote("empty_reasoning", repr(text.lstrip()), doubled=doubled)
            blocks[block.message] = note
    yield from merged(blocks, max(blocks, default=-1))


def _cut(sample: EncodedSample, first: EncodedPrompt, before: int, after: int) -> Iterator[str]:
    if before == after and len(sample) < len(first.ids):
        yield f"truncated from {len(first.ids)} tokens to {len(sample)} to fit max_length"


def _silent_turns(sample: EncodedSample, conversation: Conversation) -> Iterator[str]:
    trained = set(sample.message_ids[sample.labels != IGNORE_INDEX].tolist())
    for index, message in enumerate(conversation.messages):
        if message.trains_apart:
            yield f"the assistant's messages[{index}] trains in a sample of its own"
        elif message.is_assistant and index not in trained:
            why = " (its weight is 0)" if not message.weight else ""
            yield f"the assistant's messages[{index}] is not trained{why}"


def _escaped(prompt: EncodedPrompt, encoder: PromptEncoder) -> Iterator[str]:
    """Yields a warning for each message with control tokens as plain text."""
    vocabulary = prompt.vocabulary
    chars = prompt.chars[0]
    for given in prompt.rendering.caller_spans:
        text = prompt.rendering.text[given.start : given.end]
        spelled = []
        for match in vocabulary.pattern.finditer(text):
            at = np.flatnonzero(chars == given.start + match.start())
            if not any(prompt.ids[i] == vocabulary.id_of(match.group()) for i in at):
                spelled.append(match.group())
        if spelled:
            place = f"messages[{given.message}]" if given.message >= 0 else "the tools"
            names = ", ".join(dict.fromkeys(spelled))
            listable = [token for token in dict.fromkeys(spelled) if encoder.can_allow(token)]
            remedy = f"; to make tokens of it, set allowed_special_tokens={listable}"
            fact = f"{place} spells {names}, which was encoded as plain text"
            yield fact + (remedy if listable else "")


def _lengths(sample: EncodedSample, processor: Any) -> Iterator[str]:
    share = int((sample.media_ids >= 0).sum()) / max(len(sample), 1)
    if share > _MUCH_MEDIA:
        yield f"media makes up {share:.1%} of the tokens"
    limit = processor.tokenizer.model_max_length
    if isinstance(limit, int) and len(sample) > limit and limit < _NO_LIMIT:
        yield f"{len(sample)} tokens, more than the tokenizer's model_max_length={limit}"
