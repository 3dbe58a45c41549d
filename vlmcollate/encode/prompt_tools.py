"""The renderer and encoder of a collator's prompts, for one state of its processor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.encode.options import CollatorOptions
from vlmcollate.encode.processor_facts import ProcessorTraits, stop_tokens_of
from vlmcollate.encode.unread import report_unread_variables
from vlmcollate.errors import ConfigError
from vlmcollate.family import Family, UnclosedTurns
from vlmcollate.prompt.chat import ChatRenderer
from vlmcollate.prompt.dropped_blocks import without_empty_reasoning
from vlmcollate.prompt.encoder import PromptEncoder
from vlmcollate.prompt.plain_text import PlainTextRenderer, written_behind
from vlmcollate.prompt.reasoning import PLAIN_FORM, ReasoningForm, read_reasoning_form
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.prompt.turn_ends import TurnEnds
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
        drops_empty_reasoning: Whether blocks without reasoning are removed from answers.
    """

    vocabulary: Vocabulary
    template: str
    stop_ids: tuple[int, ...]
    renderer: ChatRenderer
    encoder: PromptEncoder
    plain_text: PlainTextRenderer
    drops_empty_reasoning: bool = False

    @cached_property
    def reasoning(self) -> ReasoningForm | None:
        """How the template writes reasoning, or `None` if it writes none."""
        if not self.template or not hasattr(self.encoder.processor, "apply_chat_template"):
            return None
        return read_reasoning_form(self.renderer.probe, self.vocabulary)

    @cached_property
    def _behind_media(self) -> dict[MediaKind, str]:
        return {}

    def behind_media(self, kind: MediaKind) -> str:
        """Returns what the template writes behind media in an answer, up to the next words."""
        if kind not in self._behind_media:
            self._behind_media[kind] = written_behind(self.renderer, kind) if self.template else ""
        return self._behind_media[kind]

    @property
    def reasoning_forms(self) -> tuple[ReasoningForm, ...]:
        """The ways in which an answer may hold reasoning, the template's own first."""
        return (PLAIN_FORM,) if self.reasoning is None else (self.reasoning, PLAIN_FORM)

    def finished(self, rendering: Rendering, conversation: Conversation) -> Rendering:
        """Returns a rendering without what `empty_reasoning="drop"` removes of its turns."""
        if not self.drops_empty_reasoning:
            return rendering
        return without_empty_reasoning(rendering, conversation, self.reasoning_forms)

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

        Raises:
            ConfigError: A variable must not be ignored, or the tokenizer lacks a token.
        """
        tokenizer = processor.tokenizer
        report_unread_variables(options.template_kwargs, template, options.on_unread)
        declared = stop_tokens_of(tokenizer, options.stop_tokens, family)
        bare = ChatRenderer(
            processor=processor,
            placeholders=traits.placeholders,
            stop_tokens=tuple(declared),
            template_kwargs=options.template_kwargs,
            string_content_with_media=family.string_content_with_media,
            prompt_prefix=family.prompt_prefix(tokenizer) if family.prompt_prefix else "",
            media_tokens=[token for tokens in traits.media_tokens.values() for token in tokens],
        )
        has_template = bool(template) and hasattr(processor, "apply_chat_template")
        ends = bare.turn_ends if has_template and family.render is None else TurnEnds()
        found = () if options.stop_tokens else ends.tokens
        stops = declared | {token: vocabulary.id_of(token) for token in found}
        policy = options.unclosed_turns or family.unclosed_turns
        renderer = attrs.evolve(
            bare,
            stop_tokens=tuple(stops),
            last_turn_end=family.last_turn_end or (ends.last if ends.last in stops else ""),
            answer_end=_answer_end(tokenizer, policy, options) if ends.are_open else "",
            ends_with_words=ends.are_open and policy == "content_only",
        )
        encoder = PromptEncoder(
            processor=processor,
            media_tokens=traits.media_tokens,
            structure=renderer.structure,
            expansion_tokens=cache(expansion_tokens),
            allowed=frozenset(options.allowed_special_tokens),
            special_tokens_in_text=options.special_tokens_in_text,
            stop_tokens=renderer.stop_tokens,
        )
        return cls(
            vocabulary=vocabulary,
            template=template,
            stop_ids=tuple(number for number in stops.values() if number is not None),
            renderer=renderer,
            encoder=encoder,
            plain_text=PlainTextRenderer(renderer=renderer, end_token=tokenizer.eos_token or ""),
            drops_empty_reasoning=options.empty_reasoning == "drop",
        )


def _answer_end(tokenizer: Any, policy: UnclosedTurns, options: CollatorOptions) -> str:
    """Returns the text to write behind each answer that the template leaves open."""
    if policy != "append_eos":
        return ""
    if options.stop_tokens:
        return options.stop_tokens[0]
    if not tokenizer.eos_token:
        raise ConfigError(
            'unclosed_turns is "append_eos", but the tokenizer has no eos token; set it, or choose '
            '"content_only"'
        )
    return str(tokenizer.eos_token)
