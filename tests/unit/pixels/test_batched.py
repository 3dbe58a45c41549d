"""Pixels of a batch as bytes."""

from __future__ import annotations

import copy
import math
import operator
import os
import pickle
import resource
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from numbers import Number
from typing import Any
from weakref import WeakKeyDictionary

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing import get_all_sharing_strategies, set_sharing_strategy
from torch.utils.data import DataLoader

from vlmcollate import EncodedSample, split_microbatches
from vlmcollate.batch.media import joined_media, with_float_pixels
from vlmcollate.errors import ConfigError, UnfinishedPixelsError
from vlmcollate.media import Concatenate, PadAndConcatenate
from vlmcollate.pixels import (
    CHANNELS,
    PIXEL_FORMATS,
    Channels,
    PixelBytes,
    PixelTable,
    normalize_pixels,
)

MEAN, DEVIATION = torch.tensor([120.5, 110.0, 100.25]), torch.tensor([60.0, 55.5, 50.0])


def _table(channels="first"):
    return PixelTable.computed(MEAN, DEVIATION, channels)


def _bytes():
    return PixelBytes(torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8), _table())


def _sample(pixels, table=None):
    ids = torch.tensor([1])
    tables = {} if pixels is None or table is None else {"pixel_values": table}
    media = {} if pixels is None else {"pixel_values": pixels}
    return EncodedSample(
        tokens={"input_ids": ids}, message_ids=ids, media_ids=ids, media=media, pixel_tables=tables
    )


_BINARY = [
    *(operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge),
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv),
    *(operator.mod, divmod, operator.pow, operator.matmul, operator.lshift, operator.rshift),
    *(operator.and_, operator.or_, operator.xor, operator.iadd, operator.imul),
]


def _with_a_number(operate):
    return lambda pixels: operate(pixels, 0)


@pytest.mark.parametrize(
    "use",
    [
        lambda pixels: pixels + 1,
        lambda pixels: torch.ones(1) * pixels,
        lambda pixels: torch.cat([pixels, pixels]),
        lambda pixels: torch.is_floating_point(pixels),
        lambda pixels: torch.nn.functional.linear(pixels, torch.ones(1, 5)),
        lambda pixels: torch.nn.Conv2d(3, 1, 2)(pixels),
        lambda pixels: pixels.to(torch.float32),
        lambda pixels: pixels.to(dtype=torch.float32),
        lambda pixels: pixels.to("cpu", torch.bfloat16),
        lambda pixels: pixels.to(torch.ones(1)),
        lambda pixels: pixels.type(torch.float32),
        lambda pixels: pixels.view(-1),
        lambda pixels: pixels.float(),
        lambda pixels: pixels[0],
        lambda pixels: list(pixels),
        lambda pixels: np.asarray(pixels),
        lambda pixels: torch.as_tensor(pixels),
        lambda pixels: torch.tensor(pixels),
        lambda pixels: torch.ones(1).new_tensor(pixels),
        lambda pixels: torch.ones(2)[pixels],
        lambda pixels: np.ones(3) * pixels,
        lambda pixels: operator.setitem(pixels, 0, 1),
        lambda pixels: next(iter(pixels)),
        lambda pixels: 0 in pixels,
        lambda pixels: sum(pixels),
        lambda pixels: range(pixels),
        lambda pixels: math.floor(pixels),
        *(bool, int, float, complex, round, abs, bytes),
        *(operator.neg, operator.pos, operator.invert, operator.not_),
        *map(_with_a_number, _BINARY),
    ],
)
def test_every_use_as_a_tensor_raises(use):
    with pytest.raises(UnfinishedPixelsError, match=r"finish_pixels\(model\)"):
        use(_bytes())


@pytest.mark.parametrize("operate", _BINARY)
def test_a_number_before_it_raises_as_well(operate):
    for other in (2, 0.5, None, _bytes()):
        with pytest.raises(UnfinishedPixelsError):
            operate(other, _bytes())


def test_it_is_an_object_of_its_own():
    pixels, other = _bytes(), _bytes()
    assert {pixels: "a", other: "b"}[other] == "b"
    assert len({pixels, pixels, other}) == 2
    assert [other, pixels].index(other) == 0
    assert WeakKeyDictionary({pixels: "a"})[pixels] == "a"
    holder = attrs.make_class("Holder", ["pixels"], frozen=True)
    assert holder(pixels) == holder(pixels)
    # trainers search whatever they can iterate over for the size of a batch
    assert not isinstance(pixels, Iterable | Sequence | Number)


def test_the_error_names_the_use_and_the_remedy():
    with pytest.raises(UnfinishedPixelsError, match=r"found relu used on them.*finish_pixels"):
        torch.relu(_bytes())


def test_attributes_may_be_looked_for():
    assert not hasattr(_bytes(), "is_floating_point")
    assert getattr(_bytes(), "grad_fn", None) is None


def test_it_moves_as_a_tensor_does():
    pixels = _bytes()
    for moved in (
        pixels.to("cpu", non_blocking=True),
        pixels.to(torch.device("cpu")),
        pixels.to(device="cpu"),
        pickle.loads(pickle.dumps(pixels)),
        copy.deepcopy(pixels),
    ):
        assert torch.equal(moved.values, pixels.values)
        assert moved.table == pixels.table
    assert (pixels.shape, pixels.numel(), pixels.nbytes) == ((2, 3, 4, 5), 120, 120)
    assert len(pixels) == 2
    assert repr(pixels) == "PixelBytes(shape=(2, 3, 4, 5), device=cpu)"


def test_a_loader_passes_it_on():
    pixels = _bytes()
    rows: list[int] = [0]
    for workers in (0, 1):
        (found,) = DataLoader(rows, collate_fn=lambda _: {"x": pixels}, num_workers=workers)  # type: ignore[arg-type]
        assert torch.equal(found["x"].finished(), pixels.finished())


@st.composite
def _batches(draw):
    """Draws tables, samples with and without pixels, and their join."""
    channels = draw(st.sampled_from(CHANNELS))
    table = _table(channels)
    join = draw(
        st.sampled_from(
            [Concatenate(), PadAndConcatenate(), PadAndConcatenate(value=-1.5, every_sample=True)]
        )
    )
    size, is_equal = st.integers(1, 4), isinstance(join, Concatenate)
    same = draw(size), draw(size)
    tails = []
    for _ in range(draw(st.integers(1, 4))):
        height, width = same if is_equal else (draw(size), draw(size))
        tails.append({"flat": (height, 3 * same[1]), "first": (3, height, width)}.get(
            channels, (height, width, 3)
        ))  # fmt: skip
    samples = [
        _sample(torch.randint(0, 256, (draw(size), *tail), dtype=torch.uint8), table)
        for tail in tails
    ]
    missing = [_sample(None)] * draw(st.integers(0, 2))
    return draw(st.permutations([*samples, *missing])), join


@given(_batches())
def test_every_format_is_the_join_of_the_floats(drawn):
    samples, join = drawn
    joins = {"pixel_values": join}
    values = [s.pixels("pixel_values") if s.media else None for s in samples]
    like = next(value for value in values if value is not None)
    filled = [join.fill_missing(like) if value is None else value for value in values]
    expected = join([value for value in filled if value is not None], key="pixel_values")
    batches: dict[str, dict[str, Any]] = {
        name: {**joined_media(samples, joins, name)} for name in PIXEL_FORMATS
    }
    assert torch.equal(batches["float32"]["pixel_values"], expected)
    assert torch.equal(batches["bfloat16"]["pixel_values"], expected.bfloat16())
    assert isinstance(batches["uint8"]["pixel_values"], PixelBytes)
    assert torch.equal(normalize_pixels(batches["uint8"])["pixel_values"], expected)
    rows = batches["uint8"]["pixel_values"].split([1] * len(expected))
    assert torch.equal(torch.cat([row.finished() for row in rows]), expected)


def test_padding_covers_the_repeats_of_flat_patches():
    table = attrs.evolve(_table("flat"), repeats=2)
    rows = torch.randint(0, 256, (1, 2, 6), dtype=torch.uint8)
    samples = [_sample(rows, table), _sample(None)]
    joins = {"pixel_values": PadAndConcatenate(value=-1.5, every_sample=True)}
    expected = joined_media(samples, joins, "float32")["pixel_values"]
    found = joined_media(samples, joins, "uint8")["pixel_values"]
    assert isinstance(expected, torch.Tensor)
    assert isinstance(found, PixelBytes)
    assert torch.equal(found.finished(), expected)
    assert torch.equal(expected, torch.cat([table(rows), torch.full((1, 2, 12), -1.5)]))


@pytest.mark.parametrize("name", PIXEL_FORMATS)
def test_a_batch_with_floats_of_one_sample_holds_floats(name):
    table = _table()
    pixels = torch.randint(0, 256, (1, 3, 4, 5), dtype=torch.uint8)
    samples = [_sample(pixels, table), _sample(table(pixels))]
    found = joined_media(samples, {"pixel_values": Concatenate()}, name)["pixel_values"]
    expected = torch.cat([table(pixels)] * 2)
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, expected.bfloat16() if name == "bfloat16" else expected)


def test_microbatches_hold_bytes():
    batch = {"input_ids": torch.zeros(2, 4), "pixel_values": _bytes()}
    batch["n_images_per_sample"] = torch.tensor([0, 2])
    first, second = split_microbatches(batch, 2, items={"pixel_values": "image"})
    assert "pixel_values" not in first
    assert torch.equal(second["pixel_values"].finished(), batch["pixel_values"].finished())


def test_bytes_without_a_declaration_are_refused_as_floats_are():
    batch = {"input_ids": torch.zeros(2, 4), "n_images_per_sample": torch.tensor([1, 1])}
    for pixels in (_bytes(), _bytes().finished()):
        with pytest.raises(ConfigError, match=r"not declared; pass items=collator\.family\.joins"):
            split_microbatches({**batch, "pixel_values": pixels}, 2)
        unknown = {"pixel_values": Concatenate(rows=None)}
        with pytest.raises(ConfigError, match="since its join has rows=None"):
            split_microbatches({**batch, "pixel_values": pixels}, 2, items=unknown)


def _large(channels: Channels, sizes: Sequence[int], repeats: int) -> Iterator[EncodedSample]:
    """Samples with bytes that take more than 4 MiB in a batch of any format."""
    table = attrs.evolve(_table(channels), repeats=repeats)
    for size in sizes:
        shape = {"flat": (size, 3 * 1000), "first": (1, 3, 1200, size), "last": (1, 1200, size, 3)}
        yield _sample(torch.randint(0, 256, shape[channels], dtype=torch.uint8), table)


WORKERS = st.fixed_dictionaries(
    {
        "channels": st.sampled_from(CHANNELS),
        "sizes": st.sampled_from([(1200, 1200), (1200, 900, 1203), (1999,)]),
        "repeats": st.sampled_from([1, 2]),
        "pixels": st.sampled_from(PIXEL_FORMATS),
        "holds_floats": st.booleans(),
    }
)


@pytest.mark.parametrize("strategy", sorted(get_all_sharing_strategies()))
@settings(max_examples=12)
@given(chosen=WORKERS)
def test_a_worker_writes_the_pixels_of_a_batch_where_it_sends_them(strategy, chosen):
    channels, repeats, pixels = chosen["channels"], chosen["repeats"], chosen["pixels"]
    repeats = repeats if channels == "flat" else 1
    samples = list(_large(channels, chosen["sizes"], repeats))
    if chosen["holds_floats"]:
        samples[0] = with_float_pixels(samples[0])
    joins: Any = {"pixel_values": Concatenate() if channels == "flat" else PadAndConcatenate()}

    def collate(samples: Any) -> Any:
        made: Any = joined_media(samples, joins, pixels)["pixel_values"]
        return made, (made.values if isinstance(made, PixelBytes) else made).is_shared()

    loader: Any = DataLoader(
        samples,  # type: ignore[arg-type]  # a list is map-style
        batch_size=len(samples),
        collate_fn=collate,
        num_workers=1,
        worker_init_fn=lambda _: set_sharing_strategy(strategy),
    )
    ((sent, is_shared),) = loader
    made, is_shared_here = collate(samples)
    assert not is_shared_here
    assert is_shared or (chosen["holds_floats"] and strategy == "file_system")
    assert type(sent) is type(made)
    if isinstance(made, PixelBytes):
        assert torch.equal(sent.finished(), made.finished())
        sent, made = sent.values, made.values
    assert torch.equal(sent, made)


def test_a_worker_that_may_open_no_more_files_keeps_its_batches_elsewhere():
    samples = [_sample(torch.full((1, 3, 1200, 1200), 1, dtype=torch.uint8), _table())]

    def collate(samples: Any) -> Any:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 4, most))
        joins = {"pixel_values": Concatenate()}
        made: list[Any] = [joined_media(samples, joins, "float32") for _ in range(12)]
        return [bool(torch.equal(a["pixel_values"], b["pixel_values"])) for a, b in pairwise(made)]

    loader: Any = DataLoader(samples, batch_size=1, collate_fn=collate, num_workers=1)  # type: ignore[arg-type]
    assert list(loader) == [[True] * 11]


def test_a_batch_that_shared_memory_has_no_room_for_is_refused():
    samples = [_sample(torch.full((1, 3, 1200, 1200), 1, dtype=torch.uint8), _table())]

    def collate(samples: Any) -> Any:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, most))  # of files in memory, too
        return joined_media(samples, {"pixel_values": Concatenate()}, "float32")

    loader: Any = DataLoader(samples, batch_size=1, collate_fn=collate, num_workers=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no room for the 16 MiB of a batch that a worker sends"):
        list(loader)
