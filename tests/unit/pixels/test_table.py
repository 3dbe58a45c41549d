"""Tables from bytes to what a processor makes of them."""

from __future__ import annotations

import json
import pickle

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2VLImageProcessor

from tests.processors import build
from vlmcollate.pixels import CHANNELS, PixelTable, as_bytes, table_of
from vlmcollate.pixels import table as table_module

MEAN, DEVIATION = torch.tensor([120.5, 110.0, 100.25]), torch.tensor([60.0, 55.5, 50.0])
LOOKED_UP = PixelTable(torch.randn(3, 256, generator=torch.manual_seed(0)), "first")
SHAPES = {"flat": (7, 3 * 14), "first": (2, 3, 5, 6), "last": (4, 5, 6, 3)}


def _tables(channels):
    return [
        PixelTable.computed(MEAN, DEVIATION, channels),
        PixelTable(LOOKED_UP.values, channels),
        PixelTable(LOOKED_UP.values.bfloat16(), channels),
    ]


def _expected(table, pixels):
    """Looks up one value after another."""
    shape, number = pixels.shape, len(table.values)
    out = torch.empty(shape, dtype=table.values.dtype)
    flat, found = pixels.reshape(-1), out.reshape(-1)
    for place, value in enumerate(flat.tolist()):
        if table.channels == "flat":
            channel = place % shape[-1] // (shape[-1] // number)
        elif table.channels == "first":
            channel = place // (shape[-1] * shape[-2]) % number
        else:
            channel = place % number
        found[place] = table.values[channel, value]
    return out


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kind", range(3))
def test_every_value_is_that_of_its_channel(channels, kind):
    table = _tables(channels)[kind]
    pixels = torch.randint(0, 256, SHAPES[channels], dtype=torch.uint8)
    assert torch.equal(table(pixels), _expected(table, pixels))
    assert torch.equal(table(pixels, torch.bfloat16), _expected(table, pixels).bfloat16())


@given(rows=st.integers(0, 300), width=st.integers(1, 400))
def test_blocks_do_not_show(rows, width):
    table = PixelTable.computed(MEAN, DEVIATION, "flat")
    pixels = torch.randint(0, 256, (rows, 3 * width), dtype=torch.uint8)
    whole = (pixels.view(rows, 3, width).float() - MEAN[:, None]) / DEVIATION[:, None]
    assert torch.equal(table(pixels), whole.view(rows, 3 * width))


@pytest.mark.parametrize(
    ("channels", "repeats"), [("flat", 1), ("flat", 2), ("first", 1), ("last", 1)]
)
@pytest.mark.parametrize("size", [1, 7, 30, 31, 90, 1000])
@pytest.mark.parametrize("copies", [False, True])
def test_the_size_of_blocks_does_not_show(monkeypatch, channels, size, repeats, copies):
    monkeypatch.setattr(table_module, "_BLOCK", size)
    pixels = torch.randint(0, 256, SHAPES[channels], dtype=torch.uint8)
    scratch = torch.empty(0)
    for table in _tables(channels):
        table = attrs.evolve(table, repeats=repeats)
        expected = _expected(table, pixels)
        if repeats > 1:
            expected = expected.view(7, 1, -1).expand(7, repeats, -1)
            expected = expected.unflatten(-1, (3, -1)).transpose(1, 2).reshape(7, -1)
        for dtype in (torch.float32, torch.bfloat16):
            found = torch.empty(expected.shape, dtype=dtype)
            places: list[bool] = []

            def copy(place, values, places=places):
                places.append(place.is_contiguous())
                place.copy_(values)

            table.write(pixels, found, copy=copy if copies else None, scratch=scratch)
            assert torch.equal(found, expected.to(dtype))
            assert all(places)


@pytest.mark.parametrize("channels", CHANNELS)
def test_copies_are_equal(channels):
    for table in _tables(channels):
        copies = (
            pickle.loads(pickle.dumps(table)),
            PixelTable.from_dict(json.loads(json.dumps(table.to_dict()))),
        )
        for copy in copies:
            assert copy == table
            assert hash(copy) == hash(table)
            assert (copy.mean is None) == (table.mean is None)


def test_tables_differ_by_values_channels_and_dtype():
    table = PixelTable.computed(MEAN, DEVIATION, "first")
    assert table != PixelTable.computed(MEAN + 1, DEVIATION, "first")
    assert table != PixelTable.computed(MEAN, DEVIATION, "last")
    assert table != PixelTable(table.values.bfloat16(), "first")
    assert table != "table"


def test_a_table_is_what_the_processor_makes_of_each_byte():
    part = build("qwen2_5_vl").image_processor
    table = table_of(part, "first")
    assert table is not None
    assert table.mean is not None
    image = torch.arange(256, dtype=torch.uint8).repeat(3, 1, 1)
    own = part.rescale_and_normalize(
        image[None],
        do_rescale=True,
        rescale_factor=part.rescale_factor,
        do_normalize=True,
        image_mean=part.image_mean,
        image_std=part.image_std,
    )
    assert torch.equal(table(image[None]), own)


@pytest.mark.parametrize("option", ["do_rescale", "do_normalize"])
def test_a_processor_that_leaves_a_step_out_has_no_table(option):
    assert table_of(Qwen2VLImageProcessor(**{option: False})) is None
    assert table_of(object()) is None


def test_only_whole_bytes_are_bytes():
    table = PixelTable.computed(MEAN, DEVIATION, "first")
    image = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    for dtype in (torch.uint8, torch.float32, torch.bfloat16):
        found = as_bytes(image.to(dtype), table)
        assert found is not None
        assert torch.equal(found, image)
    for wrong in (-1.0, 0.5, 256.0, float("nan"), float("inf")):
        changed = image.float()
        changed[0, 1, 2, 3] = wrong
        assert as_bytes(changed, table) is None
    assert as_bytes(image.int(), table) is None
    assert as_bytes(image[:, :2], table) is None
