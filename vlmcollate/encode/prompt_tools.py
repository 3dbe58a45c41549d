"""The renderer and encoder of a collator's prompts, for one state of its processor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import attrs

from vlmcollate.encode.options import CollatorOptions
from vlmcollate.encode.processor_facts import ProcessorTraits, stop_tokens_of
from vlmcollate.family import Family
from vlmcollate.prompt.chat import ChatRenderer
from vlmcollate.prompt.encoder import PromptEncoder
from vlmcollate.prompt.plain_text import PlainTextRenderer
from vlmcollate.tokens.vocabulary import Vocabulary


@attrs.frozen(kw_only=True, eq=False)
class PromptTools:
    """The renderer and encoder of prompts, for one set of tokens and one chat template.

    Attributes:
        vocabulary: The tokenizer's tokens.
        template: The chat template.
        stop_ids: The ids of the tokens that may end an assistant turn.
        renderer: The renderer of conversations.
        encoder: The encoder of rendered prompts.
        plain_text: The renderer of plain text.
    """

    vocabulary: Vocabulary
    template: str
    stop_ids: tuple[int, ...]
    renderer: ChatRenderer
    encoder: PromptEncoder
    plain_text: PlainTextRenderer

    @classmethod
    def of(
        cls,
        processor: Any,
        family: Family,
        traits: ProcessorTraits,
        options: CollatorOptions,
        vocabulary: Vocabulary,
        template: str,
        expansion_tokens: Callable[[], frozenset[str]],
    ) -> PromptTools:
        """Makes the tools of a collator.

        Args:
            processor: Its processor.
            family: Its model family.
            traits: The processor's traits.
            options: Its options.
            vocabulary: The tokenizer's tokens.
            template: The chat template.
            expansion_tokens: A function that returns the control tokens that media expands to.
        """
        tokenizer = processor.tokenizer
        stops = stop_tokens_of(tokenizer, options.stop_tokens, family)
        renderer = ChatRenderer(
            processor=processor,
            placeholders=traits.placeholders,
            stop_tokens=tuple(stops),
            template_kwargs=options.template_kwargs,
            string_content_with_media=family.string_content_with_media,
            prompt_prefix=family.prompt_prefix(tokenizer) if family.prompt_prefix else "",
            last_turn_end=family.last_turn_end,
            answer_end="".join(list(stops)[:1]) if family.append_stop_token else "",
            media_tokens=[token for tokens in traits.media_tokens.values() for token in tokens],
        )
        encoder = PromptEncoder(
            processor=processor,
            media_tokens=traits.media_tokens,
            structure=renderer.structure,
            expansion_tokens=cache(expansion_tokens),
            allowed=frozenset(options.allowed_special_tokens),
            special_tokens_in_text=options.special_tokens_in_text,
        )
        return cls(
            vocabulary=vocabulary,
            template=template,
            stop_ids=tuple(stops.values()),
            renderer=renderer,
            encoder=encoder,
            plain_text=PlainTextRenderer(renderer=renderer, end_token=tokenizer.eos_token or ""),
        )
