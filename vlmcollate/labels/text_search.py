"""Labels by searching for the answers' tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from vlmcollate.conversation import MediaPart, Message
from vlmcollate.encoding import EncodedPrompt, Turn
from vlmcollate.errors import LabelError
from vlmcollate.labels.base import LabelContext, LabelStrategy, assistant_indices
from vlmcollate.tokenizing import Ints, Vocabulary

Hit = tuple[int, int]


@attrs.frozen
class TextSearchLabels(LabelStrategy):
    """Tokenizes each answer and finds it in the prompt, with its stop token behind it.

    Works without knowing the template. It serves only where there is one way to place all answers
    in order: an answer that also stands elsewhere, followed by the same token, is refused.
    """

    def __call__(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """See `LabelStrategy`.

        Raises:
            LabelError: An answer is empty, not found, found in more than one place, or has parts
                (tool calls, reasoning) that only a template can write.
        """
        vocabulary = Vocabulary.of(context.processor.tokenizer)
        answers = assistant_indices(context.conversation)
        options = [
            _hits(prompt.ids, _variants(context.conversation.messages[k], k, vocabulary), context)
            for k in answers
        ]
        first, last = _place(options), _place(options, backwards=True)
        turns = []
        for k, a, b in zip(answers, first, last, strict=True):
            if a is None or b is None or a != b:
                found = "more than one place" if a and b else "no place"
                raise LabelError(f"found {found} for this answer", where=f"messages[{k}]")
            turns.append(Turn(k, *a))
        return turns


def _variants(message: Message, k: int, vocabulary: Vocabulary) -> Iterator[Ints]:
    """The ids that an answer may have: after a space, as it is, or trimmed, the longest first."""
    if message.extra or any(isinstance(part, MediaPart) for part in message.content):
        raise LabelError(
            "text search knows the words of an answer only, not its tool calls, reasoning or media",
            where=f"messages[{k}]",
        )
    text = "".join(part.text for part in message.content if not isinstance(part, MediaPart))
    if not text.strip():
        raise LabelError("an empty answer cannot be searched for", where=f"messages[{k}]")
    for spelling in dict.fromkeys((f" {text}", f" {text.strip()}", text, text.strip())):
        yield vocabulary.encode(spelling).ids


def _hits(ids: Ints, variants: Iterator[Ints], context: LabelContext) -> list[Hit]:
    """All places of the first variant that stands anywhere with a stop token behind it."""
    stops = np.asarray(context.stop_ids)
    for pattern in variants:
        starts = find_pattern(ids, pattern)
        ends = starts + len(pattern)
        inside = ends < len(ids)
        starts, ends = starts[inside], ends[inside]
        stopped = np.isin(ids[ends], stops)
        if stopped.any():
            pairs = zip(starts[stopped].tolist(), ends[stopped].tolist(), strict=True)
            return [(a, b + 1) for a, b in pairs]
    return []


def find_pattern(ids: Ints, pattern: Ints) -> Ints:
    """Where a pattern of n ids starts in (L,) ids, in one vectorised pass an id of the pattern."""
    if not len(pattern) or len(pattern) > len(ids):
        return np.empty(0, np.int64)
    at = np.flatnonzero(ids[: len(ids) - len(pattern) + 1] == pattern[0])
    for offset in range(1, len(pattern)):
        if not len(at):
            break
        at = at[ids[at + offset] == pattern[offset]]
    return at


def _place(options: Sequence[Sequence[Hit]], *, backwards: bool = False) -> list[Hit | None]:
    """The first, or the last, place of each answer that keeps all of them in order."""
    placed: list[Hit | None] = []
    edge = -1
    for hits in reversed(options) if backwards else options:
        if backwards:
            hit = next((h for h in reversed(hits) if edge < 0 or h[1] <= edge), None)
            edge = hit[0] if hit else edge
        else:
            hit = next((h for h in hits if h[0] >= edge), None)
            edge = hit[1] if hit else edge
        placed.append(hit)
    return placed[::-1] if backwards else placed
