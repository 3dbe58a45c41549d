"""Collators that lose tools, reasoning or the order of parts, each in one way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import attrs

from tests.broken import templates
from vlmcollate import EncodedSample
from vlmcollate.conversation import Conversation, MediaPart, Message
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.prompt.encoder import EncodedPrompt, Turn

Labelled = tuple[str, list[Turn]]
PROCESSOR = templates.with_tools()


@attrs.frozen(kw_only=True, eq=False)
class WithTools(Qwen2_5_VLCollator):
    """A right collator, for a template that writes tools and reasoning."""

    example_processor: ClassVar[Any] = PROCESSOR


def _changed(found: Conversation, change: Callable[[Message], Message]) -> Conversation:
    return attrs.evolve(found, messages=tuple(map(change, found.messages)))


def _without(message: Message, key: str) -> Message:
    return attrs.evolve(message, extra={k: v for k, v in message.extra.items() if k != key})


@attrs.frozen(kw_only=True, eq=False)
class DropsTools(WithTools):
    """Does not read `tools`."""

    def read(self, example: Any) -> Conversation:
        return attrs.evolve(super().read(example), tools=None)


@attrs.frozen(kw_only=True, eq=False)
class DropsCalls(WithTools):
    """Keeps the name alone of what an answer calls."""

    def read(self, example: Any) -> Conversation:
        return _changed(super().read(example), lambda m: _without(m, "tool_calls"))


@attrs.frozen(kw_only=True, eq=False)
class DropsReasoning(WithTools):
    """Loses what an answer was thought through with."""

    def read(self, example: Any) -> Conversation:
        return _changed(super().read(example), lambda m: _without(m, "reasoning_content"))


@attrs.frozen(kw_only=True, eq=False)
class TrainsResults(WithTools):
    """Trains what a tool gave."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        for number, message in enumerate(conversation.messages):
            at = (prompt.message_ids == number).nonzero()[0]
            if message.role == "tool":
                turns = [*turns, Turn(number - 1, int(at[0]), int(at[-1]) + 1)]
        return name, sorted(turns, key=lambda turn: turn.start)


@attrs.frozen(kw_only=True, eq=False)
class CallsNeverTrain(WithTools):
    """Trains words alone."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        calls = {i for i, m in enumerate(conversation.messages) if m.extra.get("tool_calls")}
        return name, [turn for turn in turns if turn.message not in calls]


@attrs.frozen(kw_only=True, eq=False)
class TrainsThePrompt(Qwen2_5_VLCollator):
    """Trains the answers of a prompt with a completion."""

    def read(self, example: Any) -> Conversation:
        found = super().read(example)
        if not isinstance(example, dict) or "prompt" not in example:
            return found
        return _changed(found, lambda m: attrs.evolve(m, weight=1.0))


@attrs.frozen(kw_only=True, eq=False)
class ImagesFirst(Qwen2_5_VLCollator):
    """Shows the pictures of a message before its words."""

    def read(self, example: Any) -> Conversation:
        def moved(message: Message) -> Message:
            parts = sorted(message.content, key=lambda part: not isinstance(part, MediaPart))
            return attrs.evolve(message, content=tuple(parts))

        return _changed(super().read(example), moved)


@attrs.frozen(kw_only=True, eq=False)
class FirstPartAlone(Qwen2_5_VLCollator):
    """Trains the first part of an answer."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        labels = sample.labels.clone()
        text = self.processor.tokenizer.convert_ids_to_tokens(sample.input_ids)
        trained = [i for i, label in enumerate(labels.tolist()) if label >= 0]
        if "Ġcat" in [text[i] for i in trained] and "ĠI" not in text:
            labels[trained[2:-1]] = -100
        return attrs.evolve(sample, tokens={**sample.tokens, "labels": labels})


@attrs.frozen(kw_only=True, eq=False)
class OneAnswerInARow(Qwen2_5_VLCollator):
    """Trains the first of two answers in a row."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        answers = {turn.message for turn in turns}
        return name, [turn for turn in turns if turn.message - 1 not in answers]


@attrs.frozen(kw_only=True, eq=False)
class ForgetsEmptyAnswers(Qwen2_5_VLCollator):
    """Does not train to stop at once."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> Labelled:
        name, turns = super().label(prompt, conversation)
        return name, [turn for turn in turns if turn.end - turn.start > 1]


CAUGHT_BY: dict[type[Any], str] = {
    DropsTools: "check_tools_and_reasoning_are_written",
    DropsCalls: "check_tools_and_reasoning_are_written",
    DropsReasoning: "check_tools_and_reasoning_are_written",
    TrainsResults: "check_calls_train_and_results_do_not",
    CallsNeverTrain: "check_calls_train_and_results_do_not",
    TrainsThePrompt: "check_only_the_completion_trains",
    ImagesFirst: "check_media_stays_between_its_texts",
    FirstPartAlone: "check_only_answers_train",
    OneAnswerInARow: "check_only_answers_train",
    ForgetsEmptyAnswers: "check_only_answers_train",
}
