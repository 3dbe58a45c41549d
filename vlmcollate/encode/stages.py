"""The stages of encoding one sample, each of which a subclass may override.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, final

import attrs

from vlmcollate.conversation import Conversation, MediaKind, MediaPart
from vlmcollate.encode.dummy_media import DummyMedia, alone
from vlmcollate.encode.expansion_tokens import expansion_tokens
from vlmcollate.encode.hooks import are_ours
from vlmcollate.encode.item_options import FinalSize, Shape, final_size
from vlmcollate.encode.labelling import label_sample, place_turns, unlabelled_sample
from vlmcollate.encode.media import count_media, load_media, media_tensors, process_or_refuse
from vlmcollate.encode.options import CollatorOptions
from vlmcollate.encode.pixel_path import PixelPlan, process_as_bytes
from vlmcollate.encode.processor_facts import ProcessorTraits
from vlmcollate.encode.prompt_tools import PromptTools
from vlmcollate.encode.trace import run_stage, untraced
from vlmcollate.encode.train_on import PartWeights, part_weights, trained_messages
from vlmcollate.encode.turn_splitting import each_turn, may_train, without_earlier_omissions
from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.family import Family
from vlmcollate.formats import read_example
from vlmcollate.labels import LabelContext, RenderedSpanLabels
from vlmcollate.media import MediaRequest, ProcessedMedia
from vlmcollate.prompt.chat import ChatRenderer
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.prompt.encoder import EncodedPrompt, PromptEncoder, Turn
from vlmcollate.prompt.placing import without_untrained_errors
from vlmcollate.prompt.reasoning import TAGGED, move_inline_reasoning
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary

Process = Callable[[Rendering, Sequence[Any]], ProcessedMedia]


def _expansion_tokens(owner: weakref.ref[Stages], vocabulary: Vocabulary) -> frozenset[str]:
    """Returns the tokens that the media of a live collator expands to."""
    collator = owner()
    if collator is None:
        raise ConfigError("the collator of this prompt encoder was deleted; keep it while encoding")
    return expansion_tokens(collator.traits, vocabulary, collator._replacement)


@attrs.frozen(kw_only=True, eq=False)
class Stages(CollatorOptions):
    """The stages of a collator; see `BaseCollator` for the order in which they run."""

    @property
    def family(self) -> Family:
        """The model family; a class attribute of every subclass."""
        return Family()

    @property
    def declared(self) -> Family:
        """The family for prompts; the same as `family` unless that is probed."""
        return self.family

    def read(self, example: object) -> Conversation:
        """Turns an example into a conversation."""
        return read_example(example, self.format, on_unread=self.on_unread)

    @final
    def read_conversation(self, example: object) -> Conversation:
        """Reads an example that is not read yet, and moves inline reasoning to its place."""
        conversation = example if isinstance(example, Conversation) else self.read(example)
        may_reason = any(
            message.role == "assistant" and TAGGED.match(getattr(part, "text", ""))
            for message in conversation.messages
            for part in message.content[:1]
        )
        if not may_reason or conversation.is_plain_text or self.declared.render is not None:
            return conversation
        tools = self._tools
        if tools.reasoning is None:
            return conversation
        return move_inline_reasoning(conversation, tools.reasoning, tools.renderer.render)

    def load(self, conversation: Conversation) -> list[Any]:
        """Decodes the conversation's media, in order."""
        return [
            load_media(
                part,
                self.media,
                self.traits,
                soundtrack_rate=self._soundtrack_rate,
                final_size=self._final_size,
                collator=type(self).__name__,
            )
            for message in conversation.messages
            for part in message.content
            if isinstance(part, MediaPart)
        ]

    def _final_size(self, part: MediaPart, shape: Shape) -> FinalSize | None:
        """Returns the size that the options of an image or a video give it, if any."""
        name = type(self).__name__
        return final_size(part, shape, self.processor, self.family, collator=name)

    def _soundtrack_rate(self, part: MediaPart) -> int | None:
        """Returns the sampling rate of a video's own audio in Hz; `None` skips it."""
        wanted = part.options.use_audio_in_video
        if wanted is None:
            return self.soundtrack_sampling_rate
        if wanted and not self.takes_soundtracks:
            raise MediaError(
                f"sets use_audio_in_video, but {type(self).__name__} takes no audio of videos; "
                "remove it, and pass the audio as a part of its own",
                where=part.where,
            )
        return self.traits.sampling_rate if wanted else None

    def render(self, conversation: Conversation) -> Rendering:
        """Writes the prompt, and records the place of each message in it."""
        write = self.declared.render
        if write is None:
            return self.renderer(conversation)
        return write(conversation, self.processor, self.traits.placeholders)

    def _render(self, conversation: Conversation) -> Rendering:
        """Writes a chat with the stage `render`, and a plain text without its template."""
        if not conversation.is_plain_text:
            rendering = without_untrained_errors(
                self.render(conversation),
                lambda answers: trained_messages(conversation, answers, self.train_on),
            )
            if self.split_turns:
                rendering = without_earlier_omissions(rendering, conversation)
        elif self.declared.needs_chat_template:
            rendering = self._tools.plain_text(conversation)
        else:
            raise ConfigError(
                f"{type(self).__name__} takes no plain text: found the format "
                f"{conversation.format!r}, expected prompts with answers; choose another format"
            )
        return self._tools.finished(rendering, conversation)

    def _each_turn(self, conversation: Conversation) -> list[Conversation]:
        """Returns the conversation of each sample that `split_turns` makes."""
        return each_turn(conversation, self.train_on, self._may_train)

    def _only_turn(self, conversation: Conversation) -> Conversation:
        """Returns the part of a conversation that ends with the one turn that trains."""
        turns = self._each_turn(conversation)
        if len(turns) > 1:
            raise ConfigError(
                f"split_turns makes {len(turns)} samples of this example, expected 1; call "
                "encode_all, or choose one turn with train_on"
            )
        return turns[0]

    def _may_train(self, conversation: Conversation) -> bool:
        """Returns whether the last turn may have a token that trains."""
        return may_train(
            conversation,
            self._render,
            self._part_weights,
            lambda: self._tools.reasoning_forms,
            masks_empty_reasoning=self.empty_reasoning == "mask",
            finds_turns=self._renders_chats,
        )

    @property
    def _renders_chats(self) -> bool:
        """Whether the processor's chat template writes prompts, and no code of the family."""
        return self.declared.render is None and type(self).render is Stages.render

    def _place_turns(
        self, prompt: EncodedPrompt, conversation: Conversation
    ) -> tuple[str, list[Turn]]:
        """Finds the turns with the stage `label`; all of a plain text is one."""
        if conversation.is_plain_text:
            return "TextFormat", prompt.turns
        return self.label(prompt, conversation)

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """Calls the processor for one sample's media, if there is any.

        Args:
            rendering: The prompt, with a placeholder for each item.
            media: The decoded items in the same order.

        Returns:
            The text for each placeholder, and the processor's output.
        """
        kinds = [span.kind for span in rendering.media]
        family = self.family
        request = MediaRequest(
            processor=self.processor,
            kinds=kinds,
            items=media,
            texts=[self.traits.placeholders[kind] for kind in kinds],
            joins=family.joins,
        )
        found = None
        if self._keeps_bytes:
            found = process_as_bytes(family.process, request, self._pixel_plans)
        return family.process(request) if found is None else found

    @cached_property
    def _pixel_plans(self) -> dict[Hashable, PixelPlan]:
        return {}

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> tuple[str, list[Turn]]:
        """Returns the name of the strategy used, and the assistant turns."""
        if type(self.labels) is RenderedSpanLabels:  # it needs neither a context nor a check
            return "RenderedSpanLabels", prompt.turns
        tools = self._tools
        context = LabelContext(
            conversation=conversation,
            render=tools.renderer,
            encode=tools.encoder,
            stop_ids=tools.stop_ids,
        )
        return place_turns(self.labels, prompt, context)

    def _with_labels(
        self,
        prompt: EncodedPrompt,
        sample: EncodedSample,
        conversation: Conversation,
        strategy: str,
        turns: Sequence[Turn],
    ) -> EncodedSample:
        """Returns a sample with the labels of its turns."""
        return label_sample(
            prompt,
            sample,
            conversation,
            turns,
            strategy=strategy,
            train_on=self.train_on,
            part_weights=self._part_weights,
            masks_empty_reasoning=self.empty_reasoning == "mask",
            off_prompt=self.off_prompt,
            tools=self._tools,
        )

    @cached_property
    def _part_weights(self) -> PartWeights | None:
        return part_weights(self.train_on)

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        """Changes the labelled sample, for example by inserting tokens."""
        change = self.family.postprocess
        return sample if change is None else change(sample, self.processor)

    def _tokenize(
        self,
        conversation: Conversation,
        media: Sequence[Any],
        rendering: Rendering,
        process: Process | None = None,
    ) -> tuple[EncodedPrompt, EncodedSample]:
        """Runs the stages process and tokenize."""
        processed = self._process(conversation, media, rendering, process)
        counts = count_media(rendering, media)
        return self._encode_prompt(conversation, rendering, processed, counts)

    def _process(
        self,
        conversation: Conversation,
        media: Sequence[Any],
        rendering: Rendering,
        process: Process | None = None,
    ) -> ProcessedMedia:
        """Runs the stage process."""
        if not media:
            return ProcessedMedia()
        stage = partial(
            process_or_refuse, process or self.process_media, self.processor, conversation
        )
        return run_stage("process", stage, rendering, media)

    def _encode_prompt(
        self,
        conversation: Conversation,
        rendering: Rendering,
        processed: ProcessedMedia,
        counts: Mapping[str, int],
    ) -> tuple[EncodedPrompt, EncodedSample]:
        """Runs the stage tokenize."""
        prompt = run_stage("tokenize", self.prompt_encoder, conversation, rendering, processed)
        output, family, name = processed.tensors, self.family, type(self).__name__
        sample = unlabelled_sample(
            prompt,
            media_tensors(output, family, collator=name) if output else {},
            counts,
            token_types=family.token_types,
            media_tokens=self.traits.media_tokens,
            pixel_tables=processed.pixel_tables,
        )
        return prompt, sample

    @cached_property
    def _keeps_bytes(self) -> bool:
        """Whether no code of a subclass or of a family's author would meet pixels as bytes."""
        return self._gets_media_alone or self.family.takes_pixel_bytes

    @cached_property
    def _gets_media_alone(self) -> bool:
        """Whether no code of a subclass or of a family's author gets the tensors of media."""
        family, kind = self.family, type(self)
        return are_ours(kind.process_media, kind.postprocess, family.process, family.postprocess)

    def supports(self, kind: MediaKind) -> bool:
        """Returns whether the collator takes media of a kind."""
        return kind in self.traits.placeholders

    def _replacement(self, kind: MediaKind, item: Any) -> str:
        """Returns the text for the placeholder of a single item."""
        rendering = alone(kind, self.traits.placeholders[kind])
        return self.process_media(rendering, [item]).replacements[0]

    @cached_property
    def traits(self) -> ProcessorTraits:
        """The media and sampling that the processor declares."""
        return ProcessorTraits.of(self.processor, self.declared)

    @property
    def takes_soundtracks(self) -> bool:
        """Whether the model takes a video's own audio between its frames."""
        return False

    @property
    def soundtrack_sampling_rate(self) -> int | None:
        """The sampling rate of a video's own audio in Hz; `None` skips it."""
        return None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids of the tokens that may end an assistant turn."""
        return self._tools.stop_ids

    @property
    def renderer(self) -> ChatRenderer:
        """The renderer of conversations."""
        return self._tools.renderer

    @property
    def prompt_encoder(self) -> PromptEncoder:
        """The encoder of rendered prompts."""
        return self._tools.encoder

    @cached_property
    def _made_tools(self) -> list[PromptTools]:
        """The tools for the tokens and the chat template of the last call, at most one."""
        return []

    @property
    def _tools(self) -> PromptTools:
        return self._made_tools[0] if self._made_tools else self._current_tools()

    def _current_tools(self) -> PromptTools:
        """Returns the tools for the current tokens and chat template."""
        vocabulary = Vocabulary.of(self.processor.tokenizer)
        template = chat_template_of(self.processor)
        if self._made_tools:
            tools = self._made_tools[0]
            if tools.vocabulary is vocabulary and tools.template == template:
                return tools
        tools = PromptTools.of(
            self.processor,
            self.declared,
            self.traits,
            self,
            vocabulary,
            template,
            partial(_expansion_tokens, weakref.ref(self), vocabulary),
        )
        self._made_tools[:] = [tools]  # another thread may use the old ones, which stay unchanged
        return tools

    @cached_property
    def dummies(self) -> DummyMedia:
        """Dummy media of every kind that has an encoder of its own."""

        def encode(rendering: Rendering, item: Any) -> EncodedSample:
            with untraced():
                return self.postprocess(
                    self._tokenize(Conversation(messages=()), [item], rendering)[1]
                )

        placeholders = {k: v for k, v in self.traits.placeholders.items() if self.supports(k)}
        return DummyMedia.of(placeholders, self.traits.sampling_rate, self.family.joins, encode)

    def _dummy_room(self, sample: EncodedSample) -> int:
        """Returns the number of tokens that dummy media will add."""
        return 0 if self.dummy_media == "never" else self.dummies.room(sample)
