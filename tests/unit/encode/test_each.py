"""The examples of a batch advance together, and fail as they would one after another."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlmcollate import BaseCollator, EncodedSample, LocalMedia, collator_for
from vlmcollate.encode.overlong import OverlongPolicy
from vlmcollate.errors import (
    CollateError,
    EmptyBatchError,
    LabelError,
    MediaError,
    SampleError,
    StrategyError,
)
from vlmcollate.extend import Conversation
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.testing import tiny_processor

STAGES = ("read", "render", "load", "process_media", "label", "postprocess")
FAULTS = {
    "sample": lambda stage: LabelError(f"{stage} refuses the sample"),
    "media": lambda stage: MediaError(f"{stage} refuses the media", where="messages[0]"),
    "strategy": lambda stage: StrategyError(f"{stage} has a bug"),
    "bug": lambda stage: KeyError(stage),
}


def name_of(conversation: Conversation) -> str:
    """The name of a conversation's image."""
    ((_, part),) = conversation.media
    return str(part.source.info["name"])


@attrs.frozen(kw_only=True, eq=False)
class NotingCollator(Qwen2_5_VLCollator):
    """Notes the stages that it runs, and fails in the one that an image's name asks for."""

    ran: list[tuple[str, str]] = attrs.field(factory=list)

    def _run(self, stage: str, name: str) -> None:
        self.ran.append((stage, name))
        _, _, fault = name.partition(f" {stage}:")
        if fault:
            raise FAULTS[fault](stage)

    def render(self, conversation: Conversation) -> Any:
        self._run("render", name_of(conversation))
        return super().render(conversation)

    def load(self, conversation: Conversation) -> list[Any]:
        self._run("load", name_of(conversation))
        return super().load(conversation)

    def process_media(self, rendering: Any, media: Sequence[Any]) -> Any:
        self._run("process_media", media[0].info["name"])
        return super().process_media(rendering, media)

    def label(self, prompt: Any, conversation: Conversation) -> Any:
        self._run("label", name_of(conversation))
        return super().label(prompt, conversation)

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        self._run("postprocess", self.ran[-1][1])
        return super().postprocess(sample)


class FailingCollator(NotingCollator):
    """Notes and fails in the stage `read` as well."""

    def read(self, example: Any) -> Conversation:
        self._run("read", example[0]["content"][0]["image"].info["name"])
        return super().read(example)


@attrs.frozen(kw_only=True)
class NamedMedia(LocalMedia):
    """Keeps the name of an image, which a conversion to RGB would drop."""

    def load_image(self, source: Any, *, where: str) -> Image.Image:
        image = super().load_image(source, where=where)
        image.info["name"] = source.info["name"]
        return image


def chat(name: str, size: int = 56) -> list[dict[str, Any]]:
    image = Image.fromarray(np.full((size, size, 3), 90, np.uint8))
    image.info["name"] = name
    question = [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]
    answer = {"role": "assistant", "content": "A square."}
    return [{"role": "user", "content": question}, answer]


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny_processor("qwen2_5_vl")


@pytest.fixture
def collate(processor: Any) -> FailingCollator:
    return FailingCollator(processor=processor, media=NamedMedia())


def shown(error: BaseException) -> tuple[Any, ...]:
    notes = tuple(getattr(error, "__notes__", ()))
    return type(error), str(error), notes, repr(error.__cause__)


def in_a_loop(
    collate: BaseCollator, batch: list[Any], skip: Callable[[SampleError], list[EncodedSample]]
) -> dict[str, Any]:
    """Collates the examples one after another."""
    samples: list[EncodedSample] = []
    for index, example in enumerate(batch):
        try:
            samples += collate.encode_kept(example)
        except SampleError as error:
            samples += skip(error.at(index=index))
        except StrategyError as error:
            raise error.at(index=index) from error.__cause__
        except KeyError as error:
            if hasattr(error, "add_note"):
                error.add_note(f"while collating sample {index} of the batch")
            raise
    return collate.stack(samples)


def outcome(collate: Callable[..., dict[str, Any]], *, skips: bool) -> tuple[list[Any], Any]:
    """The errors that a policy gets, and the batch or the error that is raised."""
    handled: list[Any] = []

    def handle(error: SampleError) -> list[EncodedSample]:
        handled.append(shown(error))
        if not skips:
            raise error from error.__cause__
        return []

    try:
        batch = collate(handle)
    except EmptyBatchError as error:
        return handled, type(error)
    except (CollateError, KeyError) as error:
        return handled, shown(error)
    return handled, {key: value.tolist() for key, value in batch.items()}


FAULT = st.sampled_from([f" {stage}:{kind}" for stage in STAGES for kind in FAULTS])
NAMES = st.lists(st.just("") | FAULT, min_size=1, max_size=5).map(
    lambda found: [f"{number}{fault}" for number, fault in enumerate(found)]
)


@given(names=NAMES, skips=st.booleans())
def test_errors_are_those_of_one_after_another(processor, names: list[str], skips: bool):
    collate = FailingCollator(processor=processor, media=NamedMedia())
    batch = [chat(name) for name in names]
    found = outcome(lambda handle: collate.collate(batch, on_error=handle), skips=skips)
    assert found == outcome(lambda handle: in_a_loop(collate, batch, handle), skips=skips)
    if not skips:  # the policy by default
        handled, result = outcome(lambda handle: collate(batch), skips=skips)
        assert (handled, result) == ([], found[1])


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, (STAGES[1:2], STAGES[2:4], STAGES[4:])),
        ({"max_length": 99, "on_overlong": "truncate"}, (STAGES[1:2], STAGES[2:])),
        ({"split_turns": True}, (("load", "render", "process_media", *STAGES[4:]),)),
    ],
)
def test_the_examples_advance_together(processor, options, parts):
    collate = NotingCollator(processor=processor, media=NamedMedia(), **options)
    collate([chat(name) for name in "abc"])
    assert collate.ran == [(stage, name) for part in parts for name in "abc" for stage in part]


def test_nothing_is_encoded_behind_an_example_that_fails(collate):
    with pytest.raises(LabelError, match="sample 1: render refuses the sample"):
        collate([chat(name) for name in ("a", "b render:sample", "c", "d read:bug")])
    assert [name for _, name in collate.ran if name[0] in "cd"] == []
    assert ("postprocess", "a") in collate.ran


@attrs.frozen(kw_only=True)
class CountingMedia(LocalMedia):
    """Counts the decoded images that are in memory while it loads another."""

    alive: list[int]
    _decoded: list[weakref.ref[Image.Image]] = attrs.field(factory=list)

    def load_image(self, source: Any, *, where: str) -> Image.Image:
        gc.collect()
        self.alive.append(sum(image() is not None for image in self._decoded))
        image = super().load_image(source, where=where).copy()
        self._decoded.append(weakref.ref(image))
        return image


@pytest.mark.parametrize("policy", get_args(OverlongPolicy))
def test_one_example_at_a_time_holds_decoded_media(processor, policy: OverlongPolicy):
    alive: list[int] = []
    media = CountingMedia(alive=alive)
    collate = collator_for(processor, media=media, max_length=200, on_overlong=policy)
    collate([chat(str(number)) for number in range(4)])
    assert alive == [0, 0, 0, 0]


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Runs a test in which only reference counts free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("without_collector")
def test_errors_that_a_policy_handled_keep_nothing_in_memory(processor):
    made: list[weakref.ref[Any]] = []

    @attrs.frozen(kw_only=True, eq=False)
    class Watched(FailingCollator):
        def process_media(self, rendering: Any, media: Sequence[Any]) -> Any:
            made.append(weakref.ref(media[0]))
            return super().process_media(rendering, media)

        def postprocess(self, sample: EncodedSample) -> EncodedSample:
            made.append(weakref.ref(sample))
            return super().postprocess(sample)

    collate = Watched(processor=processor, media=NamedMedia())
    collate([chat("first")])  # which fills caches
    made.clear()
    names = ("0", "1 process_media:media", "2", "3 label:sample")
    collate.collate([chat(name) for name in names], on_error=lambda error: [])
    assert [found() for found in made] == [None] * 6


def test_an_example_that_failed_holds_no_decoded_media(processor):
    alive: list[int] = []

    @attrs.frozen(kw_only=True, eq=False)
    class Refusing(Qwen2_5_VLCollator):
        def process_media(self, rendering: Any, media: Sequence[Any]) -> Any:
            error = MediaError("refused")
            raise error from error

    collate = Refusing(processor=processor, media=CountingMedia(alive=alive))
    with pytest.raises(EmptyBatchError):
        collate.collate([chat(str(number)) for number in range(4)], on_error=lambda error: [])
    assert alive == [0, 0, 0, 0]


def test_a_policy_runs_while_its_error_is_handled(collate):
    handled: list[BaseException | None] = []

    def again(error: SampleError) -> list[EncodedSample]:
        handled.append(sys.exc_info()[1])
        raise  # the error that is handled

    with pytest.raises(LabelError, match="label refuses the sample") as raised:
        collate.collate([chat("a"), chat("b label:sample")], on_error=again)
    assert handled == [raised.value]


@pytest.mark.parametrize("split_turns", [False, True])
@pytest.mark.parametrize("drops", [False, True])
def test_encode_and_collate_raise_the_same_of_two_errors(processor, split_turns, drops):
    options: dict[str, Any] = {"max_length": 9, "on_overlong": "drop_turns"} if drops else {}
    collate = collator_for(processor, split_turns=split_turns, on_unread="raise", **options)
    question = {"role": "user", "content": [{"type": "image", "image": "/missing.png"}]}
    answer = {"role": "assistant", "content": "A square."}
    example = [{"role": "nobody", "content": "Hi"}, question, answer]
    errors = []
    for encode in (collate.encode, collate.explain, collate.encode_all, lambda one: collate([one])):
        with pytest.raises(SampleError) as raised:
            encode(example)
        errors.append((type(raised.value), raised.value.where, raised.value.problem))
    assert len({*errors}) == 1


@pytest.mark.parametrize("policy", get_args(OverlongPolicy))
def test_a_load_of_a_subclass_may_take_other_kinds_of_media(processor, policy: OverlongPolicy):
    spectrogram = Image.new("RGB", (56, 56))

    class Hearing(Qwen2_5_VLCollator):
        """Shows audio as an image."""

        def render(self, conversation: Conversation) -> Any:
            (question, answer) = conversation.messages
            part: Any = question.content[0]
            parts = (attrs.evolve(part, kind="image"), *question.content[1:])
            question = attrs.evolve(question, content=parts)
            return super().render(attrs.evolve(conversation, messages=(question, answer)))

        def load(self, conversation: Conversation) -> list[Any]:
            return [spectrogram for _ in conversation.media]

    question, answer = chat("0")
    parts = [{"type": "audio", "audio": "a.wav"}, question["content"][1]]
    collate = Hearing(processor=processor, max_length=200, on_overlong=policy)
    found = collate([[{"role": "user", "content": parts}, answer]])
    parts[0] = {"type": "image", "image": spectrogram}
    expected = collator_for(processor)([[{"role": "user", "content": parts}, answer]])
    assert found["input_ids"].tolist() == expected["input_ids"].tolist()
