"""Collators that are wrong on purpose, each in one way."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from vlmcollate import EncodedSample, PadToLongest, SampleError
from vlmcollate.conversation import Conversation
from vlmcollate.errors import EmptyBatchError
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.padding import PaddingStrategy
from vlmcollate.prompt.encoder import EncodedPrompt, Turn
from vlmcollate.prompt.off_prompt import OffPromptPolicy
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.testing import tiny_processor

PROCESSOR = tiny_processor()


def _processor_that_thinks() -> Any:
    processor = tiny_processor()
    begin, end = processor.chat_template.rsplit("<|im_start|>assistant\\n", 1)
    processor.chat_template = f"{begin}<|im_start|>assistant\\n<think>{end}"
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<think>"]})
    return processor


_COUNT = itertools.count()


class Changes(Qwen2_5_VLCollator):
    """Lets its options be changed."""

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


@attrs.frozen(kw_only=True, eq=False)
class TakesAnyOption(Qwen2_5_VLCollator):
    """Forgets to check its options."""

    max_length: Any = None
    on_overlong: Any = "raise"

    def __attrs_post_init__(self) -> None:
        pass


@attrs.frozen(kw_only=True, eq=False)
class HoldsALambda(Qwen2_5_VLCollator):
    """Cannot be pickled."""

    hook: Any = attrs.field(factory=lambda: lambda text: text)


def _relabelled(sample: EncodedSample, labels: Tensor) -> EncodedSample:
    return attrs.evolve(sample, tokens={**sample.tokens, "labels": labels})


@attrs.frozen(kw_only=True, eq=False)
class LabelsAnotherToken(Qwen2_5_VLCollator):
    """Labels hold another id than the input."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        labels = sample.labels.clone()
        labels[labels >= 0] = 300
        return _relabelled(sample, labels)


@attrs.frozen(kw_only=True, eq=False)
class ForgetsTheEnd(Qwen2_5_VLCollator):
    """Leaves out the token that ends an answer."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> tuple[str, list[Turn]]:
        name, turns = super().label(prompt, conversation)
        return name, [Turn(t.message, t.start, t.end - 1) for t in turns]


@attrs.frozen(kw_only=True, eq=False)
class TrainsQuestions(Qwen2_5_VLCollator):
    """Trains all that somebody said."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        said = (sample.message_ids >= 0) & (sample.media_ids < 0)
        labels = torch.where(said, sample.input_ids, sample.labels)
        return _relabelled(sample, labels)


@attrs.frozen(kw_only=True, eq=False)
class TrainsMedia(Qwen2_5_VLCollator):
    """Trains the placeholders of pictures."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        labels = torch.where(sample.media_ids >= 0, sample.input_ids, sample.labels)
        return _relabelled(sample, labels)


@attrs.frozen(kw_only=True)
class TrainedPadding(PadToLongest):
    """Fills labels with the pad token."""

    def __call__(
        self, rows: Sequence[Mapping[str, Tensor]], fill: Mapping[str, float]
    ) -> dict[str, Tensor]:
        return super().__call__(rows, {**fill, "labels": fill["input_ids"]})


@attrs.frozen(kw_only=True, eq=False)
class PaddingTrains(Qwen2_5_VLCollator):
    """Trains its padding."""

    padding: PaddingStrategy = attrs.field(factory=TrainedPadding)


@attrs.frozen(kw_only=True, eq=False)
class TakesControlText(Qwen2_5_VLCollator):
    """Tokenizes what users write as control tokens."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        tokenizer = self.processor.tokenizer
        if sample.media_counts:
            return sample
        ids = tokenizer.encode(tokenizer.decode(sample.input_ids), add_special_tokens=False)
        found, length = torch.tensor(ids), len(ids)
        labels = torch.full_like(found, -100)
        kept = min(length, int((sample.labels != -100).sum()) + 1)
        labels[length - kept : length - 1] = found[length - kept : length - 1]
        tokens = {
            "input_ids": found,
            "attention_mask": torch.ones_like(found),
            "labels": labels,
            "mm_token_type_ids": torch.zeros_like(found),
        }
        nobody = torch.full_like(found, -1)
        return attrs.evolve(sample, tokens=tokens, message_ids=nobody, media_ids=nobody.clone())


@attrs.frozen(kw_only=True, eq=False)
class AnswersElsewhere(Qwen2_5_VLCollator):
    """Trains answers behind another header than the one that asks for them."""

    def render(self, conversation: Conversation) -> Rendering:
        rendering = super().render(conversation)
        text = rendering.text.replace("<|im_start|>assistant", "<|im_start|>assistent")
        return attrs.evolve(rendering, text=text)


@attrs.frozen(kw_only=True, eq=False)
class TrainsOffPrompt(Qwen2_5_VLCollator):
    """Trains answers without the block that ends every generation prompt."""

    example_processor: ClassVar[Any] = _processor_that_thinks()
    off_prompt: OffPromptPolicy = "error"

    def render(self, conversation: Conversation) -> Rendering:
        return attrs.evolve(super().render(conversation), notes=())


@attrs.frozen(kw_only=True, eq=False)
class LastTurnForgotten(Qwen2_5_VLCollator):
    """Takes the first turn for the last."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> tuple[str, list[Turn]]:
        name, turns = super().label(prompt, conversation)
        return name, turns[:1] if self.train_on == "last_turn" else turns


@attrs.frozen(kw_only=True, eq=False)
class OnePlaceholderTooFew(Qwen2_5_VLCollator):
    """Gives every picture one token less."""

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        found = super().process_media(rendering, media)
        token = self.processor.image_token
        texts = tuple(text.replace(token, "", 1) for text in found.replacements)
        return attrs.evolve(found, replacements=texts)


@attrs.frozen(kw_only=True, eq=False)
class LosesMediaIds(Qwen2_5_VLCollator):
    """Does not know which tokens are whose."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        return attrs.evolve(sample, media_ids=torch.full_like(sample.media_ids, -1))


@attrs.frozen(kw_only=True, eq=False)
class IgnoresLimits(Qwen2_5_VLCollator):
    """Lets long samples pass."""

    def encode(self, example: object) -> EncodedSample:  # type: ignore[misc]
        return Qwen2_5_VLCollator(processor=self.processor, train_on=self.train_on).encode(example)


@attrs.frozen(kw_only=True, eq=False)
class ChangesItsInput(Qwen2_5_VLCollator):
    """Writes into the example."""

    def read(self, example: Any) -> Conversation:
        conversation = super().read(copy.deepcopy(example))
        example[-1]["seen"] = True
        return conversation


@attrs.frozen(kw_only=True, eq=False)
class Random(Qwen2_5_VLCollator):
    """Counts its calls in the pixels of a key of its own."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        noise = torch.full_like(sample.input_ids, next(_COUNT))
        return attrs.evolve(sample, tokens={**sample.tokens, "noise": noise})


@attrs.frozen(kw_only=True, eq=False)
class LooksAtNeighbours(Qwen2_5_VLCollator):
    """Trains nothing of all rows but the first."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:  # type: ignore[misc]
        batch = super().stack(samples)
        batch["labels"][1:, -1] = -100
        batch["input_ids"][1:, 0] = 5
        return batch


@attrs.frozen(kw_only=True, eq=False)
class SortsRows(Qwen2_5_VLCollator):
    """Puts the longest row first."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:  # type: ignore[misc]
        return super().stack(sorted(samples, key=len, reverse=True))


@attrs.frozen(kw_only=True)
class OneMore(PadToLongest):
    """Pads one token too far."""

    def padded_length(self, lengths: Sequence[int]) -> int:
        return super().padded_length(lengths) + 1


@attrs.frozen(kw_only=True, eq=False)
class PadsTooFar(Qwen2_5_VLCollator):
    """Wastes a token in each row."""

    padding: PaddingStrategy = attrs.field(factory=OneMore)


@attrs.frozen(kw_only=True, eq=False)
class LosesPixels(Qwen2_5_VLCollator):
    """Stacks pixels that are not those of the samples."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:  # type: ignore[misc]
        batch = super().stack(samples)
        if "pixel_values" in batch:
            batch["pixel_values"] = torch.zeros_like(batch["pixel_values"])
        return batch


@attrs.frozen(kw_only=True, eq=False)
class TakesNothing(Qwen2_5_VLCollator):
    """Makes something of an empty batch."""

    def __call__(self, examples: Sequence[object]) -> dict[str, Tensor]:  # type: ignore[misc]
        try:
            return super().__call__(examples)
        except EmptyBatchError:
            if len(examples):
                raise
            return {}


@attrs.frozen(kw_only=True, eq=False)
class MiscountsSamples(Qwen2_5_VLCollator):
    """Names the wrong sample."""

    def __call__(self, examples: Sequence[object]) -> dict[str, Tensor]:  # type: ignore[misc]
        try:
            return super().__call__(examples)
        except SampleError as error:
            raise type(error)(error.problem, index=0, where=error.where) from error


@attrs.frozen(kw_only=True, eq=False)
class ShiftsTwice(Qwen2_5_VLCollator):
    """Shifts labels where they were shifted."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:  # type: ignore[misc]
        batch = super().stack(samples)
        if self.shift_labels:
            batch["labels"] = batch["labels"].roll(-1, dims=1)
        return batch


@attrs.frozen(kw_only=True, eq=False)
class PositionsRunOn(Qwen2_5_VLCollator):
    """Lets a pack's first tokens be trained across the border."""

    def pack(self, samples: Sequence[EncodedSample], **options: Any) -> EncodedSample:  # type: ignore[misc]
        pack = super().pack(samples, **options)
        labels = pack.labels.clone()
        labels[len(samples[0])] = pack.input_ids[len(samples[0])]
        return _relabelled(pack, labels)
