"""Prompts: what precedes an answer, from which a model generates.

Shapes: B prompts, L a prompt's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import cached_property, partial
from typing import Any, final

import attrs
import torch
from PIL import Image

from vlmcollate.batch.stacking import fill_values, stack_samples
from vlmcollate.conversation import Conversation, MediaKind, Message, TextPart
from vlmcollate.encode.batches import Batches
from vlmcollate.encode.dummy_media import bare_placeholders
from vlmcollate.encode.each import encode_each
from vlmcollate.encode.omissions import report_omissions
from vlmcollate.encode.overlong import drop_oldest_turns
from vlmcollate.encode.padding import pad_rows
from vlmcollate.encode.rollouts import (
    LOGPROBS,
    Piece,
    Prompt,
    PromptBatch,
    merged_tokens,
    sampled_piece,
    with_media_of,
)
from vlmcollate.encode.stages import Stages, untraced
from vlmcollate.encode.turn_splitting import without_earlier_omissions
from vlmcollate.errors import (
    ConfigError,
    ConversationError,
    EmptyBatchError,
    MediaMismatchError,
    SampleError,
    SampleTooLongError,
)
from vlmcollate.media import ProcessedMedia
from vlmcollate.padding import PaddingStrategy, PadToLongest
from vlmcollate.prompt.generation import (
    after_an_answer,
    before_the_answer,
    behind_the_answer,
    rendered_prompt,
)
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary

_SOME_ANSWER = Message(role="assistant", content=(TextPart("."),))


@attrs.frozen(kw_only=True, eq=False)
class Prompts(Batches):
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
        return self.stack_prompts(encode_each(examples, self._prompts_kept, on_error))

    @final
    def prompt(self, example: object) -> Prompt:
        """Encodes the prompt of one example.

        Args:
            example: A conversation in any form that `read_example` reads, with or without a last
                answer. A last message that is a prefix is part of the prompt.

        Raises:
            SampleError: The example is at fault, or its prompt is longer than `max_length` and
                `on_overlong` is not `"drop_turns"`, or that does not help.
        """
        self._current_tools()
        with untraced():
            conversation = self.read_conversation(example)
            asked, reference = _without_answer(conversation)
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
            MediaMismatchError: The media of two prompts cannot be joined.
        """
        if not prompts:
            raise EmptyBatchError("no prompt to stack; the batch is empty")
        batch = stack_samples(
            [prompt.encoded for prompt in prompts],
            partial(pad_rows, self._prompt_padding()),
            self.family.joins,
            fill_values(self.processor.tokenizer),
            shift_labels=False,
            is_packed=False,
            pixels=self.pixels,
            counts=False,
        )
        kept = {key: value for key, value in batch.items() if key not in ("labels", LOGPROBS)}
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

    def _encode_asked(self, asked: Conversation, media: Sequence[Any]) -> Piece:
        # the reasoning of earlier answers, which many templates omit, is no part of a prompt
        rendering = without_earlier_omissions(self._render_asked(asked), asked)
        if rendering.dropped or rendering.altered:
            report_omissions(rendering, self.on_template_omission)
        return self._encode_piece(asked, rendering, media)

    def _encode_piece(
        self,
        conversation: Conversation,
        rendering: Rendering,
        media: Sequence[Any],
        *,
        before: Sequence[Piece] | None = None,
    ) -> Piece:
        """Encodes a part of a prompt.

        Args:
            conversation: The messages that the part belongs to.
            rendering: The part.
            media: Its decoded media.
            before: The parts before it; `None` for the first, to which the tokens belong that the
                tokenizer adds before a text.
        """
        keeps_prefix = before is None
        past = [piece for piece in before or () if piece.media]
        kinds = [span.kind for span in rendering.media]
        takes_all = bool(past and kinds) and not self._treats_apart(
            {*kinds, *(kind for piece in past for kind in piece.kinds)}
        )
        replacements: list[str] = []

        def process(rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
            if takes_all:
                found = self._processed_after(past, rendering, media)
            else:
                found = self.process_media(rendering, media)
            replacements[:] = found.replacements
            return found

        prompt, sample = self._tokenize(conversation, media, rendering, process)
        inner = prompt.inner
        kept = slice(0 if keeps_prefix else inner.start, inner.stop)
        tokens = {key: value[kept] for key, value in sample.tokens.items()}
        tokens["labels"] = torch.full_like(tokens["input_ids"], IGNORE_INDEX)
        placeholders = tuple(self.traits.placeholders[span.kind] for span in rendering.media)
        unexpanded = ProcessedMedia(replacements=placeholders)
        short = prompt if not media else self.prompt_encoder(conversation, rendering, unexpanded)
        first = 0 if keeps_prefix else short.inner.start
        return Piece(
            sample=attrs.evolve(
                sample,
                tokens=tokens,
                message_ids=sample.message_ids[kept],
                media_ids=sample.media_ids[kept],
            ),
            token_ids=tuple(short.ids[first : short.inner.stop].tolist()),
            text=rendering.text,
            media=tuple(media),
            kinds=tuple(kinds),
            replacements=tuple(replacements),
            holds_all_media=takes_all,
            messages=len(conversation.messages),
        )

    def _processed_after(
        self, past: Sequence[Piece], rendering: Rendering, media: Sequence[Any]
    ) -> ProcessedMedia:
        """Processes media together with that before it.

        Returns:
            The replacements of the media, and the tensors of all.

        Raises:
            MediaMismatchError: The earlier media would have other tokens than it has.
        """
        items = [item for piece in past for item in piece.media]
        kinds = [kind for piece in past for kind in piece.kinds]
        kinds += [span.kind for span in rendering.media]
        together = bare_placeholders(kinds, self.traits.placeholders)
        found = self.process_media(together, [*items, *media])
        known = tuple(text for piece in past for text in piece.replacements)
        if found.replacements[: len(known)] != known:
            raise MediaMismatchError(
                "the processor expands the earlier media to other tokens once more media follows, "
                "so a prompt cannot grow by media; pass all of it in the first prompt"
            )
        return attrs.evolve(found, replacements=found.replacements[len(known) :])

    def _treats_apart(self, kinds: Set[MediaKind]) -> bool:
        """Returns whether the processor treats each item as it would alone, tried on images."""
        return kinds == {"image"} and self._treats_images_apart

    @cached_property
    def _treats_images_apart(self) -> bool:
        if any((join.rows or "sample").startswith("sample") for join in self.family.joins.values()):
            return False
        images = [Image.new("RGB", size, "gray") for size in ((640, 480), (300, 900))]
        together, *each = (
            self.process_media(
                bare_placeholders(["image"] * len(some), self.traits.placeholders), some
            )
            for some in (images, images[:1], images[1:])
        )
        return together.replacements == (*each[0].replacements, *each[1].replacements)

    def _render_asked(self, asked: Conversation) -> Rendering:
        """Writes the prompt up to the place where generation starts."""
        if asked.messages[-1].is_prefix:
            return self._render(asked)
        if self._renders_chats:
            return rendered_prompt(self.renderer, asked)
        answered = attrs.evolve(asked, messages=(*asked.messages, _SOME_ANSWER))
        return before_the_answer(self._render(answered))

    @property
    def _renders_chats(self) -> bool:
        """Whether the processor's chat template writes prompts, and no code of the family."""
        return self.declared.render is None and type(self).render is Stages.render

    def _shortened(
        self, asked: Conversation, media: Sequence[Any], length: int, most: int
    ) -> Piece:
        found: Piece | None = None
        if self.on_overlong == "drop_turns":
            found = drop_oldest_turns(asked, media, most, self._encode_asked)
        if found is None:
            raise SampleTooLongError(
                f"its prompt has {length} tokens, more than max_length={most}; raise it to "
                f"{length}, or set on_overlong to 'drop_turns' or 'drop'"
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

    def _sampled(self, sampled_ids: Any, logprobs: Any) -> Piece:
        vocabulary = Vocabulary.known(self.processor.tokenizer)
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
            decode=vocabulary.decode,
        )

    def _follow(
        self, tools: Any, variables: Any, pieces: Sequence[Piece], messages: Sequence[Any]
    ) -> Piece:
        """Encodes the messages behind a sampled answer, with a generation prompt."""
        with untraced():
            base = self.read_conversation(after_an_answer(messages))
            base = attrs.evolve(base, tools=tools, template_kwargs=variables)
            media = self.load(base)
            if not self._renders_chats:
                raise ConfigError(
                    f"{type(self).__name__} takes one question and its answer; nothing can follow"
                )
            rendering = rendered_prompt(self.renderer, base)
            last = pieces[-1].token_ids[-1]
            stops = Vocabulary.known(self.processor.tokenizer).decode
            ended_by = stops([last]) if last in self.stop_ids else ""
            return self._encode_tail(pieces, base, rendering, media, ended_by)

    def _encode_tail(
        self,
        pieces: Sequence[Piece],
        base: Conversation,
        rendering: Rendering,
        media: Sequence[Any],
        ended_by: str,
    ) -> Piece:
        """Encodes what a template writes behind the answer of a conversation.

        Args:
            pieces: The parts of the prompt before it.
            base: A question, an answer, and the messages behind it.
            rendering: All of it.
            media: The media of the messages behind the answer.
            ended_by: The stop token that was sampled behind the answer, or an empty string.
        """
        role_ends = bool(self.renderer.last_turn_end)  # the marker of the next role ends a turn
        stops = [ended_by] if role_ends else self.renderer.stop_tokens
        tail, cut = behind_the_answer(rendering, stops, ended_by)
        piece = self._encode_piece(base, tail, media, before=pieces)
        kept = slice(int(cut), None)
        sample = piece.sample
        return attrs.evolve(
            piece,
            sample=attrs.evolve(
                sample,
                tokens={key: value[kept] for key, value in sample.tokens.items()},
                message_ids=torch.where(sample.message_ids > 0, sample.message_ids - 2, -1)[kept],
                media_ids=sample.media_ids[kept],
            ),
            token_ids=piece.token_ids[kept],
            messages=piece.messages - 2,
        )


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
