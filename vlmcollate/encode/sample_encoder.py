"""From one example to an encoded sample, stage by stage.

The stages themselves are the collator's; what happens between them is here.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmcollate.conversation import Conversation, MediaKind, MediaPart
from vlmcollate.encode.dummy_media import TOWERS, DummyMedia, blank, untrained
from vlmcollate.encode.hooks import check_result, run_hook
from vlmcollate.encode.overlong import fitted
from vlmcollate.encode.trace import run_stage
from vlmcollate.errors import (
    CollateError,
    ConfigError,
    ConversationError,
    LabelError,
    MediaError,
    TemplateOmissionWarning,
    stack_level,
)
from vlmcollate.media import Video
from vlmcollate.media.base import cast_media
from vlmcollate.media.processing.refusals import refuses_media
from vlmcollate.media.processing.result import ProcessedMedia, as_tensor
from vlmcollate.prompt.chat import MediaSpan, Rendering
from vlmcollate.prompt.encoder import TOKEN_TYPES, EncodedPrompt, Turn
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator

_TOKEN_TYPE_KEYS = frozenset({"mm_token_type_ids", "token_type_ids"})
_NO_MEDIA = _TOKEN_TYPE_KEYS | {
    "input_ids",
    "attention_mask",
    "offset_mapping",
    "text_replacement_offsets",
    "video_metadata",
}


_EXPECTED: dict[MediaKind, tuple[str, Callable[[Any], bool]]] = {
    "image": (
        "an RGB image of Pillow with at least one pixel",
        lambda item: isinstance(item, Image.Image) and item.mode == "RGB" and min(item.size) > 0,
    ),
    "video": ("a vlmcollate.Video", lambda item: isinstance(item, Video)),
    "audio": (
        "a float32 array (N,)",
        lambda item: isinstance(item, np.ndarray) and item.dtype == np.float32 and item.ndim == 1,
    ),
}
"""For each kind of media, what a strategy has to load."""


@attrs.frozen(eq=False)
class SampleEncoder:
    """Runs a collator's stages on one example.

    Args:
        collator: The collator.
    """

    collator: BaseCollator

    def __call__(self, example: object) -> EncodedSample:
        """Encodes one example; see `BaseCollator.encode`."""
        collator = self.collator
        conversation = run_stage("read", collator.read, example)
        media = run_stage("load", collator.load, conversation)
        rendering = run_stage("render", collator.render, conversation)
        self._report_dropped(rendering)
        sample = run_stage("fit", fitted, self, conversation, media, rendering)
        if collator.require_labels and not (sample.labels != IGNORE_INDEX).any():
            raise LabelError(
                "nothing is trained: no assistant message has a weight above 0; add one, or set "
                "require_labels=False"
            )
        if collator.dummy_media == "sample":
            sample = self.placeholders.added(sample, [sample])
        return sample

    def load(self, part: MediaPart) -> Any:
        """Decodes one media item."""
        collator = self.collator
        if part.kind not in collator.placeholders:
            raise MediaError(
                f"{type(collator).__name__} takes no {part.kind}; it takes "
                f"{', '.join(collator.placeholders) or 'text only'}",
                where=part.where,
            )
        options: dict[str, Any] = {}
        if part.kind == "video":
            options["sampling"] = collator.frame_sampling
            options["sampling_rate"] = collator.soundtrack_sampling_rate
        elif part.kind == "audio":
            if collator.sampling_rate is None:
                raise ConfigError(
                    f"{type(collator.processor).__name__} does not state its sampling rate"
                )
            options["sampling_rate"] = collator.sampling_rate
        load = getattr(collator.media, f"load_{part.kind}")
        hook = partial(load, part.source, where=part.where, **options)
        item = run_hook(hook, strategy=collator.media, place=part.where)
        expected, holds = _EXPECTED[part.kind]
        check_result(item, expected, holds=holds(item), strategy=collator.media, where=part.where)
        return item

    def labelled(
        self, conversation: Conversation, media: Sequence[Any], rendering: Rendering
    ) -> EncodedSample:
        """The labelled sample, as long as it is, before `postprocess`."""
        prompt, sample = self.tokenized(conversation, media, rendering)
        return self.with_labels(sample, prompt, conversation)

    def tokenized(
        self, conversation: Conversation, media: Sequence[Any], rendering: Rendering
    ) -> tuple[EncodedPrompt, EncodedSample]:
        """The prompt's tokens, and the sample without labels."""
        processed = self._process(conversation, rendering, media) if media else ProcessedMedia()
        return self.encoded(conversation, processed, rendering, media_counts(rendering, media))

    def encoded(
        self,
        conversation: Conversation,
        processed: ProcessedMedia,
        rendering: Rendering,
        counts: Mapping[str, int],
    ) -> tuple[EncodedPrompt, EncodedSample]:
        """The same, of media that is processed already."""
        collator = self.collator
        prompt = run_stage("tokenize", collator.prompt_encoder, conversation, rendering, processed)
        input_ids = torch.from_numpy(prompt.ids)
        tokens = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        if collator.token_type_key is not None:
            tokens[collator.token_type_key] = self._token_types(prompt)
        return prompt, EncodedSample(
            tokens=tokens,
            message_ids=torch.from_numpy(prompt.message_ids),
            media_ids=torch.from_numpy(prompt.media_ids),
            media=self._media_tensors(processed.tensors),
            media_counts=counts,
        )

    def with_labels(
        self, sample: EncodedSample, prompt: EncodedPrompt, conversation: Conversation
    ) -> EncodedSample:
        """A sample with the labels of its turns."""
        name, turns = run_stage("label", self.collator.label, prompt, conversation)
        ids, message_ids = sample.input_ids.numpy(), sample.message_ids.numpy()
        labels = np.full(len(ids), IGNORE_INDEX, np.int64)
        weights = np.zeros(len(ids), np.float32)
        self._check_turns(turns, conversation, len(ids))
        turn_weights = self._weights(conversation, turns)
        for (message, start, end), weight in zip(turns, turn_weights, strict=True):
            message_ids[start:end] = message
            weights[start:end] = weight
            if weight:
                labels[start:end] = ids[start:end]
        if sample.media_counts:
            is_media = sample.media_ids.numpy() >= 0
            labels[is_media], weights[is_media] = IGNORE_INDEX, 0
        tokens = {**sample.tokens, "labels": torch.from_numpy(labels)}
        if not {0.0, 1.0}.issuperset(turn_weights):
            tokens["loss_weights"] = torch.from_numpy(weights)
        return attrs.evolve(sample, tokens=tokens, label_strategy=name)

    @property
    def placeholders(self) -> DummyMedia:
        """The collator's placeholders, made once."""
        return self.collator.idle_media

    def make_placeholders(self) -> DummyMedia:
        """What stands in for media of each kind that has a tower of its own."""
        collator, nothing = self.collator, Conversation(messages=())
        pieces: dict[MediaKind, EncodedSample] = {}
        for kind in filter(collator.supports, TOWERS):
            text = collator.placeholders[kind]
            if not text:  # a page that no text mentions; every sample has its own
                continue
            span = MediaSpan(0, len(text), -1, kind)
            rendering = Rendering(text=text, given=(), media=(span,))
            _, piece = self.tokenized(nothing, [blank(kind, collator.sampling_rate)], rendering)
            pieces[kind] = untrained(collator.postprocess(piece))
        return DummyMedia(pieces, collator.media_joins)

    def _report_dropped(self, rendering: Rendering) -> None:
        if self.collator.on_template_omission == "allow" or not (
            rendering.dropped or rendering.altered
        ):
            return
        found = " and ".join(
            f"{verb} {', '.join(paths)}"
            for verb, paths in (
                ("leaves out", rendering.dropped),
                ("cuts or changes the text of", rendering.altered),
            )
            if paths
        )
        if self.collator.on_template_omission == "raise":
            raise ConversationError(
                f'the chat template {found}; remove it, or set on_template_omission="allow"'
            )
        warnings.warn(
            f'the chat template {found}; set on_template_omission="raise" to refuse such samples, '
            'or "allow" to accept them',
            TemplateOmissionWarning,
            stacklevel=stack_level(),
        )

    def _process(
        self, conversation: Conversation, rendering: Rendering, media: Sequence[Any]
    ) -> ProcessedMedia:
        """`process_media`; what the processor refuses is an error of the sample."""
        collator = self.collator
        try:
            return run_stage("process", collator.process_media, rendering, media)
        except CollateError:
            raise
        except ValueError as error:
            process = partial(collator.process_media, rendering)
            if not refuses_media(error, collator.processor, media, process):
                raise
            places = ", ".join(part.where for _, part in conversation.media)
            raise MediaError(
                f"{type(collator.processor).__name__} refuses the media of this sample: {error}",
                where=places,
            ) from error

    def _check_turns(self, turns: Any, conversation: Conversation, length: int) -> None:
        """Refuses turns that a label strategy may not return."""
        expected = f"turns in order, each of an assistant message, within {length} tokens"
        refuse = partial(check_result, expected=expected, strategy=self.collator.labels)
        refuse(turns, holds=isinstance(turns, list | tuple))
        done, messages = 0, conversation.messages
        for turn in turns:
            is_turn = isinstance(turn, tuple) and list(map(type, turn)) == [int, int, int]
            refuse(turn, holds=is_turn)
            message, start, end = turn
            is_answer = 0 <= message < len(messages) and messages[message].is_assistant
            refuse(turn, holds=is_answer and done <= start <= end <= length)
            done = end

    def _weights(self, conversation: Conversation, turns: Sequence[Turn]) -> list[float]:
        """The weight of each turn, 0 where it does not train."""
        last = max((turn.message for turn in turns), default=-1)
        return [
            conversation.messages[turn.message].weight
            if self.collator.train_on == "all_turns" or turn.message == last
            else 0.0
            for turn in turns
        ]

    def _token_types(self, prompt: EncodedPrompt) -> Tensor:
        collator = self.collator
        types = np.zeros(len(prompt.ids), np.int64)
        of_item = np.array([TOKEN_TYPES[span.kind] for span in prompt.rendering.media], np.int64)
        vocabulary = Vocabulary.known(collator.processor.tokenizer)
        for kind, tokens in collator.media_tokens.items() if prompt.rendering.media else ():
            for token in tokens:
                at = (prompt.ids == vocabulary.id_of(token)) & (prompt.media_ids >= 0)
                types[at] = (
                    of_item[prompt.media_ids[at]] if collator.types_by_item else TOKEN_TYPES[kind]
                )
        return torch.from_numpy(types)

    def _media_tensors(self, output: Mapping[str, Any]) -> dict[str, Tensor]:
        """The declared media tensors among what the processor returned."""
        collator, tensors = self.collator, {}
        for key, value in output.items():
            if key in _NO_MEDIA:
                continue
            if key not in collator.media_joins:
                raise ConfigError(
                    f"{type(collator.processor).__name__} returned the key {key!r}, which nobody "
                    f"declared; add it to {type(collator).__name__}.media_joins"
                )
            tensors[key] = cast_media(as_tensor(value), collator.media.dtype)
        return tensors


def media_counts(rendering: Rendering, media: Sequence[Any]) -> dict[str, int]:
    """The items of each kind; a video with its sound is a sound, too."""
    kinds: list[str] = [span.kind for span in rendering.media]
    kinds += ["audio" for item in media if isinstance(item, Video) and item.audio is not None]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
