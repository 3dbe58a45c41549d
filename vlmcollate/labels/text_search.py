"""Labels by searching for the answers' tokens."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from vlmcollate.conversation import MediaPart, Message, TextPart
from vlmcollate.errors import LabelError
from vlmcollate.labels.base import LabelContext, LabelStrategy, assistant_indices
from vlmcollate.prompt.encoder import EncodedPrompt, Turn
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.tokens.vocabulary import Ints, Vocabulary

Hit = tuple[int, int]


@attrs.frozen
class TextSearchLabels(LabelStrategy):
    """Tokenizes each answer and finds it in the prompt, followed by a stop token.

    This works without the template, but only if there is one way to place all answers in order: an
    answer that also occurs elsewhere, followed by a stop token, is refused. What the template
    writes into answers, such as an empty think block, does not train. If the prompt lacks the
    beginning of an answer, such as an empty block that is dropped, the rest is searched for.
    """

    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """Finds the assistant turns; see `LabelStrategy`.

        Raises:
            LabelError: An answer is empty or begins with space, is not found, is found in more than
                one place, or has parts (tool calls, reasoning) that only a template can write.
        """
        vocabulary = Vocabulary.known(context.processor.tokenizer)
        answers = assistant_indices(context.conversation)
        options = []
        for k in answers:
            text = _text(context.conversation.messages[k], k)
            hits = _hits(prompt.ids, text, vocabulary, context.stop_ids)
            if not hits and (rest := _rest_in_prompt(text, k, prompt.rendering)):
                hits = _hits(prompt.ids, rest, vocabulary, context.stop_ids)
            options.append(hits)
        first, last = _place(options), _place(options, backwards=True)
        turns = []
        for k, a, b in zip(answers, first, last, strict=True):
            if a is None or b is None or a != b:
                found = "more than one place" if a and b else "no place"
                raise LabelError(f"found this answer in {found}", where=f"messages[{k}]")
            turns.append(Turn(k, *a))
        return turns


def _text(message: Message, k: int) -> str:
    """Returns the text of an answer."""
    if message.extra or any(isinstance(part, MediaPart) for part in message.content):
        raise LabelError(
            "text search finds only the words of an answer, not its tool calls, reasoning or media",
            where=f"messages[{k}]",
        )
    text = "".join(part.text for part in message.content if isinstance(part, TextPart))
    if not text or text[0].isspace():
        raise LabelError(
            "text search needs an answer that begins with a word, since the template may write or "
            "trim whitespace before it; strip the answer",
            where=f"messages[{k}]",
        )
    return text


def _rest_in_prompt(text: str, k: int, rendering: Rendering) -> str:
    """Returns the end of an answer that the prompt holds without its beginning, or nothing."""
    own = [span for span in rendering.caller_spans if span.message == k]
    rest = rendering.text[own[0].start : own[-1].end].strip() if own else ""
    words = text.rstrip()
    return text[len(words) - len(rest) :] if rest and words.endswith(rest) else ""


def _hits(ids: Ints, text: str, vocabulary: Vocabulary, stop_ids: Sequence[int]) -> list[Hit]:
    """Returns the places of a text, with or without a space, trimmed or not, before a stop."""
    found: dict[int, int] = {}  # the start of the longest spelling, by its end
    for spelling in dict.fromkeys((f" {text}", text, f" {text.rstrip()}", text.rstrip())):
        pattern = vocabulary.encode(spelling).ids
        starts = find_pattern(ids[:-1], pattern)
        for start in starts[np.isin(ids[starts + len(pattern)], stop_ids)].tolist():
            found.setdefault(start + len(pattern) + 1, start)
    return sorted((start, end) for end, start in found.items())


def find_pattern(ids: Ints, pattern: Ints) -> Ints:
    """Returns the starts of a pattern in (L,) ids, without a loop over them."""
    if not len(pattern) or len(pattern) > len(ids):
        return np.empty(0, np.int64)
    at = np.flatnonzero(ids[: len(ids) - len(pattern) + 1] == pattern[0])
    for offset in range(1, len(pattern)):
        if not len(at):
            break
        at = at[ids[at + offset] == pattern[offset]]
    return at


def _place(options: Sequence[Sequence[Hit]], *, backwards: bool = False) -> list[Hit | None]:
    """Returns the first, or last, place of each answer that keeps the order."""
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
