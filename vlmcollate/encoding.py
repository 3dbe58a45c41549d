"""From a rendered prompt and its media to tokens.

The processor is called for the media alone, with a text of bare placeholders: it returns the media
tensors and the text that each placeholder stands for. The prompt is tokenized here, so that each
token is known to come from the template, from a message or from the media.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import attrs
import numpy as np

from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.errors import ConversationError, MediaMismatchError
from vlmcollate.rendering import Rendering
from vlmcollate.tokenizing import Ints, Tokens, Vocabulary, token_pattern

ControlTextPolicy = Literal["literal", "error"]
TOKEN_TYPES: dict[MediaKind, int] = {"image": 1, "video": 2, "audio": 3}


class Turn(NamedTuple):
    """An assistant turn in tokens: what the model has to produce, with the token that ends it."""

    message: int
    start: int
    end: int


@attrs.frozen(kw_only=True)
class ProcessedMedia:
    """What the processor made of one sample's media.

    Attributes:
        replacements: For each placeholder in order, the text that it stands for.
        tensors: What the processor returned; of it the declared media keys are kept.
    """

    replacements: tuple[str, ...] = ()
    tensors: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, eq=False)
class EncodedPrompt:
    """A prompt's tokens, with a place for every character of its rendering.

    Attributes:
        ids: (L,) int64.
        message_ids: (L,) int64, -1 for the template's own text.
        media_ids: (L,) int64, -1 for text.
    """

    ids: Ints
    message_ids: Ints
    media_ids: Ints
    rendering: Rendering
    _tokens: Tokens
    _repeats: Ints
    _moved: _Moved
    _prefix: int

    def token_at(self, char: int) -> int:
        """The first token at or after a character of the rendering."""
        at = self._tokens.first_at(self._moved(char))
        return self._prefix + int(self._repeats[:at].sum())

    @property
    def turns(self) -> list[Turn]:
        """The assistant turns, as the rendering knows them.

        Raises:
            LabelError: The rendering could not place them.
        """
        if self.rendering.unplaced is not None:
            raise self.rendering.unplaced
        return [
            Turn(turn.message, self.token_at(turn.start), self.token_at(turn.end))
            for turn in self.rendering.turns
        ]


@attrs.frozen(kw_only=True, eq=False)
class PromptEncoder:
    """Tokenizes rendered prompts.

    Args:
        processor: A `transformers` processor with a fast tokenizer.
        media_tokens: For each kind, the tokens whose number is the number of media features.
        structure: The control tokens that an assistant's text may not write: those that open and
            close turns and stand for media.
        control_text: What to do with a message's text that spells a control token: `"literal"`
            encodes it as plain text, `"error"` refuses the conversation.
    """

    processor: Any
    media_tokens: Mapping[MediaKind, Sequence[str]]
    structure: frozenset[str]
    control_text: ControlTextPolicy = "literal"

    def __call__(
        self, conversation: Conversation, rendering: Rendering, media: ProcessedMedia
    ) -> EncodedPrompt:
        """Encodes one prompt.

        Raises:
            ConversationError: A message spells a control token, and the policy is `"error"`.
            LabelError: A turn's border falls inside a word that cannot be cut.
            MediaMismatchError: Media tokens were lost or gained.
        """
        vocabulary = Vocabulary.of(self.processor.tokenizer)
        text, moved, spans, repeats_at = self._expand(rendering, media)
        tokens = self._tokenize(conversation, vocabulary, rendering, text, moved)
        repeats = np.ones(len(tokens.ids), np.int64)
        for char, times in repeats_at.items():
            repeats[tokens.first_at(char)] = times
        table = np.full((3, len(tokens.ids)), -1, np.int64)
        table[0] = tokens.ids
        for span in (*rendering.given, *rendering.turns):
            table[1, _between(tokens, moved(span.start), moved(span.end))] = span.message
        for item, (start, end) in enumerate(spans):
            within = _between(tokens, start, end)
            table[1, within], table[2, within] = rendering.media[item].message, item
        prefix, suffix = self._wrapping(vocabulary, rendering.text)
        ids, message_ids, media_ids = _wrapped(
            table.repeat(repeats, axis=1) if spans else table, prefix, suffix
        )
        prompt = EncodedPrompt(
            ids=ids,
            message_ids=message_ids,
            media_ids=media_ids,
            rendering=rendering,
            tokens=tokens,
            repeats=repeats,
            moved=moved,
            prefix=len(prefix),
        )
        self._check_media(vocabulary, prompt, rendering, media)
        return prompt

    def _expand(
        self, rendering: Rendering, media: ProcessedMedia
    ) -> tuple[str, _Moved, list[tuple[int, int]], dict[int, int]]:
        """Puts each replacement in its place, with runs of one media token written once."""
        pieces: list[str] = []
        spans: list[tuple[int, int]] = []
        repeats: dict[int, int] = {}
        last = length = 0
        for span, replacement in zip(rendering.media, media.replacements, strict=True):
            short, runs = _shorten(replacement, tuple(self.media_tokens[span.kind]))
            pieces += [rendering.text[last : span.start], short]
            start = length + span.start - last
            length, last = start + len(short), span.end
            spans.append((start, length))
            repeats.update({start + at: times for at, times in runs})
        pieces.append(rendering.text[last:])
        ends = [span.end for span in rendering.media]
        return "".join(pieces), _Moved(ends, [b for _, b in spans]), spans, repeats

    def _tokenize(
        self,
        conversation: Conversation,
        vocabulary: Vocabulary,
        rendering: Rendering,
        text: str,
        moved: _Moved,
    ) -> Tokens:
        tokens = vocabulary.encode(text)
        spelled = self._spelled_control(conversation, vocabulary, rendering, text, moved, tokens)
        if spelled is not None:
            if self.control_text == "error":
                message, token = spelled
                raise ConversationError(
                    f"the text spells the control token {token!r}; remove it, or encode it as "
                    'plain text with control_text="literal"',
                    where=f"messages[{message}]" if message >= 0 else "tools",
                )
            tokens = self._encode_guarded(conversation, vocabulary, rendering, text, moved)
        borders = [moved(turn.start) for turn in rendering.turns]
        cuts = [b for b in borders if not tokens.is_cut_at(b)]
        if not cuts:
            return tokens
        if spelled is not None:
            return self._encode_guarded(conversation, vocabulary, rendering, text, moved, cuts)
        return vocabulary.encode(text, cuts)

    def _may_write(self, conversation: Conversation, message: int, token: str) -> bool:
        """Whether a message's text may hold a control token: only answers, and no structure."""
        is_answer = message >= 0 and conversation.messages[message].is_assistant
        return is_answer and token not in self.structure

    def _spelled_control(
        self,
        conversation: Conversation,
        vocabulary: Vocabulary,
        rendering: Rendering,
        text: str,
        moved: _Moved,
        tokens: Tokens,
    ) -> tuple[int, str] | None:
        """A control token that a message's text has become, with the message."""
        at = np.flatnonzero(vocabulary.is_control(tokens.ids))
        starts, ends = tokens.starts[at], tokens.ends[at]
        for span in rendering.given:
            a, b = moved(span.start), moved(span.end)
            # an added token may swallow whitespace on either side, which is not its own text
            for i in range(ends.searchsorted(a, "right"), starts.searchsorted(b)):
                found = text[starts[i] : ends[i]]
                core = starts[i] + len(found) - len(found.lstrip())
                if core < b and core + len(found.strip()) > a:
                    token = found.strip()
                    if not self._may_write(conversation, span.message, token):
                        return span.message, token
        return None

    def _encode_guarded(
        self,
        conversation: Conversation,
        vocabulary: Vocabulary,
        rendering: Rendering,
        text: str,
        moved: _Moved,
        cuts: Sequence[int] = (),
    ) -> Tokens:
        """Control tokens by id where the template wrote them, everything between as plain text."""
        if vocabulary.prefixes_a_space:
            raise ConversationError(
                "a message spells a control token, and this tokenizer puts a space before text, so "
                "the message cannot be encoded apart; remove the control token from the text"
            )
        pieces: list[Tokens] = []
        last = 0

        def plain(start: int, end: int) -> None:
            borders = [start, *(c for c in cuts if start < c < end), end]
            for a, b in zip(borders, borders[1:], strict=False):
                if a < b:
                    pieces.append(vocabulary.encode_plain(text[a:b], a))

        for start, end, token in self._real_control(
            conversation, vocabulary, rendering, text, moved
        ):
            start, end = _swallowed(vocabulary, token, text, start, end, last)
            plain(last, start)
            pieces.append(vocabulary.control_token(token, start, end))
            last = end
        plain(last, len(text))
        return Tokens.join(pieces)

    def _real_control(
        self,
        conversation: Conversation,
        vocabulary: Vocabulary,
        rendering: Rendering,
        text: str,
        moved: _Moved,
    ) -> Iterator[tuple[int, int, str]]:
        """The control tokens that the template, or an answer that may, has written."""
        last = 0
        for span in (*rendering.given, None):
            a, b = (moved(span.start), moved(span.end)) if span else (len(text), len(text))
            for match in vocabulary.pattern.finditer(text[last:a]):
                yield last + match.start(), last + match.end(), match.group()
            for match in vocabulary.pattern.finditer(text[a:b]):
                if span and self._may_write(conversation, span.message, match.group()):
                    yield a + match.start(), a + match.end(), match.group()
            last = b

    def _wrapping(self, vocabulary: Vocabulary, text: str) -> tuple[list[int], list[int]]:
        """What the tokenizer adds around a text, unless the template wrote it already."""
        if vocabulary.bos_token is not None and text.startswith(vocabulary.bos_token):
            return [], []
        return vocabulary.prefix_ids, vocabulary.suffix_ids

    def _check_media(
        self,
        vocabulary: Vocabulary,
        prompt: EncodedPrompt,
        rendering: Rendering,
        media: ProcessedMedia,
    ) -> None:
        for kind, tokens in self.media_tokens.items():
            found = sum(int((prompt.ids == vocabulary.id_of(token)).sum()) for token in tokens)
            expected = sum(
                replacement.count(token)
                for span, replacement in zip(rendering.media, media.replacements, strict=True)
                if span.kind == kind
                for token in tokens
            )
            if found != expected:
                raise MediaMismatchError(
                    f"{found} {kind} tokens in the prompt, {expected} expected for its media"
                )


@attrs.frozen(eq=False)
class _Moved:
    """Where a character of the rendering stands once the placeholders are replaced."""

    ends: list[int]
    new_ends: list[int]

    def __call__(self, char: int) -> int:
        at = bisect_right(self.ends, char)
        return char + (self.new_ends[at - 1] - self.ends[at - 1] if at else 0)


@lru_cache(maxsize=256)
def _shorten(replacement: str, tokens: tuple[str, ...]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """A replacement with each run of one media token written once, and where how many stood."""
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


def _swallowed(
    vocabulary: Vocabulary, token: str, text: str, start: int, end: int, last: int
) -> tuple[int, int]:
    """The characters of a control token with the whitespace that it is declared to swallow."""
    added = vocabulary.added[token]
    if added.rstrip:
        end += len(text[end:]) - len(text[end:].lstrip())
    if added.lstrip:
        start = max(last, len(text[:start].rstrip()))
    return max(start, last), end


def _between(tokens: Tokens, start: int, end: int) -> slice:
    return slice(tokens.first_at(start), tokens.first_at(end))


def _wrapped(table: Ints, prefix: list[int], suffix: list[int]) -> Ints:
    """The ids with those that the tokenizer puts around a text, which belong to nothing."""
    if not prefix and not suffix:
        return table
    width = len(prefix) + table.shape[1] + len(suffix)
    wrapped = np.full((3, width), -1, np.int64)
    wrapped[0, : len(prefix)] = prefix
    wrapped[0, width - len(suffix) :] = suffix
    wrapped[:, len(prefix) : width - len(suffix)] = table
    return wrapped
