"""The expanded prompt before tokenization, and the origin of each of its characters.

A Hugging Face tokenizer makes a control token of any text that spells one. Here, only the text of
the template, and of messages that may write the token, becomes one.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import attrs
import numpy as np

from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConversationError
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.rendering import MediaSpan, Rendering
from vlmcollate.tokens.tokens import Tokens
from vlmcollate.tokens.vocabulary import Vocabulary, token_pattern


@attrs.frozen(kw_only=True, eq=False)
class PromptText:
    """A rendering with expanded placeholders and shortened runs of media tokens.

    Attributes:
        text: The expanded text.
        media: The start and end of each replacement, in order.
        repeats: The length in tokens of each run, by the run's first character.
        caller_spans: The start, end and message of each string from the caller.
        turns: The start, end and message of each assistant turn.
    """

    conversation: Conversation
    rendering: Rendering
    vocabulary: Vocabulary
    may_write: Callable[[bool, str], bool]
    text: str
    media: list[tuple[int, int]]
    repeats: dict[int, int]
    caller_spans: list[tuple[int, int, int]]
    turns: list[tuple[int, int, int]]

    @classmethod
    def of(
        cls,
        conversation: Conversation,
        rendering: Rendering,
        replacements: Sequence[str],
        media_tokens: tuple[str, ...],
        vocabulary: Vocabulary,
        may_write: Callable[[bool, str], bool],
    ) -> PromptText:
        """Replaces each placeholder in a rendering.

        Args:
            conversation: The conversation.
            rendering: Its prompt.
            replacements: The text for each placeholder.
            media_tokens: The tokens that may repeat in such a text.
            vocabulary: The tokenizer's tokens.
            may_write: A function that returns whether an answer, or another message, may write a
                control token.
        """
        pieces: list[str] = []
        media: list[tuple[int, int]] = []
        repeats: dict[int, int] = {}
        last = length = 0
        for span, replacement in zip(rendering.media, replacements, strict=True):
            short, runs = _shorten(replacement, media_tokens)
            pieces += [rendering.text[last : span.start], short]
            start = length + span.start - last
            length, last = start + len(short), span.end
            media.append((start, length))
            repeats.update({start + at: times for at, times in runs})
        return cls(
            conversation=conversation,
            rendering=rendering,
            vocabulary=vocabulary,
            may_write=may_write,
            text="".join([*pieces, rendering.text[last:]]),
            media=media,
            repeats=repeats,
            caller_spans=_expanded(rendering.caller_spans, rendering.media, media),
            turns=_expanded(rendering.turns, rendering.media, media),
        )

    def place(self, char: int) -> int:
        """Converts a position in the rendering to one in the expanded text."""
        ((start, *_),) = _expanded([Span(char, char, -1)], self.rendering.media, self.media)
        return start

    def spelled_control(self, tokens: Tokens) -> tuple[int, str] | None:
        """Returns the first message with a forbidden control token, and the token."""
        control = np.flatnonzero(self.vocabulary.is_control(tokens.ids))
        starts, ends = tokens.starts[control].tolist(), tokens.ends[control].tolist()
        for a, b, message in self.caller_spans:
            # a control token may swallow whitespace on either side, which is not part of its text
            for i in range(bisect_right(ends, a), bisect_left(starts, b)):
                found = self.text[starts[i] : ends[i]]
                core = starts[i] + len(found) - len(found.lstrip())
                token = found.strip()
                if core < b and core + len(token) > a and not self._may_write(message, token):
                    return message, token
        return None

    def encode(self, cuts: Sequence[int] = ()) -> Tokens:
        """Encodes permitted control tokens by id, and the rest as plain text.

        Args:
            cuts: The positions that no token may cross.

        Raises:
            ConversationError: The tokenizer cannot encode a part of a text separately.
        """
        if self.vocabulary.prefixes_a_space:
            raise ConversationError(
                "a message spells a control token, and this tokenizer adds a space before text, so "
                "the message cannot be encoded separately; remove the control token from the text"
            )
        pieces: list[Tokens] = []
        last = 0
        for start, end, token in self._control():
            start, end = self._with_swallowed(token, start, end, [last, *cuts])
            pieces += [*self._encode_plain(last, start, cuts)]
            pieces.append(self.vocabulary.control_token(token, start, end))
            last = end
        return Tokens.join([*pieces, *self._encode_plain(last, len(self.text), cuts)])

    def _encode_plain(self, start: int, end: int, cuts: Sequence[int]) -> Iterator[Tokens]:
        borders = [start, *(cut for cut in cuts if start < cut < end), end]
        for a, b in zip(borders, borders[1:], strict=False):
            if a < b:
                yield self.vocabulary.encode_plain(self.text[a:b], a)

    def _control(self) -> Iterator[tuple[int, int, str]]:
        """Yields the control tokens that the template or a message may write."""
        last = 0
        for a, b, message in (*self.caller_spans, (len(self.text), len(self.text), -1)):
            for match in self.vocabulary.pattern.finditer(self.text[last:a]):
                yield last + match.start(), last + match.end(), match.group()
            for match in self.vocabulary.pattern.finditer(self.text[a:b]):
                if self._may_write(message, match.group()):
                    yield a + match.start(), a + match.end(), match.group()
            last = b

    def _may_write(self, message: int, token: str) -> bool:
        """Returns whether a message's text may become a control token."""
        is_answer = message >= 0 and self.conversation.messages[message].is_assistant
        return self.may_write(is_answer, token)

    def _with_swallowed(
        self, token: str, start: int, end: int, borders: Sequence[int]
    ) -> tuple[int, int]:
        """Extends a control token by the whitespace that it swallows.

        Whitespace beyond a border, such as the first character of an answer, is not swallowed.
        """
        added = self.vocabulary.added[token]
        if added.rstrip:
            limit = min((b for b in borders if b >= end), default=len(self.text))
            end += len(self.text[end:limit]) - len(self.text[end:limit].lstrip())
        floor = max(b for b in borders if b <= start)
        if added.lstrip:
            start = floor + len(self.text[floor:start].rstrip())
        return start, end


def _expanded(
    spans: Sequence[Span], placeholders: Sequence[MediaSpan], media: Sequence[tuple[int, int]]
) -> list[tuple[int, int, int]]:
    """Converts spans of the rendering to spans of the expanded text."""
    if not placeholders:
        return [(span.start, span.end, span.message) for span in spans]
    ends = [placeholder.end for placeholder in placeholders]
    shifts = [0, *(end - before for (_, end), before in zip(media, ends, strict=True))]

    def at(char: int) -> int:
        return char + shifts[bisect_right(ends, char)]

    return [(at(span.start), at(span.end), span.message) for span in spans]


@lru_cache(maxsize=256)
def _shorten(replacement: str, tokens: tuple[str, ...]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Returns a replacement with each run of a token written once, and the runs."""
    pieces: list[str] = []
    runs: list[tuple[int, int]] = []
    last = length = 0
    for match in re.finditer(f"({token_pattern(tokens).pattern})\\1+", replacement):
        pieces += [replacement[last : match.start()], match.group(1)]
        length += match.start() - last
        runs.append((length, len(match.group()) // len(match.group(1))))
        length += len(match.group(1))
        last = match.end()
    return "".join([*pieces, replacement[last:]]), tuple(runs)
