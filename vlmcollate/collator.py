"""The collator: the stages that one sample runs through, and the two halves of a batch.

Shapes: B samples, L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.stacking import fill_values, stack_samples
from vlmcollate.conversation import Conversation
from vlmcollate.encode.construction import check_options
from vlmcollate.encode.labelling import check_trains, trains
from vlmcollate.encode.omissions import report_omissions
from vlmcollate.encode.overlong import drop_oldest_turns, truncate
from vlmcollate.encode.padding import pad_rows
from vlmcollate.encode.processor_facts import tokenizer_of
from vlmcollate.encode.stages import Stages, run_stage, untraced
from vlmcollate.encode.token_count import media_texts
from vlmcollate.encode.trace import Trace
from vlmcollate.encode.unread import KNOWN_ROLES, report_unread_by_template
from vlmcollate.errors import (
    ConfigError,
    EmptyBatchError,
    SampleError,
    SampleTooLongError,
    StrategyError,
)
from vlmcollate.explain import Explanation
from vlmcollate.family import Packable
from vlmcollate.media import ProcessedMedia
from vlmcollate.packing.documents import join_documents, with_blocks
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary


@attrs.frozen(kw_only=True, eq=False)
class BaseCollator(Stages):
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
        )
        if self.padding.separates_by is not None:
            self._check_packs()

    @final
    def __call__(self, examples: Sequence[object]) -> dict[str, Tensor]:
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
        on_error: Callable[[SampleError], EncodedSample | None] | None = None,
    ) -> dict[str, Tensor]:
        """Collates examples into a batch, with a policy for each example that fails.

        Args:
            examples: The dataset's items.
            on_error: Called with each `SampleError`, which holds its index. It returns a sample to
                use instead, or `None` to skip the example, or raises. By default the error is
                raised.

        Returns:
            See `stack`.

        Raises:
            EmptyBatchError: There is no example, or none is left.
        """
        self._current_tools()  # tokens may have been added since the last call
        samples = []
        for index, example in enumerate(examples):
            try:
                with untraced():
                    sample: EncodedSample | None = self._encode(example)
            except SampleError as error:
                if isinstance(error, SampleTooLongError) and self.on_overlong == "drop":
                    continue
                located = error.at(index=index)
                located.__cause__ = error.__cause__
                if on_error is None:
                    raise located from error.__cause__
                sample = on_error(located)
            except StrategyError as error:
                raise error.at(index=index) from error.__cause__
            except Exception as error:
                if hasattr(error, "add_note"):  # from Python 3.11 on
                    error.add_note(f"while collating sample {index} of the batch")
                raise
            if sample is not None:
                samples.append(sample)
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
            SampleError: The example is at fault. A sample that is too long raises
                `SampleTooLongError` even with `on_overlong="drop"`; calling the collator drops it.
        """
        self._current_tools()
        with untraced():  # a stage of an explained sample may encode others
            return self._encode(example)

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
        with Trace() as trace:
            sample = self._encode(example)
        return Explanation.of(
            sample,
            trace,
            processor=self.processor,
            stop_ids=self.stop_ids,
            collator=type(self).__name__,
            encoder=self.prompt_encoder,
        )

    def _encode(self, example: object) -> EncodedSample:
        """Runs the stages in their order."""
        conversation = run_stage("read", self.read, example)
        media = run_stage("load", self.load, conversation)
        rendering = run_stage("render", self._render, conversation)
        if not conversation.is_plain_text and (
            conversation.template_kwargs
            or any(m.extra or m.role not in KNOWN_ROLES for m in conversation.messages)
        ):
            report_unread_by_template(
                conversation, rendering.text, self._tools.template, self.on_unread
            )
        if self.special_tokens_in_text == "literal":
            self._report_spelled_turns(conversation)
        if rendering.dropped or rendering.altered:
            report_omissions(rendering, self.on_template_omission)
        labelled = self._label(conversation, media, rendering)
        sample = run_stage("postprocess", self.postprocess, labelled)
        if self.max_length is not None and len(sample) + self._dummy_room(sample) > self.max_length:
            shorten = partial(self._shorten, conversation, media, rendering, labelled)
            sample = run_stage("shorten", shorten, sample)
        if self.require_labels:
            check_trains(sample)
        return self.dummies.add(sample, [sample]) if self.dummy_media == "sample" else sample

    def _label(
        self, conversation: Conversation, media: Sequence[Any], rendering: Rendering
    ) -> EncodedSample:
        """Runs the stages process, tokenize and label."""
        prompt, sample = self._tokenize(conversation, media, rendering)
        name, turns = run_stage("label", self._place_turns, prompt, conversation)
        return self._with_labels(prompt, sample, conversation, name, turns)

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
        limit = most - room
        found: EncodedSample | None = None
        if self.on_overlong == "truncate":
            found = truncate(
                labelled,
                limit,
                media=media,
                rendering=rendering,
                tokenize=lambda media, text: self._tokenize(conversation, media, text)[1],
                postprocess=self.postprocess,
            )
        elif self.on_overlong == "drop_turns":
            found = drop_oldest_turns(conversation, media, limit, self._rerender)
        if found is not None and len(found) + self._dummy_room(found) > most:
            found = None  # its media was cut off, and dummy media needs the room
        if found is None or (self.require_labels and not trains(found)):
            raise SampleTooLongError(
                f"{len(sample)} tokens"
                + (f" and {room} of dummy media" if room else "")
                + f", longer than max_length={most}"
                + ("" if found is None else ", which would leave nothing to train")
                + f"; raise it to {len(sample) + room}, or set on_overlong"
            )
        return found

    def _rerender(self, conversation: Conversation, media: Sequence[Any]) -> EncodedSample:
        """The finished sample of a part of a conversation, whose media is loaded already."""
        rendering = run_stage("render", self._render, conversation)
        return self.postprocess(self._label(conversation, media, rendering))

    @final
    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:
        """Makes a batch of encoded samples.

        Args:
            samples: What `encode` returned, at least one.

        Returns:
            A plain dict of contiguous tensors: `input_ids`, `attention_mask` and `labels`, (B, T)
            int64, the family's token types, `loss_weights` (B, T) float32 if messages have
            weights other than 0 and 1, the joined media tensors, and `n_images_per_sample` and the
            like, (B,) int64, if there is such media.

        Raises:
            EmptyBatchError: There is no sample.
            MediaMismatchError: The media of two samples cannot be joined.
        """
        if not samples:
            raise EmptyBatchError("no example to collate; the batch is empty")
        if self.dummy_media == "batch" and not any(s.documents for s in samples):
            shortest = min(range(len(samples)), key=lambda i: len(samples[i]))
            filled = self.dummies.add(samples[shortest], samples)
            samples = [*samples[:shortest], filled, *samples[shortest + 1 :]]
        is_packed = self.padding.separates_by is not None
        if is_packed:
            samples = [s if s.documents else self.pack([s]) for s in samples]
        elif any(sample.documents for sample in samples):
            raise ConfigError(
                f"these samples are packs, whose documents would attend to each other with "
                f"{type(self.padding).__name__}; set padding to a layout that keeps them apart, "
                "such as BlockCausalMask() or FlattenedDocuments()"
            )
        return stack_samples(
            samples,
            partial(pad_rows, self.padding),
            self.family.joins,
            fill_values(self.processor.tokenizer),
            shift_labels=self.shift_labels,
            is_packed=is_packed,
        )

    @final
    def pack(self, samples: Sequence[EncodedSample], *, multiple_of: int = 1) -> EncodedSample:
        """Joins encoded samples into one pack, whose documents they are.

        Stack packs with a `padding` that keeps documents apart.

        Args:
            samples: What `encode` returned, at least one.
            multiple_of: Every document is padded to a multiple of this many tokens, as context
                parallel ranks need it (2 x ranks).

        Returns:
            The concatenated samples, with two more token keys: `document_ids` (L,), from 1 for
            documents and 0 for padding and dummy media, and `position_ids`, which restart with
            each document. The first token of each document has no label, since no token precedes
            it. `unpack` takes a pack apart.

        Raises:
            EmptyBatchError: There is no sample.
            ConfigError: The model cannot be trained on packs, or a sample is a pack already.
        """
        if not samples:
            raise EmptyBatchError("no sample to pack")
        self._check_packs()
        if any(sample.documents for sample in samples):
            raise ConfigError("one of the samples is a pack already; unpack it first")
        positions = [self.position_ids(sample) for sample in samples]
        family = self.family
        packing = family.packing
        if isinstance(packing, Packable) and packing.bidirectional_images and family.token_types:
            samples = [with_blocks(sample, family.token_types.key) for sample in samples]
        fill = fill_values(self.processor.tokenizer)
        return join_documents(samples, positions, family.joins, fill, multiple_of=multiple_of)

    def dummy_sample(self) -> EncodedSample:
        """Returns a sample to use instead of a bad one, if a batch has to keep its rows.

        By default one token without a label, which is attended to, so that no attention row is
        empty.
        """
        ids = torch.tensor([fill_values(self.processor.tokenizer)["input_ids"]])
        tokens = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": torch.full_like(ids, IGNORE_INDEX),
        }
        if self.family.token_types is not None:
            tokens[self.family.token_types.key] = torch.zeros_like(ids)
        no_origin = torch.full_like(ids, -1)
        sample = EncodedSample(tokens=tokens, message_ids=no_origin, media_ids=no_origin)
        sample = self.postprocess(sample)
        return self.dummies.add(sample, [sample]) if self.dummy_media == "sample" else sample

    @final
    def token_count(self, example: object) -> int | None:
        """Counts the tokens of an example without decoding its media.

        The sizes of images come from their headers, those of videos from their headers and the
        times of their frames.

        Args:
            example: A conversation in any form that `read_example` reads.

        Returns:
            The length of the sample that `encode` returns without a `max_length`, or `None` if the
            tokens of the family's media do not follow from sizes.

        Raises:
            SampleError: The example is at fault, as far as that shows without its media.
        """
        self._current_tools()
        conversation = self.read(example)
        parts = [part for _, part in conversation.media]
        if not self.counts_media([part.kind for part in parts]):
            return None
        texts = media_texts(
            parts,
            self.media,
            self.traits,
            self.processor,
            count=self.num_media_tokens,
            final_size=self._final_size,
            text_of=self._replacement,
            text_of_small_image=lambda: self._small_image,
        )
        if texts is None:
            return None
        rendering, processed = self._render(conversation), ProcessedMedia(replacements=texts)
        prompt, sample = self._encode_prompt(conversation, processed, rendering)
        name, turns = self._place_turns(prompt, conversation)
        labelled = self._with_labels(prompt, sample, conversation, name, turns)
        sample = self.postprocess(labelled)
        return len(sample) + (self._dummy_room(sample) if self.dummy_media == "sample" else 0)
