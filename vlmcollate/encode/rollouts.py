"""Prompts that grow by sampled tokens and by further messages, without rendering their past again.

Shapes: L a prompt's tokens, S sampled tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.media import joined_bytes
from vlmcollate.conversation import MediaKind, Message
from vlmcollate.errors import ConfigError, ConversationError
from vlmcollate.media import Join
from vlmcollate.sample import IGNORE_INDEX, LOGPROBS, EncodedSample


@attrs.frozen(kw_only=True, eq=False)
class Piece:
    """A part of a prompt.

    Attributes:
        sample: Its tokens and media, before `postprocess`.
        token_ids: Its tokens with one placeholder for each media item.
        text: Its text with one placeholder for each media item.
        media: Its decoded media items.
        kinds: The kind of each item.
        replacements: The text that each placeholder was expanded to.
        holds_all_media: Whether the media tensors are those of all items so far, since the
            processor treats an item by its place among others.
        messages: The number of messages that it adds to the conversation.
        holds_results: Whether one of the messages is the result of a tool.
    """

    sample: EncodedSample
    token_ids: tuple[int, ...]
    text: str
    media: tuple[Any, ...] = ()
    kinds: tuple[MediaKind, ...] = ()
    replacements: tuple[str, ...] = ()
    holds_all_media: bool = False
    messages: int = 1
    holds_results: bool = False

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def is_sampled(self) -> bool:
        """Whether a model sampled it."""
        return bool((self.sample.labels != IGNORE_INDEX).all())


@attrs.frozen(kw_only=True, eq=False)
class Prompt:
    """What precedes an answer that a model generates, exactly as it was encoded or sampled.

    Attributes:
        reference: The last answer of the example, or `None` if it has none.
    """

    STACKED_BY: ClassVar[str] = "stack_prompts, or its `encoded` to stack"

    reference: Message | None = None
    pieces: tuple[Piece, ...] = attrs.field(repr=False)
    _merge: Callable[[Sequence[Piece]], EncodedSample] = attrs.field(repr=False)
    _sampled: Callable[[Sequence[Piece], Any, Any], Piece] = attrs.field(repr=False)
    _follow: Callable[[Sequence[Piece], Sequence[Any]], Piece] = attrs.field(repr=False)
    _finish: Callable[[EncodedSample], EncodedSample] = attrs.field(repr=False)

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    @cached_property
    def encoded(self) -> EncodedSample:
        """The prompt of L tokens for the model, with its media; sampled tokens have labels."""
        return self._merge(self.pieces)

    @property
    def token_ids(self) -> list[int]:
        """The tokens for an inference engine, with one placeholder for each media item."""
        return list(chain.from_iterable(piece.token_ids for piece in self.pieces))

    @property
    def text(self) -> str:
        """The text for an inference engine, with one placeholder for each media item."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def media(self) -> list[Any]:
        """The decoded media items, in the order of their placeholders."""
        return list(chain.from_iterable(piece.media for piece in self.pieces))

    def extended(self, sampled_ids: Any, logprobs: Any = None) -> Prompt:
        """Returns the prompt with the tokens that a model sampled for it.

        Args:
            sampled_ids: The S sampled tokens, with or without the token that ended the answer.
            logprobs: The S log probabilities with which they were sampled, if they are wanted.

        Raises:
            ConfigError: The tokens that were sampled before ended the answer.
            ConversationError: There is no token, one of them stands for media, or the numbers of
                tokens and log probabilities differ.
        """
        piece = self._sampled(self.pieces, sampled_ids, logprobs)
        return attrs.evolve(self, pieces=(*self.pieces, piece), reference=None)

    def followed_by(self, messages: Sequence[Any]) -> Prompt:
        """Returns the prompt for the next answer, after further messages.

        Only these messages are rendered and encoded. If the sampled tokens do not end with a stop
        token, the one that the template writes follows them, and does not train.

        Args:
            messages: The messages after the sampled answer, such as a tool's result, with their
                media.

        Raises:
            ConfigError: Nothing was sampled since the last message.
            SampleError: The messages are at fault.
        """
        if not self.pieces[-1].is_sampled:
            raise ConfigError("no answer precedes these messages; call extended first")
        if isinstance(messages, str | Mapping) or not messages:
            raise ConversationError(
                f"expected a list of at least one message, found {messages!r:.60}"
            )
        piece = self._follow(self.pieces, messages)
        return attrs.evolve(self, pieces=(*self.pieces, piece))

    def sample(self, sampled_ids: Any, logprobs: Any = None) -> EncodedSample:
        """Returns the sample to train on: the prompt and the tokens that were sampled for it.

        Args:
            sampled_ids: As in `extended`.
            logprobs: As in `extended`.

        Returns:
            The sample, with labels for all tokens that were sampled, also for earlier answers, and
            with `logprobs`, (L,) float32, if any were given; 0 for other tokens. With
            `dummy_media="sample"` it has dummy media, if it needs it.

        Raises:
            ConversationError: As in `extended`.
            SampleTooLongError: It is longer than `max_length`.
        """
        return self._finish(self.extended(sampled_ids, logprobs).encoded)


class PromptBatch(dict[str, Any]):
    """A batch of prompts, which `model.generate(**batch)` takes.

    Attributes:
        references: The last answer of each conversation, or `None` if it has none.
    """

    def __init__(self, tensors: Any = (), references: Sequence[Message | None] = ()) -> None:
        super().__init__(tensors)
        self.references = tuple(references)


def sampled_piece(
    sampled_ids: Any,
    logprobs: Any,
    *,
    token_types: str | None,
    media_tokens: Mapping[int, str],
    number_of_tokens: int,
    stop_ids: Collection[int],
    decode: Callable[[Sequence[int]], str],
) -> Piece:
    """Returns the part of a prompt that was sampled.

    Args:
        sampled_ids: The tokens.
        logprobs: Their log probabilities, or `None`.
        token_types: The key of the family's token types.
        media_tokens: The ids of the tokens that stand for media, and their text.
        number_of_tokens: The size of the vocabulary.
        stop_ids: The ids of the tokens that may end an answer.
        decode: A function that returns the text of tokens.

    Raises:
        ConversationError: See `Prompt.extended`.
    """
    ids = _as_ids(sampled_ids, number_of_tokens)
    for at, token in enumerate(ids.tolist()):
        if token in media_tokens:
            raise ConversationError(
                f"the model sampled {media_tokens[token]!r}, which stands for media that does not "
                "exist; drop the sample, or suppress the token while sampling",
                where=f"sampled_ids[{at}]",
            )
    ends = [at for at, token in enumerate(ids.tolist()) if token in stop_ids]
    if ends and ends[0] < len(ids) - 1:
        raise ConversationError(
            f"{len(ids) - 1 - ends[0]} tokens follow the stop token, with which the answer ends; "
            "remove the padding, or what else a batch was filled with",
            where=f"sampled_ids[{ends[0] + 1}]",
        )
    tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    if token_types is not None:
        tokens[token_types] = torch.zeros_like(ids)
    if logprobs is not None:
        tokens[LOGPROBS] = _as_logprobs(logprobs, len(ids))
    nothing = torch.full_like(ids, -1)
    sample = EncodedSample(tokens=tokens, message_ids=torch.zeros_like(ids), media_ids=nothing)
    return Piece(sample=sample, token_ids=tuple(ids.tolist()), text=decode(ids.tolist()))


def _as_ids(sampled_ids: Any, number_of_tokens: int) -> Tensor:
    try:
        ids = torch.as_tensor(sampled_ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConversationError(
            f"expected a list of token ids, found {sampled_ids!r:.60}", where="sampled_ids"
        ) from error
    if ids.ndim != 1 or not len(ids) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ConversationError(
            f"expected at least one token id in one row, found {sampled_ids!r:.60}; pass the new "
            "tokens of one answer",
            where="sampled_ids",
        )
    ids = ids.long().cpu().clone()
    wrong = (ids < 0) | (ids >= number_of_tokens)
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise ConversationError(
            f"expected ids from 0 to {number_of_tokens - 1}, found {int(ids[at])}; remove the "
            "padding",
            where=f"sampled_ids[{at}]",
        )
    return ids


def _as_logprobs(logprobs: Any, length: int) -> Tensor:
    try:
        values = torch.as_tensor(logprobs, dtype=torch.float32).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConversationError(
            f"expected a list of log probabilities, found {logprobs!r:.60}", where="logprobs"
        ) from error
    if values.shape != (length,):
        raise ConversationError(
            f"expected one log probability for each of {length} tokens, found the shape "
            f"{tuple(values.shape)}",
            where="logprobs",
        )
    wrong = ~(values.isfinite() & (values < 1e-3))
    if wrong.any():
        raise ConversationError(
            f"expected finite log probabilities of at most 0, found {values[wrong][0]:g}",
            where="logprobs",
        )
    return values


def merged_tokens(pieces: Sequence[Piece]) -> EncodedSample:
    """Returns the sample of consecutive parts, without media tensors."""
    if len(pieces) == 1:
        return attrs.evolve(pieces[0].sample, media={}, pixel_tables={})
    sampled = [piece for piece in pieces if piece.is_sampled]
    if len({LOGPROBS in piece.sample.tokens for piece in sampled}) > 1:
        raise ConversationError(
            "some sampled answers have log probabilities and others have none; pass them for all",
            where="logprobs",
        )
    keys = dict.fromkeys(key for piece in pieces for key in piece.sample.tokens)
    tokens = {key: torch.cat([_row(piece.sample, key) for piece in pieces]) for key in keys}
    message_ids: list[Tensor] = []
    media_ids: list[Tensor] = []
    messages = items = 0
    counts: dict[str, int] = {}
    for piece in pieces:
        sample = piece.sample
        for ids, found, before in (
            (sample.message_ids, message_ids, messages),
            (sample.media_ids, media_ids, items),
        ):
            found.append(torch.where(ids >= 0, ids + before, -1))
        messages += piece.messages
        items += sum(sample.media_counts.values())
        for kind, count in sample.media_counts.items():
            counts[kind] = counts.get(kind, 0) + count
    return EncodedSample(
        tokens=tokens,
        message_ids=torch.cat(message_ids),
        media_ids=torch.cat(media_ids),
        media_counts=counts,
        label_strategy="sampled",
    )


def _row(sample: EncodedSample, key: str) -> Tensor:
    found = sample.tokens.get(key)
    if found is not None:
        return found
    dtype = torch.float32 if key == LOGPROBS else torch.int64
    return torch.zeros(len(sample), dtype=dtype)


def without_first(piece: Piece, text: str) -> Piece:
    """Returns the part behind an answer without its first token, if that was sampled.

    Args:
        piece: The part, whose first two messages are not of the conversation.
        text: The text of the token, or an empty string.
    """
    sample, kept = piece.sample, slice(int(bool(text)), None)
    message_ids = torch.where(sample.message_ids > 1, sample.message_ids - 2, -1)
    return attrs.evolve(
        piece,
        sample=attrs.evolve(
            sample,
            tokens={key: value[kept] for key, value in sample.tokens.items()},
            message_ids=message_ids[kept],
            media_ids=sample.media_ids[kept],
        ),
        token_ids=piece.token_ids[kept],
        text=piece.text[len(text) :],
        messages=piece.messages - 2,
    )


def with_media_of(
    sample: EncodedSample, pieces: Sequence[Piece], joins: Mapping[str, Join]
) -> EncodedSample:
    """Returns a sample with the media tensors of its parts."""
    first = max((k for k, piece in enumerate(pieces) if piece.holds_all_media), default=0)
    holders = [piece.sample for piece in pieces[first:] if piece.sample.media]
    if len(holders) == 1:
        (held,) = holders
        return attrs.evolve(sample, media=held.media, pixel_tables=held.pixel_tables)
    media, tables = joined_bytes(holders, joins)
    return attrs.evolve(sample, media=media, pixel_tables=tables)
