"""A collator that runs while another batch is being collated changes nothing in that batch."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from vlmcollate import BaseCollator, EncodedSample, LocalMedia, collator_for
from vlmcollate.extend import Conversation, Join
from vlmcollate.media import Concatenate
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.testing import tiny_processor

LARGE = 1 << 20
"""The pixels of each sample take more bytes than this, so that batches lie in pooled memory."""


def chat(*greys: int) -> list[dict[str, Any]]:
    """A question about four images a grey."""
    parts = [
        {"type": "image", "image": Image.fromarray(np.full((112, 112, 3), grey, np.uint8))}
        for grey in greys
        for _ in range(4)
    ]
    question = [*parts, {"type": "text", "text": "Which grey?"}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": str(greys)}]


ROWS = [chat(10), chat(60), chat(110), chat(200)]
OTHERS = [chat(5), chat(77, 99), chat(33)]


@pytest.fixture(scope="module")
def processor():
    return tiny_processor("qwen2_5_vl")


@pytest.fixture(scope="module")
def collate(processor) -> BaseCollator:
    return collator_for(processor)


@pytest.fixture(scope="module")
def expected(collate):
    batch = {key: value.clone() for key, value in collate(ROWS).items()}
    for row in ROWS:
        assert collate.encode(row).media["pixel_values"].nbytes > LARGE
    # one value a channel in each image, rising with the grey
    first = batch["pixel_values"].view(len(ROWS), -1)[:, 0]
    assert (first.diff() > 0).all()
    return batch


def same(batch: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return batch.keys() == expected.keys() and all(
        torch.equal(batch[key], expected[key]) for key in expected
    )


@attrs.frozen(kw_only=True, eq=False)
class ReadsTwice(Qwen2_5_VLCollator):
    """Collates another batch while it reads an example."""

    meanwhile: Callable[[], object]

    def read(self, example: object) -> Conversation:
        self.meanwhile()
        return super().read(example)


@attrs.frozen(kw_only=True)
class LoadsTwice(LocalMedia):
    """Collates another batch while it loads an image."""

    meanwhile: Callable[[], object]

    def load_image(self, source: object, *, where: str) -> Image.Image:
        self.meanwhile()
        return super().load_image(source, where=where)


class Lazy(list[Any]):
    """Examples that are made, by collating others, when they are asked for."""

    def __init__(self, rows: list[Any], meanwhile: Callable[[], object]) -> None:
        super().__init__(rows)
        self.meanwhile = meanwhile

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            yield row
            self.meanwhile()


@pytest.mark.parametrize("place", ["hook", "examples", "read", "media"])
def test_a_collator_called_inside_a_call(
    processor, collate: BaseCollator, expected, place: str
) -> None:
    def meanwhile() -> None:
        collate(OTHERS)

    def failed(_: object) -> list[EncodedSample]:
        meanwhile()
        return [collate.encode(ROWS[2])]

    outer = {
        "hook": lambda: collate.collate([*ROWS[:2], {"broken": 1}, ROWS[3]], on_error=failed),
        "examples": lambda: collate(Lazy(ROWS, meanwhile)),
        "read": lambda: ReadsTwice(processor=processor, meanwhile=meanwhile)(ROWS),
        "media": lambda: collator_for(processor, media=LoadsTwice(meanwhile=meanwhile))(ROWS),
    }[place]
    kept = [outer() for _ in range(3)]
    assert all(same(batch, expected) for batch in kept)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_collator_called_by_a_signal_handler(collate, expected):
    runs: list[int] = []

    def handler(*_: object) -> None:
        runs.append(len(collate(OTHERS)))
        signal.setitimer(signal.ITIMER_REAL, 0.007)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.003)
        batches = [collate(ROWS) for _ in range(8)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert runs
    assert all(same(batch, expected) for batch in batches)


def test_eight_threads(collate, expected):
    def work(number: int) -> bool:
        rows = [*ROWS[number % 4 :], *ROWS[: number % 4]]
        pixels = expected["pixel_values"].view(len(ROWS), -1).roll(-(number % 4), 0)
        return torch.equal(collate(rows)["pixel_values"].view(len(ROWS), -1), pixels)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork(collate, expected):
    held = collate(ROWS)  # memory that the child has to leave alone, too
    receiving, sending = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        collate(OTHERS)
        sending.send(same(collate(ROWS), expected) and same(held, expected))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert receiving.poll(60) and receiving.recv()
    process.join()
    assert same(held, expected) and same(collate(ROWS), expected)


@pytest.mark.parametrize("place", ["read", "media"])
def test_an_explanation_holds_nothing_of_a_sample_that_a_stage_encodes(processor, collate, place):
    def meanwhile() -> None:
        collate.encode(chat(42, 42))

    def explanation(action: Callable[[], object]) -> Any:
        if place == "read":
            return ReadsTwice(processor=processor, meanwhile=action).explain(ROWS[0])
        return collator_for(processor, media=LoadsTwice(meanwhile=action)).explain(ROWS[0])

    alone, nested = explanation(lambda: None), explanation(meanwhile)
    assert nested.prompt == alone.prompt
    assert nested.texts == alone.texts
    assert nested.warnings == alone.warnings
    assert len(nested.media) == len(alone.media) == 4


class Whole(Join):
    """Joins one sample's tensor as it is."""

    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        del key
        return values[0]


@pytest.mark.parametrize("join", [Whole(), Concatenate()])
def test_a_batch_shares_no_memory_with_its_samples(join):
    value = torch.ones(3, 4)
    joined = join([value], key="pixel_values")
    joined += 1
    assert (value == 1).all()
