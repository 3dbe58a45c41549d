"""Turns a rendered prompt and its media into tokens.

The processor is called only for the media, with a text of bare placeholders, and returns the media
tensors and the expansion of each placeholder. The prompt is tokenized here, so that each token can
be traced to the template, a message or the media.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from typing import Any, Literal, NamedTuple

import attrs
import numpy as np

from vlmcollate.conversation import Conversation, MediaKind, TextPart
from vlmcollate.errors import ConversationError, MediaMismatchError
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.prompt.expansion import PromptText
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.rendering import CallerSpan, Rendering
from vlmcollate.prompt.spelled_turns import report_spelled_headers, report_spelled_turns
from vlmcollate.prompt.structure import Structure
from vlmcollate.prompt.token_parts import Stretch, tokens_of
from vlmcollate.tokens.tokens import Ints, Tokens
from vlmcollate.tokens.vocabulary import Vocabulary

SpecialTokensPolicy = Literal["literal", "error"]


class Turn(NamedTuple):
    """The tokens that the model must produce in a turn, including its stop token."""

    message: int
    start: int
    end: int


@attrs.frozen(kw_only=True, eq=False)
class EncodedPrompt:
    """A prompt's tokens, aligned with the characters of its rendering.

    Attributes:
        ids: (L,) int64.
        message_ids: (L,) int64, -1 for the template's own text.
        media_ids: (L,) int64, -1 for text.
    """

    ids: Ints
    message_ids: Ints
    media_ids: Ints
    rendering: Rendering
    _text: PromptText
    _tokens: Tokens
    _repeats: Ints
    _prefix: int

    @property
    def conversation(self) -> Conversation:
        """The encoded part of the conversation."""
        return self._text.conversation

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's vocabulary."""
        return self._text.vocabulary

    @property
    def _before(self) -> Ints:
        """The tokens before each token of the text with shortened runs, and before its end."""
        return np.concatenate([[0], self._repeats.cumsum()])

    @property
    def part_weights(self) -> list[tuple[int, int, float]]:
        """The parts of answers with a weight of their own: first token, last + 1, weight.

        A token belongs to the last part of which it holds more than whitespace.
        """
        spans, weights = [], []
        for place, span in zip(self._text.caller_spans, self.rendering.caller_spans, strict=True):
            part = _answer_part(self.conversation, span)
            weights.append(None if part is None else part.weight)
            spans.append(self._with_space(place[:2], span, "" if part is None else part.text))
        return [
            (start, end, weight)
            for (start, end), weight in zip(self._tokens_of(spans), weights, strict=True)
            if weight is not None
        ]

    def _with_space(self, place: Stretch, span: CallerSpan, text: str) -> Stretch:
        """Returns the place of a part with the whitespace around it, which its span lacks."""
        (start, end), whole = place, self.rendering.text
        space = text[: len(text) - len(text.lstrip())]
        if whole.endswith(space, 0, span.start):
            start -= len(space)
        space = text[len(text.rstrip()) :]
        return start, end + len(space) * whole.startswith(space, span.end)

    def _tokens_of(self, places: Sequence[Stretch]) -> list[Stretch]:
        """Returns the tokens of parts of the text with shortened runs: first, last + 1."""
        found = tokens_of(places, self._text.text, self._tokens)
        counts = self._prefix + self._before[np.array(found, np.int64).reshape(-1, 2)]
        return [(a, b) for a, b in counts.tolist()]

    def token_at(self, char: int) -> int:
        """Returns the first token at or after a character of the rendering."""
        place = self._tokens.starts.searchsorted(self._text.place(char))
        return self._prefix + int(self._before[place])

    def tokens_of(self, spans: Sequence[Stretch]) -> list[Stretch]:
        """Returns the tokens of each part of the rendering: first, last + 1.

        A token that several parts touch belongs to the last one of which it holds more than
        whitespace.

        Args:
            spans: The start and end of each part, in order, without overlaps.
        """
        place = self._text.place
        return self._tokens_of([(place(start), place(end)) for start, end in spans])

    def tokens_apart(self, spans: Sequence[Span]) -> list[Stretch]:
        """Returns the tokens of each stretch of characters, if all others are parts as well."""
        edges = [0, *(edge for span in spans for edge in (span.start, span.end))]
        edges.append(len(self.rendering.text))
        return self.tokens_of(list(pairwise(edges)))[1::2]

    @property
    def chars(self) -> Ints:
        """(2, L) int64: the start and end of each token in the rendering.

        Media tokens have those of their placeholder. Tokens that the tokenizer itself adds around
        the text have -1.
        """
        chars = np.stack([self._tokens.starts, self._tokens.ends]).repeat(self._repeats, axis=1)
        spans = self.rendering.media
        ends = np.array([end for _, end in self._text.media], np.int64)
        shifts = np.array([0, *(e - s.end for e, s in zip(ends, spans, strict=True))], np.int64)
        found = np.full((2, len(self.ids)), -1, np.int64)
        of_text = slice(self._prefix, self._prefix + chars.shape[1])
        found[:, of_text] = chars - shifts[ends.searchsorted(chars, "right")]
        places = np.array([(s.start, s.end) for s in spans], np.int64).reshape(-1, 2).T
        inside = self.media_ids >= 0
        found[:, inside] = places[:, self.media_ids[inside]]
        return found

    @property
    def inner(self) -> slice:
        """The tokens of the text, without those that the tokenizer itself adds around it."""
        return slice(self._prefix, self._prefix + int(self._repeats.sum()))

    @property
    def turns(self) -> list[Turn]:
        """The assistant turns of the rendering.

        Raises:
            LabelError: The turns could not be located.
        """
        if self.rendering.turn_error is not None:
            raise self.rendering.turn_error
        edges = np.array([turn[:2] for turn in self._text.turns], np.int64).reshape(-1, 2)
        places = self._tokens.starts.searchsorted(edges)
        places = self._prefix + (self._before[places] if self._text.repeats else places)
        messages = (message for *_, message in self._text.turns)
        return [
            Turn(message, a, b) for message, (a, b) in zip(messages, places.tolist(), strict=True)
        ]


def _answer_part(conversation: Conversation, span: CallerSpan) -> TextPart | None:
    """Returns the part of an answer that a string is, or `None`."""
    message = conversation.messages[span.message] if span.message >= 0 else None
    if message is None or span.part is None or not message.is_assistant:
        return None
    part = message.content[span.part]
    return part if isinstance(part, TextPart) else None


@attrs.frozen(kw_only=True, eq=False)
class PromptEncoder:
    """Tokenizes rendered prompts.

    Args:
        processor: A `transformers` processor.
        media_tokens: For each kind, the tokens that each stand for one media feature. The expansion
            of one kind may contain tokens of another, such as the audio tokens of a video.
        structure: The purposes of the chat template's control tokens. Tokens of turns and media
            are never made from text, and the others only from an assistant's text.
        allowed: Those of the others that are made from the text of any message.
        expansion_tokens: A function that returns further control tokens of media, which only the
            processor writes. It is called when a message spells a token that may be one.
        special_tokens_in_text: The policy for a message's text that spells a special token:
            `"literal"` encodes it as plain text, `"error"` refuses the conversation.
        stop_tokens: The tokens that may end an assistant turn.
    """

    processor: Any
    media_tokens: Mapping[MediaKind, Sequence[str]]
    structure: Structure
    allowed: frozenset[str] = frozenset()
    expansion_tokens: Callable[[], frozenset[str]] = frozenset
    special_tokens_in_text: SpecialTokensPolicy = "literal"
    stop_tokens: Sequence[str] = ()

    def __call__(
        self, conversation: Conversation, rendering: Rendering, media: ProcessedMedia
    ) -> EncodedPrompt:
        """Encodes one prompt.

        Raises:
            ConversationError: A message spells a control token, and the policy is `"error"`.
            LabelError: A turn begins inside a word that cannot be split.
            MediaMismatchError: The prompt has too many or too few media tokens.
        """
        vocabulary = Vocabulary.known(self.processor.tokenizer)
        if len(media.replacements) != len(rendering.media):
            raise MediaMismatchError(
                f"the processor replaced {len(media.replacements)} of {len(rendering.media)} "
                "placeholders"
            )
        text = PromptText.of(
            conversation,
            rendering,
            media.replacements,
            self._repeated,
            vocabulary,
            self._may_write,
        )
        tokens = self._tokenize(text)
        repeats = np.ones(len(tokens.ids), np.int64)
        for char, times in text.repeats.items():
            repeats[tokens.starts.searchsorted(char)] = times
        table = _origins(text, tokens)
        prefix, suffix = _wrapping(vocabulary, rendering)
        if conversation.is_plain_text and suffix and tokens.ids[-len(suffix) :].tolist() == suffix:
            suffix = []  # the end of the text, which trains
        ids, message_ids, media_ids = _wrapped(
            table.repeat(repeats, axis=1) if text.repeats else table, prefix, suffix
        )
        self._check_media(ids, vocabulary, media)
        return EncodedPrompt(
            ids=ids,
            message_ids=message_ids,
            media_ids=media_ids,
            rendering=rendering,
            text=text,
            tokens=tokens,
            repeats=repeats,
            prefix=len(prefix),
        )

    @cached_property
    def _repeated(self) -> tuple[str, ...]:
        """The tokens that may repeat in the expansion of media."""
        return tuple(dict.fromkeys(chain.from_iterable(self.media_tokens.values())))

    def _may_write(self, is_answer: bool, token: str) -> bool:  # noqa: FBT001
        """Returns whether an answer, or another message, may write a token."""
        structure, is_allowed = self.structure, token in self.allowed
        if token in structure.tokens:
            return is_allowed and token in structure.unproven
        if not (is_answer or is_allowed):
            return False
        return token in structure.written or token not in self.expansion_tokens()

    def can_allow(self, token: str) -> bool:
        """Returns whether `allowed` may contain a token."""
        structure = self.structure
        if token in structure.tokens:
            return token in structure.unproven
        return token not in structure.written and self._may_write(True, token)  # noqa: FBT003

    def _tokenize(self, text: PromptText) -> Tokens:
        tokens = text.vocabulary.encode(text.text)
        spelled = text.spelled_control(tokens)
        if spelled is not None and self.special_tokens_in_text == "error":
            message, token = spelled
            raise ConversationError(
                f"the text spells the control token {token!r}; remove it, or encode it as plain "
                'text with special_tokens_in_text="literal"',
                where=f"messages[{message}]" if message >= 0 else "tools",
            )
        roles = self.structure.tokens - self.structure.openers if spelled is not None else ()
        report_spelled_headers(
            text.conversation, text.rendering, text.vocabulary, roles, self.stop_tokens
        )
        if spelled is not None:
            report_spelled_turns(text.conversation, self.structure.openers, self.stop_tokens)
            tokens = text.encode()
        cuts = _crossed([start for start, *_ in text.turns], tokens)
        if not cuts:
            return tokens
        if spelled is not None:
            return text.encode(cuts)
        return text.vocabulary.recut(text.text, tokens, cuts)

    def _check_media(self, ids: Ints, vocabulary: Vocabulary, media: ProcessedMedia) -> None:
        expected: Counter[str] = Counter()
        for replacement in media.replacements:
            expected.update(_token_counts(vocabulary.pattern, replacement))
        for kind, tokens in self.media_tokens.items():
            for token in tokens:
                number = vocabulary.control_ids.get(token)
                if number is None:
                    continue
                found = np.count_nonzero(ids == number)
                if found != expected[token]:
                    raise MediaMismatchError(
                        f"the number of {kind} tokens {token!r} in the prompt does not match its "
                        f"media: found {found}, expected {expected[token]}"
                    )


def _crossed(borders: list[int], tokens: Tokens) -> list[int]:
    """Returns the characters at which a token neither starts nor ends, but goes on."""
    starts, ends = tokens.starts, tokens.ends
    before = starts.searchsorted(borders).tolist()
    return [b for b, i in zip(borders, before, strict=True) if i and ends[i - 1] > b]


@lru_cache(maxsize=256)
def _token_counts(control: re.Pattern[str], text: str) -> Counter[str]:
    """Returns the number of occurrences of each control token in a text."""
    return Counter(control.findall(text))


def _origins(text: PromptText, tokens: Tokens) -> Ints:
    """Returns (3, L): each token's id, message index and media index."""
    table = np.full((3, len(tokens.ids)), -1, np.int64)
    table[0] = tokens.ids
    spans = [*text.caller_spans, *text.turns]
    edges = np.array([span[:2] for span in [*spans, *text.media]], np.int64).reshape(-1, 2)
    places = tokens.starts.searchsorted(edges).tolist()
    for (*_, message), (start, end) in zip(spans, places[: len(spans)], strict=True):
        table[1, start:end] = message
    for item, (start, end) in enumerate(places[len(spans) :]):
        table[1, start:end], table[2, start:end] = text.rendering.media[item].message, item
    return table


def _wrapping(vocabulary: Vocabulary, rendering: Rendering) -> tuple[list[int], list[int]]:
    """Returns the ids that the tokenizer, not the template, adds around text."""
    is_written = not (rendering.caller_spans and rendering.caller_spans[0].start == 0)
    if is_written and rendering.text.startswith(vocabulary.bos_token or "\0"):
        return [], []
    return vocabulary.prefix_ids, vocabulary.suffix_ids


def _wrapped(table: Ints, prefix: list[int], suffix: list[int]) -> Ints:
    """Returns the table with the tokenizer's ids around it, without origin."""
    if not prefix and not suffix:
        return table
    width = len(prefix) + table.shape[1] + len(suffix)
    wrapped = np.full((3, width), -1, np.int64)
    wrapped[0, : len(prefix)] = prefix
    wrapped[0, width - len(suffix) :] = suffix
    wrapped[:, len(prefix) : width - len(suffix)] = table
    return wrapped
