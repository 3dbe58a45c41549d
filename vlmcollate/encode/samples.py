"""Encodes the samples of one example: the stages in their order.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from functools import cached_property, partial
from typing import Any, final

import attrs

from vlmcollate.conversation import Conversation, MediaKind, MediaPart
from vlmcollate.encode.dummy_media import bare_placeholders
from vlmcollate.encode.each import Steps, finished, in_one_step
from vlmcollate.encode.hooks import are_ours
from vlmcollate.encode.item_joins import ItemJoins, ItemTrials
from vlmcollate.encode.labelling import check_trains, trains
from vlmcollate.encode.media import check_kind, count_media
from vlmcollate.encode.omissions import report_omissions
from vlmcollate.encode.overlong import drop_oldest_turns, too_long, truncate
from vlmcollate.encode.prompts import Prompts
from vlmcollate.encode.stages import Process
from vlmcollate.encode.trace import run_stage
from vlmcollate.encode.turn_splitting import SharedMedia, naming_turn
from vlmcollate.encode.unread import KNOWN_ROLES, report_unread_by_template
from vlmcollate.errors import SampleTooLongError
from vlmcollate.media import ProcessedMedia
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True, eq=False)
class Samples(Prompts):
    """Encodes the samples of one example; see `BaseCollator`."""

    @final
    def encode_in_steps(self, example: object) -> Steps[list[EncodedSample]]:
        """Encodes one example as `encode_kept` does, with pauses for the others of its batch.

        Args:
            example: A conversation in any form that `read_example` reads.
        """
        self._current_tools()  # tokens may have been added since the last call
        attempts = [self._steps(example)]
        if self.split_turns:
            attempts = [in_one_step(encode) for encode in self._turn_encoders(example)]
        samples = []
        for attempt in attempts:
            try:
                samples.append((yield from attempt))
            except SampleTooLongError:
                if self.on_overlong != "drop":
                    raise
        return samples

    def _steps(self, example: object) -> Steps[EncodedSample]:
        """Runs the stages in their order; it pauses where it holds no decoded media."""
        conversation = run_stage("read", self.read_conversation, example)
        turn = self._only_turn(conversation) if self.split_turns else conversation
        # turns that share media need it first, and one turn alone fails as it does among others
        loaded = run_stage("load", self.load, turn) if self.split_turns else None
        self._check_kinds(turn)
        with naming_turn(turn, conversation):
            rendering = self._rendered(turn)
            yield
            media = run_stage("load", self.load, turn) if loaded is None else loaded
            processed, counts = self._process(turn, media, rendering), count_media(rendering, media)
            if self._keeps_no_media:
                media = []
                yield
            return self._finished(turn, media, rendering, processed, counts)

    def _check_kinds(self, conversation: Conversation) -> None:
        """Refuses media that `load` would refuse, which a template may not know either."""
        if are_ours(type(self).load):
            for _, part in conversation.media:
                check_kind(part, self.traits, collator=type(self).__name__)

    @cached_property
    def _keeps_no_media(self) -> bool:
        """Whether processed samples hold no decoded media, which shortening one may need again.

        An image that a `read` of one's own opens keeps its pixels when it is loaded.
        """
        may_shorten = self.max_length is not None and self.on_overlong in ("truncate", "drop_turns")
        return not may_shorten and are_ours(type(self).read)

    def _rendered(self, conversation: Conversation) -> Rendering:
        """Runs the stage render, and reports what the prompt lacks."""
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
        return rendering

    def _finished(
        self,
        conversation: Conversation,
        media: Sequence[Any],
        rendering: Rendering,
        processed: ProcessedMedia,
        counts: Mapping[str, int],
    ) -> EncodedSample:
        """Runs the stages from tokenize on."""
        labelled = self._labelled(conversation, rendering, processed, counts)
        sample = run_stage("postprocess", self.postprocess, labelled)
        if self.max_length is not None and len(sample) + self._dummy_room(sample) > self.max_length:
            shorten = partial(self._shorten, conversation, media, rendering, labelled)
            sample = run_stage("shorten", shorten, sample)
        if self.require_labels:
            check_trains(sample)
        return self.dummies.add(sample, [sample]) if self.dummy_media == "sample" else sample

    def _labelled(
        self,
        conversation: Conversation,
        rendering: Rendering,
        processed: ProcessedMedia,
        counts: Mapping[str, int],
    ) -> EncodedSample:
        """Runs the stages tokenize and label."""
        prompt, sample = self._encode_prompt(conversation, rendering, processed, counts)
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
            return [lambda: finished(self._steps(example))]
        conversation = self.read_conversation(example)
        turns = self._each_turn(conversation)
        encode = self.sharing(turns)

        def encode_turn(turn: Conversation) -> EncodedSample:
            with naming_turn(turn, conversation):
                return encode(turn)

        return [partial(encode_turn, turn) for turn in turns]

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
        if not are_ours(type(self).process_media):
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
        rendering = self._rendered(conversation)
        media = run_stage("load", lambda: media)
        processed = self._process(conversation, media, rendering, process)
        if not self._gets_media_alone:  # other code may write to the tensors
            processed = attrs.evolve(processed, tensors=deepcopy(dict(processed.tensors)))
        return self._finished(
            conversation, media, rendering, processed, count_media(rendering, media)
        )

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
        processed = self._process(conversation, media, rendering)
        counts = count_media(rendering, media)
        return self.postprocess(self._labelled(conversation, rendering, processed, counts))
