"""Single answers that are desirable or not, and the other half of KTO's batches.

Shapes: B examples, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import attrs
import torch

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation, MediaPart
from vlmcollate.encode.stackable import check_stackable
from vlmcollate.errors import (
    ConfigError,
    ConversationError,
    EmptyBatchError,
    SampleTooLongError,
)
from vlmcollate.plain_values import describe, show_all, unwrap
from vlmcollate.preference.base import PreferenceBase, completions, refuse_for_trl
from vlmcollate.preference.rows import read_row
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import an_instance_of


@attrs.frozen(kw_only=True, eq=False)
class EncodedAnswer:
    """One encoded answer with its label.

    Attributes:
        sample: The sample of the prompt with the answer.
        is_desirable: The label.
        conversation: The prompt and the answer.
        prompt_length: The number of messages of the prompt.
        encode: A function that encodes the prompt with other answers, and shares its media.
    """

    STACKED_BY: ClassVar[str] = "KTOCollator.stack"

    sample: EncodedSample
    is_desirable: bool
    conversation: Conversation
    prompt_length: int
    encode: Callable[[Conversation], EncodedSample]


@attrs.frozen(eq=False)
class KTOCollator(PreferenceBase[EncodedAnswer]):
    """Collates answers that are desirable or not, for KTO.

    A row holds `prompt`, `completion` and the bool `label` or `kto_tag`; or a conversation in any
    format of `vlmcollate.formats` with the label beside it, whose answer is what follows the last
    message of the user.

    Args:
        collator: The collator of single conversations, whose options hold for each row.
        with_kl: Whether batches have the other half, from which TRL's `KTOTrainer` estimates the
            KL divergence: each prompt with the answer of the row before it, and the first with
            that of the last row, even if that is the prompt's own answer. A loss without this
            estimate, such as `apo_zero_unpaired`, needs `False`.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import tiny_processor
        >>> collate = KTOCollator(collator_for(tiny_processor()))
        >>> rows = [{"prompt": "Is it?", "completion": "Yes.", "label": True},
        ...         {"prompt": "Why?", "completion": "No.", "label": False}]
        >>> collate(rows)["label"]
        tensor([ True, False])
    """

    with_kl: bool = attrs.field(default=True, validator=an_instance_of(bool), kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuses options of the collator that the batch cannot express."""
        super().__attrs_post_init__()
        refuse_for_trl(self.collator, "KTOCollator")

    def encode(self, example: object) -> EncodedAnswer:
        """Encodes one row.

        Args:
            example: The row; see the class.

        Raises:
            SampleError: The row has no label, or cannot be encoded.
        """
        row = read_row(example)
        is_desirable = _pop_label(row)
        conversation = self.collator.read_conversation(row)
        length = _prompt_length(conversation)
        messages = conversation.messages
        prompt = tuple(message.untrained() for message in messages[:length])
        conversation = attrs.evolve(conversation, messages=(*prompt, *messages[length:]))
        alike = self.encode_alike([conversation], length, places=[lambda where: where])
        return EncodedAnswer(
            sample=alike.samples[0],
            is_desirable=is_desirable,
            conversation=alike.conversations[0],
            prompt_length=alike.prompt_length,
            encode=alike.encode,
        )

    def stack(self, encoded: Sequence[EncodedAnswer]) -> dict[str, Any]:
        """Makes a batch of encoded answers.

        Args:
            encoded: What `encode` returned, at least one, and two for the other half.

        Returns:
            As TRL's `KTOTrainer` takes it: `input_ids`, `attention_mask` and `completion_mask`,
            (B, T) int64, the family's token types, the media tensors, and `label`, (B,) bool. With
            `with_kl` the token keys of the other half, (B, T'), begin with `KL_`; their prompts
            have the same media.

        Raises:
            EmptyBatchError: There is no answer.
            ConfigError: An item is of another kind, a single answer has no other half, or an
                answer with media would be the answer to another prompt there.
        """
        check_stackable(encoded, EncodedAnswer, of=self)
        if not encoded:
            raise EmptyBatchError("no answer to stack; the batch is empty")
        batch = completions(self.collator, [answer.sample for answer in encoded])
        batch["label"] = torch.tensor([answer.is_desirable for answer in encoded])
        if not self.with_kl:
            return batch
        samples = self._other_half(encoded)
        if self.collator.dummy_media != "batch":  # which a batch needs for its own tokens
            samples = [_without_media(sample) for sample in samples]
        half = completions(self.collator, samples)
        keys = {"completion_mask"}.union(*(sample.tokens for sample in samples)) & half.keys()
        return {**batch, **{f"KL_{key}": half[key] for key in half if key in keys}}

    def _other_half(self, encoded: Sequence[EncodedAnswer]) -> list[EncodedSample]:
        """Returns the samples of each prompt with the answer of the row before it."""
        if len(encoded) < 2:
            raise ConfigError(
                "a batch of one row has no other answer for its prompt, so its KL estimate would "
                "be that of its own; raise the batch size, set with_kl=False for a loss without "
                "the estimate, or replace bad rows by Resample(dataset) rather than skipping them"
            )
        return [
            self._with_answer(answer, other)
            for answer, other in zip(encoded, [encoded[-1], *encoded[:-1]], strict=True)
        ]

    def _with_answer(self, answer: EncodedAnswer, other: EncodedAnswer) -> EncodedSample:
        """Returns the sample of a prompt with the answer to another."""
        messages = other.conversation.messages[other.prompt_length :]
        if any(isinstance(part, MediaPart) for m in messages for part in m.content):
            raise ConfigError(
                "an answer holds media, and the trainer gives the other half the media of its "
                "prompts alone; set with_kl=False"
            )
        prompt = answer.conversation.messages[: answer.prompt_length]
        conversation = attrs.evolve(answer.conversation, messages=(*prompt, *messages))
        try:
            return answer.encode(conversation)
        except SampleTooLongError:  # only its probability is needed, as far as it fits
            return self._truncating.sharing([conversation])(conversation)

    @cached_property
    def _truncating(self) -> BaseCollator:
        return self.with_policy("truncate")


def _pop_label(row: dict[str, Any]) -> bool:
    """Reads the label of a row.

    Raises:
        ConversationError: There is none, there are two, or it is no bool, 0 or 1.
    """
    names = [name for name in ("label", "kto_tag") if name in row]  # as TRL, as LLaMA-Factory
    if len(names) > 1:
        raise ConversationError("has 'label' and 'kto_tag'; keep one", where="kto_tag")
    if not names:
        raise ConversationError(
            f"has no label: found a dict with {show_all(row)}, expected 'label' beside the "
            "conversation: True for a desirable answer, False for another"
        )
    value = unwrap(row.pop(names[0]))
    if value not in (0, 1):
        raise ConversationError(f"expected a bool, found {describe(value)}", where=names[0])
    return bool(value)


def _prompt_length(conversation: Conversation) -> int:
    """Returns the number of messages before the answer.

    Raises:
        ConversationError: The conversation has no answer to a user.
    """
    messages = conversation.messages
    if conversation.is_plain_text:
        raise ConversationError("is one plain text, expected a prompt and an answer")
    if conversation.format == "prompt_completion":  # whose prompt has no weight
        trained = [k for k, m in enumerate(messages) if m.is_assistant and m.weight]
        length = trained[0] if trained else len(messages)
    else:
        length = 1 + max((k for k, m in enumerate(messages) if m.role == "user"), default=-1)
    if not 0 < length < len(messages) or not messages[-1].is_assistant:
        raise ConversationError(
            "has no answer to a question: expected messages of the user and then of the assistant, "
            f"found the roles {[message.role for message in messages]}"
        )
    return length


def _without_media(sample: EncodedSample) -> EncodedSample:
    """Returns a sample without media tensors, which its batch holds already."""
    return attrs.evolve(sample, media={}, media_counts={}, pixel_tables={})
