"""Collators that take too little, write to what they read, or remember, each in one way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate import EncodedSample
from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConversationError, LabelError, MediaError
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.prompt.encoder import EncodedPrompt, Turn
from vlmcollate.prompt.rendering import Rendering

_CALLS = itertools.count(1)
_BATCHES = itertools.count(1)
_REGISTERED: dict[str, int] = {}
_WORDS = frozenset(f"word {number}" for number in range(20))
_BUFFERS: dict[tuple[int, ...], Tensor] = {}


@attrs.frozen(kw_only=True, eq=False)
class TakesNoPictures(Qwen2_5_VLCollator):
    """Refuses what its template shows."""

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        raise MediaError("the picture is broken")


@attrs.frozen(kw_only=True, eq=False)
class TakesOnePicture(Qwen2_5_VLCollator):
    """Loses all pictures but the first."""

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        return super().process_media(attrs.evolve(rendering, media=rendering.media[:1]), media[:1])


@attrs.frozen(kw_only=True, eq=False)
class TakesOneAnswer(Qwen2_5_VLCollator):
    """Refuses what its template writes."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> tuple[str, list[Turn]]:
        name, turns = super().label(prompt, conversation)
        if len(turns) > 1:
            raise LabelError("cannot place the second turn")
        return name, turns


@attrs.frozen(kw_only=True, eq=False)
class TakesNoSystem(Qwen2_5_VLCollator):
    """Refuses a system message."""

    def read(self, example: Any) -> Conversation:
        found = super().read(example)
        if found.messages[0].role == "system":
            raise ConversationError("the first message is not the user's")
        return found


@attrs.frozen(kw_only=True, eq=False)
class TakesNoDict(Qwen2_5_VLCollator):
    """Takes lists of messages alone."""

    def read(self, example: Any) -> Conversation:
        if isinstance(example, Mapping):
            raise ConversationError("a dict is no list of messages")
        return super().read(example)


@attrs.frozen(kw_only=True, eq=False)
class WritesParts(Qwen2_5_VLCollator):
    """Makes lists of the caller's strings."""

    def read(self, example: Any) -> Conversation:
        for message in example if isinstance(example, list) else []:
            if isinstance(message["content"], str):
                message["content"] = [{"type": "text", "text": message["content"]}]
        return super().read(example)


@attrs.frozen(kw_only=True, eq=False)
class MarksDicts(Qwen2_5_VLCollator):
    """Leaves a mark in the caller's dict."""

    def read(self, example: Any) -> Conversation:
        found = super().read(example)
        if isinstance(example, dict):
            example["seen"] = True
        return found


def _sign(example: Any) -> None:
    """Writes a word behind the last message's."""
    last = (example["messages"] if isinstance(example, dict) else example)[-1]
    if isinstance(last["content"], str):
        last["content"] += " Bye"
    else:
        last["content"][-1]["text"] += " Bye"


@attrs.frozen(kw_only=True, eq=False)
class EditsEverySecondTime(Qwen2_5_VLCollator):
    """Signs the first example of every second batch."""

    def __call__(self, examples: Sequence[object]) -> dict[str, Tensor]:  # type: ignore[misc]
        batch = super().__call__(examples)
        if next(_BATCHES) % 2 == 0 and len(examples):
            _sign(examples[0])
        return batch


@attrs.frozen(kw_only=True, eq=False)
class EditsLaterRows(Qwen2_5_VLCollator):
    """Signs all examples but the first."""

    def __call__(self, examples: Sequence[object]) -> dict[str, Tensor]:  # type: ignore[misc]
        batch = super().__call__(examples)
        for example in examples[1:]:
            _sign(example)
        return batch


@attrs.frozen(kw_only=True, eq=False)
class ReusesMemory(Qwen2_5_VLCollator):
    """Gives the same tensor for every batch of a shape."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:  # type: ignore[misc]
        batch = super().stack(samples)
        ids = batch["input_ids"]
        kept = _BUFFERS.setdefault(tuple(ids.shape), torch.empty_like(ids))
        kept.copy_(ids)
        return {**batch, "input_ids": kept}


@attrs.frozen(kw_only=True, eq=False)
class EverySeventhIsWrong(Qwen2_5_VLCollator):
    """Counts its calls."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:  # type: ignore[misc]
        batch = super().stack(samples)
        if next(_CALLS) % 7 == 0:
            batch["input_ids"][:, 0] = 9
        return batch


def _with_rank(sample: EncodedSample, rank: int) -> EncodedSample:
    ranks = torch.full_like(sample.input_ids, rank)
    return attrs.evolve(sample, tokens={**sample.tokens, "ranks": ranks})


@attrs.frozen(kw_only=True, eq=False)
class NumbersASet(Qwen2_5_VLCollator):
    """Numbers words in the order of a set, which depends on how strings hash."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        order = [int(word.split()[1]) for word in _WORDS]
        return _with_rank(sample, sum(number * at for at, number in enumerate(order)))


@attrs.frozen(kw_only=True, eq=False)
class RegistersItself(Qwen2_5_VLCollator):
    """Keeps what it needs in its module, where a copy in another process does not find it."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _REGISTERED["rank"] = 3

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        return _with_rank(sample, _REGISTERED["rank"])


@attrs.frozen(kw_only=True, eq=False)
class RaisesOnEmoji(Qwen2_5_VLCollator):
    """Raises what no collator should, and for some texts alone."""

    def read(self, example: Any) -> Conversation:
        found = super().read(example)
        texts = [getattr(p, "text", "") for m in found.messages for p in m.content]
        if any(ord(character) > 0xFFFF for text in texts for character in text):
            raise KeyError("emoji")
        return found


CAUGHT_BY: dict[type[Any], str] = {
    TakesNoPictures: "check_accepts_what_the_template_accepts",
    TakesOnePicture: "check_accepts_what_the_template_accepts",
    TakesOneAnswer: "check_accepts_what_the_template_accepts",
    TakesNoSystem: "check_accepts_what_the_template_accepts",
    TakesNoDict: "check_formats_agree",
    WritesParts: "check_input_is_unchanged",
    MarksDicts: "check_input_is_unchanged",
    EditsEverySecondTime: "check_input_is_unchanged",
    EditsLaterRows: "check_input_is_unchanged",
    NumbersASet: "check_a_pickled_copy_agrees",
    RegistersItself: "check_a_pickled_copy_agrees",
    ReusesMemory: "check_output_is_deterministic",
    EverySeventhIsWrong: "check_output_is_deterministic",
}
