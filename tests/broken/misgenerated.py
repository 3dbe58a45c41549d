"""Collators that are wrong beside supervised batches, each in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from tests.broken.misquoted import WithTools
from vlmcollate import EncodedSample
from vlmcollate.conversation import Conversation


@attrs.frozen(kw_only=True, eq=False)
class TrainsThePromptOfPairs(WithTools):
    """Trains all answers of conversations that share messages."""

    def sharing(  # type: ignore[misc]  # final
        self, conversations: Sequence[Conversation]
    ) -> Callable[[Conversation], EncodedSample]:
        encode = super().sharing(conversations)

        def encoded(conversation: Conversation) -> EncodedSample:
            messages = tuple(attrs.evolve(m, weight=1.0) for m in conversation.messages)
            return encode(attrs.evolve(conversation, messages=messages))

        return encoded


@attrs.frozen(kw_only=True, eq=False)
class EndsPromptsEarly(WithTools):
    """Leaves the last token out of prompts."""

    def _encode_asked(self, *arguments: Any) -> Any:
        piece = super()._encode_asked(*arguments)
        sample = piece.sample
        shorter = attrs.evolve(
            sample,
            tokens={key: value[:-1] for key, value in sample.tokens.items()},
            message_ids=sample.message_ids[:-1],
            media_ids=sample.media_ids[:-1],
        )
        return attrs.evolve(piece, sample=shorter, token_ids=piece.token_ids[:-1])


@attrs.frozen(kw_only=True, eq=False)
class TokenizesAnswersAgain(WithTools):
    """Decodes sampled tokens and encodes their text."""

    def _sampled(self, before: Any, sampled_ids: Any, logprobs: Any) -> Any:
        tokenizer = self.processor.tokenizer
        text = tokenizer.decode(sampled_ids)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return super()._sampled(before, ids, logprobs)


CAUGHT_BY: dict[type[Any], str] = {
    TrainsThePromptOfPairs: "check_sides_of_pairs_are_encoded_as_alone",
    EndsPromptsEarly: "check_prompts_lead_to_their_answers",
    TokenizesAnswersAgain: "check_rollouts_keep_what_was_sampled",
}
