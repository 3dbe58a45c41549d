"""Collators whose labels are wrong on purpose, each in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from vlmcollate import EncodedSample
from vlmcollate.conversation import Conversation
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.prompt.encoder import EncodedPrompt, Turn

Labelled = tuple[str, list[Turn]]


def _moved(turns: list[Turn], move: Callable[[int, Turn], tuple[int, int]]) -> list[Turn]:
    return [Turn(turn.message, *move(i, turn)) for i, turn in enumerate(turns)]


@attrs.frozen(kw_only=True, eq=False)
class TrainsTheFirstMatch(Qwen2_5_VLCollator):
    """Trains the first place where an answer's tokens stand, be it a question that says so."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        ids = prompt.ids.tolist()

        def first(_: int, turn: Turn) -> tuple[int, int]:
            run = ids[turn.start : turn.end]
            at = next(i for i in range(len(ids)) if ids[i : i + len(run)] == run)
            return at, at + len(run)

        return name, _moved(turns, first)


@attrs.frozen(kw_only=True, eq=False)
class TrainsTheHeadersNewline(Qwen2_5_VLCollator):
    """Begins one token too early."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        return name, _moved(turns, lambda _, turn: (turn.start - 1, turn.end))


@attrs.frozen(kw_only=True, eq=False)
class SkipsTheFirstNewline(Qwen2_5_VLCollator):
    """Leaves out the whitespace that an answer begins with."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        decode = self.processor.tokenizer.decode

        def without_space(_: int, turn: Turn) -> tuple[int, int]:
            start = turn.start
            while start < turn.end - 2 and not decode([int(prompt.ids[start])]).strip():
                start += 1
            return start, turn.end

        return name, _moved(turns, without_space)


@attrs.frozen(kw_only=True, eq=False)
class TrainsTheNewlineBehind(Qwen2_5_VLCollator):
    """Goes on past the end token, but for the last answer."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        most = len(turns) - 1
        return name, _moved(turns, lambda i, turn: (turn.start, turn.end + (i < most)))


@attrs.frozen(kw_only=True, eq=False)
class TrainsFourAnswers(Qwen2_5_VLCollator):
    """Forgets the fifth answer."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        return name, turns[:4]


@attrs.frozen(kw_only=True, eq=False)
class LosesCountOfPictures(Qwen2_5_VLCollator):
    """Begins a token late where there are more than two pictures."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        late = len(list(conversation.media)) > 2
        return name, _moved(turns, lambda _, turn: (turn.start + late, turn.end))


@attrs.frozen(kw_only=True, eq=False)
class IgnoresWeights(Qwen2_5_VLCollator):
    """Trains every answer alike."""

    def read(self, example: Any) -> Conversation:
        found = super().read(example)
        messages = tuple(attrs.evolve(message, weight=1.0) for message in found.messages)
        return attrs.evolve(found, messages=messages)


@attrs.frozen(kw_only=True, eq=False)
class LosesItsWeights(Qwen2_5_VLCollator):
    """Leaves out what the answers count."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        tokens = {k: v for k, v in sample.tokens.items() if k != "loss_weights"}
        return attrs.evolve(sample, tokens=tokens)


CAUGHT_BY: dict[type[Any], str] = {
    TrainsTheFirstMatch: "check_only_answers_train",
    TrainsTheHeadersNewline: "check_only_answers_train",
    SkipsTheFirstNewline: "check_only_answers_train",
    TrainsTheNewlineBehind: "check_only_answers_train",
    TrainsFourAnswers: "check_only_answers_train",
    LosesCountOfPictures: "check_only_answers_train",
    IgnoresWeights: "check_loss_weights",
    LosesItsWeights: "check_loss_weights",
}
