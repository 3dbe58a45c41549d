"""Prompts: what precedes an answer, from which a model generates.

Shapes: B prompts, L a prompt's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import attrs
import torch

from vlmcollate.batch.stacking import fill_values, stack_samples
from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.encode.batches import Batches
from vlmcollate.encode.each import encode_each
from vlmcollate.encode.omissions import report_omissions
from vlmcollate.encode.overlong import drop_oldest_turns
from vlmcollate.encode.padding import pad_rows
from vlmcollate.encode.stages import untraced
from vlmcollate.errors import (
    ConversationError,
    EmptyBatchError,
    SampleError,
    SampleTooLongError,
)
from vlmcollate.padding import PaddingStrategy, PadToLongest
from vlmcollate.prompt.generation import before_the_answer, rendered_prompt
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

_SOME_ANSWER = Message(role="assistant", content=(TextPart("."),))


@attrs.frozen(kw_only=True, eq=False)
class Prompt:
    """What precedes the last answer of a conversation, and the answer itself.

    Attributes:
        sample: The encoded prompt of L tokens, which ends where generation starts; no token has a
            label.
        reference: The last answer, or `None` if the conversation has none.
    """

    sample: EncodedSample
    reference: Message | None = None


class PromptBatch(dict[str, Any]):
    """A batch of prompts, which `model.generate(**batch)` takes.

    Attributes:
        references: The last answer of each conversation, or `None` if it has none.
    """

    def __init__(self, tensors: Any = (), references: Sequence[Message | None] = ()) -> None:
        super().__init__(tensors)
        self.references = tuple(references)


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
            sample = self._encode_asked(asked, media)
            if self.max_length is not None and len(sample) > self.max_length:
                sample = self._shortened(asked, media, len(sample), self.max_length)
        return Prompt(sample=sample, reference=reference)

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
            [prompt.sample for prompt in prompts],
            partial(pad_rows, self._prompt_padding()),
            self.family.joins,
            fill_values(self.processor.tokenizer),
            shift_labels=False,
            is_packed=False,
            pixels=self.pixels,
            counts=False,
        )
        del batch["labels"]
        return PromptBatch(batch, [prompt.reference for prompt in prompts])

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

    def _encode_asked(self, asked: Conversation, media: Sequence[Any]) -> EncodedSample:
        rendering = self._render_asked(asked)
        if rendering.dropped or rendering.altered:
            report_omissions(rendering, self.on_template_omission)
        prompt, sample = self._tokenize(asked, media, rendering)
        suffix = prompt.suffix
        if suffix:
            sample = attrs.evolve(
                sample,
                tokens={key: value[:-suffix] for key, value in sample.tokens.items()},
                message_ids=sample.message_ids[:-suffix],
                media_ids=sample.media_ids[:-suffix],
            )
        labels = torch.full_like(sample.input_ids, IGNORE_INDEX)
        return self.postprocess(attrs.evolve(sample, tokens={**sample.tokens, "labels": labels}))

    def _render_asked(self, asked: Conversation) -> Rendering:
        """Writes the prompt up to the place where generation starts."""
        if asked.messages[-1].is_prefix:
            return self._render(asked)
        if self.declared.render is None:
            return rendered_prompt(self.renderer, asked)
        answered = attrs.evolve(asked, messages=(*asked.messages, _SOME_ANSWER))
        return before_the_answer(self._render(answered))

    def _shortened(
        self, asked: Conversation, media: Sequence[Any], length: int, most: int
    ) -> EncodedSample:
        found = None
        if self.on_overlong == "drop_turns":
            found = drop_oldest_turns(asked, media, most, self._encode_asked)
        if found is None:
            raise SampleTooLongError(
                f"its prompt has {length} tokens, more than max_length={most}; raise it to "
                f"{length}, or set on_overlong to 'drop_turns' or 'drop'"
            )
        return found


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
