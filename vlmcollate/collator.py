"""The collator: the stages that one sample runs through, and the two halves of a batch.

Shapes: B samples, L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, final

import attrs

from vlmcollate.conversation import Conversation, MediaKind, MediaPart
from vlmcollate.encode.construction import check_options
from vlmcollate.encode.dummy_media import bare_placeholders
from vlmcollate.encode.each import encode_each, raise_error
from vlmcollate.encode.item_joins import ItemJoins, ItemTrials
from vlmcollate.encode.labelling import check_trains, trains
from vlmcollate.encode.omissions import report_omissions
from vlmcollate.encode.overlong import drop_oldest_turns, too_long, truncate
from vlmcollate.encode.processor_facts import tokenizer_of
from vlmcollate.encode.prompts import Prompts
from vlmcollate.encode.stages import Process, run_stage, untraced
from vlmcollate.encode.trace import Trace
from vlmcollate.encode.turn_splitting import SharedMedia, encode_turn, may_end
from vlmcollate.encode.unread import KNOWN_ROLES, report_unread_by_template
from vlmcollate.errors import (
    ConfigError,
    EmptyBatchError,
    SampleError,
    SampleTooLongError,
)
from vlmcollate.explain import Explanation
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary


@attrs.frozen(kw_only=True, eq=False)
class BaseCollator(Prompts):
    """Turns conversations into a training batch with an exact label mask.

    A collator is a value: frozen, picklable, without state. `encode` does everything that depends
    on the model, for one sample; `stack` does everything that depends on the batch; calling the
    collator does both. These three are final. A subclass declares its `family`, and may override
    stages, which run in this order:

    1. `read` turns an example into a `Conversation`.
    2. `load` decodes its media.
    3. `render` writes the prompt.
    4. `process_media` calls the processor for the media, and the prompt is tokenized.
    5. `label` finds the assistant turns.
    6. `postprocess` changes the labelled sample.

    A subclass that adds options needs the decorator `@attrs.frozen(kw_only=True, eq=False)`.

    Args: see `CollatorOptions`.
    """

    def __attrs_post_init__(self) -> None:
        """Refuses options that contradict each other or that the processor cannot serve."""
        if type(self) is BaseCollator:
            raise ConfigError("BaseCollator is abstract; use collator_for(processor) or a subclass")
        check_options(
            Vocabulary.of(tokenizer_of(self.processor)),
            max_length=self.max_length,
            on_overlong=self.on_overlong,
            stop_tokens=self.stop_tokens,
            allowed_special_tokens=self.allowed_special_tokens,
            structure=lambda: self.renderer.structure,
            expansion_tokens=lambda: self.prompt_encoder.expansion_tokens(),
            template_kwargs=self.template_kwargs,
        )
        if self.padding.separates_by is not None:
            self._check_packs()
        if self.pixels == "uint8":
            self._check_bytes()

    @final
    def __call__(self, examples: Sequence[object]) -> dict[str, Any]:
        """Collates examples into a batch.

        Args:
            examples: The dataset's items; see `read_example`.

        Returns:
            See `stack`.

        Raises:
            SampleError: An example is at fault; the error holds its index.
            StrategyError: A strategy has a bug; the error holds the index as well.
            EmptyBatchError: There is no example, or all were dropped.
        """
        return self.collate(examples)

    @final
    def collate(
        self,
        examples: Sequence[object],
        *,
        on_error: Callable[[SampleError], Sequence[EncodedSample]] | None = None,
    ) -> dict[str, Any]:
        """Collates examples into a batch, with a policy for each example that fails.

        Args:
            examples: The dataset's items.
            on_error: Called with each `SampleError`, which holds its index. It returns the samples
                to use instead, none of them to skip the example, or raises. By default the error
                is raised.

        Returns:
            See `stack`.

        Raises:
            EmptyBatchError: There is no example, or none is left.
        """

        def replaced(error: SampleError) -> Sequence[EncodedSample]:
            samples = policy(error)
            self._current_tools()  # the policy may have changed the tokens
            return samples

        self._current_tools()
        policy = on_error or raise_error
        samples = encode_each(examples, self._kept, replaced)
        if examples and not samples:
            raise EmptyBatchError(
                f"none of the {len(examples)} examples is left: all failed, or are longer than "
                f"max_length={self.max_length} and were dropped"
            )
        return self.stack(samples)

    @final
    def encode(self, example: object) -> EncodedSample:
        """Encodes one example.

        Args:
            example: A conversation in any form that `read_example` reads.

        Returns:
            The labelled sample, of at most `max_length` tokens.

        Raises:
            ConfigError: With `split_turns`, the example has several turns that train.
            SampleError: The example is at fault. A sample that is too long raises
                `SampleTooLongError` even with `on_overlong="drop"`; calling the collator drops it.
        """
        self._current_tools()
        with untraced():  # a stage of an explained sample may encode others
            return self._encode(example)

    @final
    def encode_all(self, example: object) -> list[EncodedSample]:
        """Encodes all samples of one example: one, or with `split_turns` one for each turn.

        Their media is decoded once, and processed once if the family's joins can cut it.

        Args:
            example: A conversation in any form that `read_example` reads.

        Returns:
            The labelled samples, each of at most `max_length` tokens.

        Raises:
            SampleError: As in `encode`.
        """
        with untraced():
            return [encode() for encode in self.turn_encoders(example)]

    @final
    def encode_kept(self, example: object) -> list[EncodedSample]:
        """Encodes one example, and drops samples that are too long if that is the policy."""
        self._current_tools()
        return self._kept(example)

    def _kept(self, example: object) -> list[EncodedSample]:
        samples = []
        with untraced():
            for encode in self._turn_encoders(example):
                try:
                    samples.append(encode())
                except SampleTooLongError:
                    if self.on_overlong != "drop":
                        raise
        return samples

    @final
    def explain(self, example: object) -> Explanation:
        """Encodes one example and keeps the reasons: each token's origin, and what trains.

        Args:
            example: A conversation in any form that `read_example` reads.

        Returns:
            The sample that `encode` returns, with its tokens, media, times and warnings.

        Raises:
            SampleError: As in `encode`.
        """
        self._current_tools()
        return self.explained(partial(self._encode, example))

    @final
    def explain_all(self, example: object) -> list[Explanation]:
        """Explains all samples of one example, as `encode_all` returns them.

        Args:
            example: A conversation in any form that `read_example` reads.

        Raises:
            SampleError: As in `encode`.
        """
        return [self.explained(encode) for encode in self.turn_encoders(example)]

    @final
    def explained(self, encode: Callable[[], EncodedSample]) -> Explanation:
        """Explains the sample that one of the functions of `turn_encoders` returns.

        Args:
            encode: The function.

        Raises:
            SampleError: As in `encode`.
        """
        with Trace() as trace:
            sample = encode()
        return Explanation.of(
            sample,
            trace,
            processor=self.processor,
            stop_ids=self.stop_ids,
            collator=type(self).__name__,
            encoder=self.prompt_encoder,
            reasoning_forms=self._tools.reasoning_forms,
            may_end=partial(may_end, self._render),
        )

    def _encode(self, example: object) -> EncodedSample:
        """Runs the stages in their order."""
        conversation = run_stage("read", self.read_conversation, example)
        turn = self._only_turn(conversation) if self.split_turns else conversation
        media = run_stage("load", self.load, turn)
        return encode_turn(lambda turn: self._encode_loaded(turn, media), turn, conversation)

    def _encode_loaded(
        self, conversation: Conversation, media: Sequence[Any], process: Process | None = None
    ) -> EncodedSample:
        """Runs the stages from `render` on."""
        rendering = run_stage("render", self._render, conversation)
        if not conversation.is_plain_text and (
            conversation.template_kwargs
            or any(m.extra or m.role not in KNOWN_ROLES for m in conversation.messages)
        ):
            report_unread_by_template(
                conversation, rendering.text, self._tools.template, self.on_unread
            )
        if rendering.dropped or rendering.altered:
            report_omissions(rendering, self.on_template_omission)
        labelled = self._label(conversation, media, rendering, process)
        sample = run_stage("postprocess", self.postprocess, labelled)
        if self.max_length is not None and len(sample) + self._dummy_room(sample) > self.max_length:
            shorten = partial(self._shorten, conversation, media, rendering, labelled)
            sample = run_stage("shorten", shorten, sample)
        if self.require_labels:
            check_trains(sample)
        return self.dummies.add(sample, [sample]) if self.dummy_media == "sample" else sample

    def _label(
        self,
        conversation: Conversation,
        media: Sequence[Any],
        rendering: Rendering,
        process: Process | None = None,
    ) -> EncodedSample:
        """Runs the stages process, tokenize and label."""
        prompt, sample = self._tokenize(conversation, media, rendering, process)
        name, turns = run_stage("label", self._place_turns, prompt, conversation)
        return self._with_labels(prompt, sample, conversation, name, turns)

    @final
    def turn_encoders(self, example: object) -> list[Callable[[], EncodedSample]]:
        """Returns a function for each sample of `encode_all`, so that each may fail alone.

        Args:
            example: A conversation in any form that `read_example` reads.

        Raises:
            SampleError: The example cannot be read, or its media cannot be loaded.
        """
        self._current_tools()  # tokens may have been added since the last call
        return self._turn_encoders(example)

    def _turn_encoders(self, example: object) -> list[Callable[[], EncodedSample]]:
        if not self.split_turns:
            return [partial(self._encode, example)]
        conversation = self.read_conversation(example)
        turns = self._each_turn(conversation)
        encode = self.sharing(turns)
        return [partial(encode_turn, encode, turn, conversation) for turn in turns]

    @final
    def sharing(
        self, conversations: Sequence[Conversation]
    ) -> Callable[[Conversation], EncodedSample]:
        """Returns a function that encodes conversations that share messages.

        A media part that is one object in several conversations is decoded once, and processed once
        if `SharedMedia` can join what the processor returns for single items.

        Args:
            conversations: The conversations, or others that hold all of their media parts.

        Raises:
            MediaError: Media cannot be loaded.
        """
        self._current_tools()  # tokens may have been added since the last call
        widest = max(conversations, key=lambda conversation: len(list(conversation.media)))
        items: dict[MediaPart, Any] = {}
        for conversation in (widest, *conversations):
            unknown = {at for at, part in conversation.media if part not in items}
            if not unknown:
                continue
            messages = conversation.messages
            if items:
                messages = tuple(messages[at] for at in sorted(unknown))
            chosen = attrs.evolve(conversation, messages=messages)
            parts = [part for _, part in chosen.media]
            items.update(zip(parts, self.load(chosen), strict=True))
        shared = SharedMedia(
            process=self.process_media,
            item_joins=self._item_joins,
            items=[items[part] for _, part in widest.media],
            prompt=bare_placeholders(
                [part.kind for _, part in widest.media], self.traits.placeholders
            ),
        )
        return partial(self._encode_sharing, items, shared)

    def _item_joins(self, kinds: Sequence[MediaKind], items: Sequence[Any]) -> ItemJoins | None:
        """Returns what joins the outputs for single items to that for all, or `None`."""
        if not type(self).process_media.__module__.startswith("vlmcollate."):
            return None  # it may depend on the text around the items
        trials = ItemTrials(
            process=self.process_media,
            processor=self.processor,
            placeholders=self.traits.placeholders,
            joins=self.family.joins,
            sampling_rate=self.traits.sampling_rate,
            known=self._known_item_joins,
        )
        return trials(kinds, items)

    @cached_property
    def _known_item_joins(self) -> dict[Hashable, ItemJoins | None]:
        return {}

    def _encode_sharing(
        self, items: Mapping[MediaPart, Any], process: Process, conversation: Conversation
    ) -> EncodedSample:
        """Runs the stages of a conversation, whose media is loaded already."""
        conversation = run_stage("read", lambda: conversation)
        media = [items[part] for _, part in conversation.media]
        return self._encode_loaded(conversation, run_stage("load", lambda: media), process)

    def _shorten(
        self,
        conversation: Conversation,
        media: Sequence[Any],
        rendering: Rendering,
        labelled: EncodedSample,
        sample: EncodedSample,
    ) -> EncodedSample:
        """Applies `on_overlong` to a sample that is too long."""
        most, room = self.max_length or 0, self._dummy_room(sample)
        found: EncodedSample | None = None
        if self.on_overlong == "truncate":
            found = truncate(
                labelled,
                most - room,
                media=media,
                rendering=rendering,
                tokenize=lambda media, text: self._tokenize(conversation, media, text)[1],
                postprocess=self.postprocess,
            )
        elif self.on_overlong == "drop_turns":
            found = drop_oldest_turns(conversation, media, most - room, self._rerender)
        if found is not None and len(found) + self._dummy_room(found) > most:
            found = None  # its media was cut off, and dummy media needs the room
        if found is None or (self.require_labels and not trains(found)):
            policy, is_untrained = self.on_overlong, found is not None
            raise too_long(len(sample), room, most, policy, is_untrained=is_untrained)
        return found

    def _rerender(self, conversation: Conversation, media: Sequence[Any]) -> EncodedSample:
        """The finished sample of a part of a conversation, whose media is loaded already."""
        rendering = run_stage("render", self._render, conversation)
        return self.postprocess(self._label(conversation, media, rendering))
