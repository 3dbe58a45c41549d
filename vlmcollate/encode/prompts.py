"""Prompts: what precedes an answer, from which a model generates.

Shapes: B prompts, L a prompt's tokens, T padded tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import attrs

from vlmcollate.batch.stacking import fill_values, stack_samples
from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.encode.each import encode_each, raise_error
from vlmcollate.encode.omissions import report_omissions
from vlmcollate.encode.overlong import drop_oldest_turns, others
from vlmcollate.encode.padding import pad_rows
from vlmcollate.encode.pieces import Pieces
from vlmcollate.encode.rollouts import (
    Piece,
    Prompt,
    PromptBatch,
    merged_tokens,
    sampled_piece,
    with_media_of,
    without_first,
)
from vlmcollate.encode.stackable import check_stackable
from vlmcollate.encode.trace import untraced
from vlmcollate.encode.unread import report_unread_by_template
from vlmcollate.errors import (
    ConfigError,
    ConversationError,
    EmptyBatchError,
    SampleError,
    SampleTooLongError,
)
from vlmcollate.formats.base import row_of
from vlmcollate.formats.pairs import missing_answer
from vlmcollate.padding import PaddingStrategy, PadToLongest
from vlmcollate.prompt.generation import (
    after_an_answer,
    before_the_answer,
    behind_the_answer,
    depends_on_earlier_results,
    rendered_prompt,
    shifted_path,
)
from vlmcollate.prompt.marks import REASONING_KEYS
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import LOGPROBS, EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary

_SOME_ANSWER = Message(role="assistant", content=(TextPart("."),))


@attrs.frozen(kw_only=True, eq=False)
class Prompts(Pieces):
    """Encodes prompts; see `BaseCollator`."""

    @final
    def prompts(
        self,
        examples: Sequence[object],
        *,
        on_error: Callable[[SampleError], Sequence[Prompt]] | None = None,
    ) -> PromptBatch:
        """Collates prompts, from which a model generates: all messages before the last answer.

        Args:
            examples: The dataset's items, with or without a last answer.
            on_error: As in `collate`.

        Returns:
            The tensors that `model.generate(**batch)` takes: `input_ids` and `attention_mask`,
            (B, T) int64, padded on the left, the family's token types and the joined media. The
            attribute `references` holds the last answers.

        Raises:
            SampleError: An example is at fault; the error holds its index.
            EmptyBatchError: There is no example, or none is left.
        """
        return self.stack_prompts(
            encode_each(examples, self._prompts_kept, on_error or raise_error)
        )

    @final
    def prompt(self, example: object) -> Prompt:
        """Encodes the prompt of one example.

        Args:
            example: A conversation in any form that `read_example` reads, with or without a last
                answer, such as a row with `prompt` alone. A last message that is a prefix is part
                of the prompt.

        Raises:
            SampleError: The example is at fault, or its prompt is longer than `max_length` and
                `on_overlong` is not `"drop_turns"`, or that does not help.
        """
        self._current_tools()
        with untraced():
            asked, reference = self._read_asked(example)
            media = self.load(asked)
            piece = self._encode_asked(asked, media)
            if self.max_length is not None and len(piece) > self.max_length:
                piece = self._shortened(asked, media, len(piece), self.max_length)
        tools, variables = asked.tools, asked.template_kwargs
        return Prompt(
            reference=reference,
            pieces=(piece,),
            merge=self._merge,
            sampled=self._sampled,
            follow=partial(self._follow, tools, variables),
            finish=self._finish,
        )

    @final
    def stack_prompts(self, prompts: Sequence[Prompt]) -> PromptBatch:
        """Makes a batch of prompts.

        Args:
            prompts: What `prompt` returned, at least one.

        Returns:
            See `prompts`.

        Raises:
            EmptyBatchError: There is no prompt.
            ConfigError: An item is no prompt.
            MediaMismatchError: The media of two prompts cannot be joined.
        """
        check_stackable(prompts, Prompt, of=self)
        if not prompts:
            raise EmptyBatchError("no prompt to stack; the batch is empty")
        batch = stack_samples(
            [_without_logprobs(prompt.encoded) for prompt in prompts],
            partial(pad_rows, self._prompt_padding()),
            self.family.joins,
            fill_values(self.processor.tokenizer),
            shift_labels=False,
            is_packed=False,
            pixels=self.pixels,
        )
        kept = {key: value for key, value in batch.items() if key != "labels"}
        return PromptBatch(kept, [prompt.reference for prompt in prompts])

    def _prompts_kept(self, example: object) -> list[Prompt]:
        try:
            return [self.prompt(example)]
        except SampleTooLongError:
            if self.on_overlong != "drop":
                raise
        return []

    def _prompt_padding(self) -> PaddingStrategy:
        if self.padding.separates_by is not None:
            return PadToLongest(side="left")
        padding: PaddingStrategy = attrs.evolve(self.padding, side="left")
        return padding

    def _read_asked(self, example: object) -> tuple[Conversation, Message | None]:
        """Reads the messages before the last answer, and the answer."""
        row = row_of(example)
        column = missing_answer(row) if self.format == "auto" else None
        if column is None:
            return _without_answer(self.read_conversation(example))
        return _without_answer(self.read_conversation({**row, column: "."}))[0], None

    def _encode_asked(self, asked: Conversation, media: Sequence[Any]) -> Piece:
        rendering = self._render_asked(asked)
        self._report(asked, rendering)
        return self._encode_piece(asked, rendering, media)

    def _render_asked(self, asked: Conversation) -> Rendering:
        """Writes the prompt up to the place where generation starts."""
        if asked.messages[-1].is_prefix:
            return self._render(asked)
        if self._renders_chats:
            return self._tools.finished(rendered_prompt(self.renderer, asked), asked)
        answered = attrs.evolve(asked, messages=(*asked.messages, _SOME_ANSWER))
        return self._tools.finished(before_the_answer(self.render(answered)), asked)

    def _shortened(
        self, asked: Conversation, media: Sequence[Any], length: int, most: int
    ) -> Piece:
        found: Piece | None = None
        if self.on_overlong == "drop_turns":
            found = drop_oldest_turns(asked, media, most, self._encode_asked)
        if found is None:
            raise SampleTooLongError(
                f"its prompt has {length} tokens, more than max_length={most}; raise it to "
                f"{length}, or set on_overlong to {others(self.on_overlong, cuts=False)}"
            )
        return found

    def _merge(self, pieces: Sequence[Piece]) -> EncodedSample:
        """Returns the sample of consecutive parts of a prompt."""
        sample = merged_tokens(pieces)
        if any(piece.media for piece in pieces):
            sample = with_media_of(sample, pieces, self.family.joins)
        return self.postprocess(sample)

    def _finish(self, sample: EncodedSample) -> EncodedSample:
        """Returns the sample of a rollout with the dummy media that it needs."""
        most, length = self.max_length, len(sample) + self._dummy_room(sample)
        if most is not None and length > most:
            raise SampleTooLongError(
                f"{length} tokens with those that were sampled, longer than max_length={most}; "
                "sample fewer, or raise it"
            )
        return self.dummies.add(sample, [sample]) if self.dummy_media == "sample" else sample

    def _sampled(self, before: Sequence[Piece], sampled_ids: Any, logprobs: Any) -> Piece:
        """Returns the part of a prompt that was sampled behind other parts."""
        vocabulary = Vocabulary.known(self.processor.tokenizer)
        last = before[-1].token_ids[-1]
        if before[-1].is_sampled and last in self.stop_ids:
            raise ConfigError(
                f"the answer before these tokens ended with {vocabulary.decode([last])!r}; call "
                "followed_by with the next messages first"
            )
        names = {token for tokens in self.traits.media_tokens.values() for token in tokens}
        names |= set(self.traits.placeholders.values())
        types = self.family.token_types
        return sampled_piece(
            sampled_ids,
            logprobs,
            token_types=None if types is None else types.key,
            media_tokens={
                number: name
                for name in names
                if (number := vocabulary.control_ids.get(name)) is not None
            },
            number_of_tokens=len(self.processor.tokenizer),
            stop_ids=self.stop_ids,
            decode=vocabulary.decode,
        )

    def _follow(
        self, tools: Any, variables: Any, pieces: Sequence[Piece], messages: Sequence[Any]
    ) -> Piece:
        """Encodes the messages behind a sampled answer, with a generation prompt."""
        if not self._renders_chats:
            raise ConfigError(
                f"{type(self).__name__} takes one question and its answer; nothing can follow"
            )
        with untraced():
            try:
                writes_calls = "tool_calls" in self._tools.template
                base = self.read_conversation(after_an_answer(messages, writes_calls=writes_calls))
                media = self.load(base)
            except SampleError as error:
                where = error.where and shifted_path(error.where)
                raise type(error)(error.problem, where=where) from error.__cause__
            base = attrs.evolve(base, tools=tools, template_kwargs=variables)
            rendering = self._render_asked(base)
            last, vocabulary = pieces[-1].token_ids[-1], Vocabulary.known(self.processor.tokenizer)
            ended_by = vocabulary.decode([last]) if last in self.stop_ids else ""
            tail, sampled = behind_the_answer(rendering, messages, ended_by, self.renderer)
            self._report(attrs.evolve(base, messages=base.messages[2:]), tail)
            piece = self._encode_piece(base, tail, media, before=pieces)
        if piece.holds_results and any(earlier.holds_results for earlier in pieces):
            self._check_later_results()
        length = sum(map(len, pieces)) + len(piece)
        if self.max_length is not None and length > self.max_length:
            raise SampleTooLongError(
                f"the prompt has {length} tokens with these messages, more than "
                f"max_length={self.max_length}; end the rollout here, or raise it"
            )
        return without_first(piece, sampled)

    def _check_later_results(self) -> None:
        """Refuses results behind earlier ones, if the template numbers them, for example."""
        if depends_on_earlier_results(self.renderer):
            raise ConversationError(
                "the chat template writes the results of tools otherwise behind earlier ones; "
                "render the whole conversation with `prompt`"
            )

    def _report(self, conversation: Conversation, rendering: Rendering) -> None:
        """Reports what the template omits, but for the reasoning of earlier answers."""
        is_reasoning = re.compile(rf"\.({'|'.join(REASONING_KEYS)})$").search
        kept = attrs.evolve(
            rendering,
            dropped=tuple(path for path in rendering.dropped if not is_reasoning(path)),
            altered=tuple(path for path in rendering.altered if not is_reasoning(path)),
        )
        report_unread_by_template(
            conversation, rendering.text, self._tools.template, self.on_unread
        )
        report_omissions(kept, self.on_template_omission)


def _without_logprobs(sample: EncodedSample) -> EncodedSample:
    """Returns a sample without log probabilities, which generation does not take."""
    tokens = {key: value for key, value in sample.tokens.items() if key != LOGPROBS}
    return attrs.evolve(sample, tokens=tokens)


def _without_answer(conversation: Conversation) -> tuple[Conversation, Message | None]:
    """Returns a conversation without its last answer, and the answer.

    Raises:
        ConversationError: Nothing precedes the answer, or it is one plain text.
    """
    if conversation.is_plain_text:
        raise ConversationError(
            f"is one plain text: found the format {conversation.format!r}, expected messages; "
            "choose another format"
        )
    messages = conversation.messages
    if not messages[-1].is_assistant or messages[-1].is_prefix:
        return conversation, None
    if len(messages) == 1:
        raise ConversationError("has no prompt: its only message is an answer; add a question")
    return attrs.evolve(conversation, messages=messages[:-1]), messages[-1]
