"""Packs are taken apart into the samples that they were made of."""

import attrs
import pytest
import torch

from vlmcollate import ConfigError
from vlmcollate.extend import Concatenate, Join, PadAndConcatenate, Stack
from vlmcollate.packing.documents import join_documents, unpack
from vlmcollate.sample import EncodedSample

SHAPES = {
    "concatenated": (Concatenate(), [(2, 3), (1, 3)]),
    "padded": (PadAndConcatenate(), [(2, 3, 2), (1, 4, 1)]),
    "stacked": (Stack(), [(3,), (3,)]),
    "stacked scalars": (Stack(), [(), ()]),
    "along the last axis": (Concatenate(axis=-1), [(1, 3, 4), (1, 3, 2)]),
    "alone": (Concatenate(axis=1), [(2, 3), None]),
}


class Summed(Join):
    """A join that no document can be cut from."""

    def join(self, values, key):
        return torch.stack([value.sum() for value in values]).sum()[None, None]


def _sample(value, shape):
    ids = torch.arange(4)
    tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    media = {} if shape is None else {"pixels": torch.rand(shape)}
    return EncodedSample(
        tokens=tokens,
        message_ids=torch.zeros_like(ids),
        media_ids=torch.full_like(ids, -1),
        media=media,
        media_counts={},
        label_strategy=str(value),
    )


def _pack(samples, join):
    positions = [torch.arange(len(sample)) for sample in samples]
    return join_documents(samples, positions, {"pixels": join}, {})


@pytest.mark.parametrize(("join", "shapes"), SHAPES.values(), ids=SHAPES)
def test_unpacking_returns_the_media_of_each_document(join, shapes):
    samples = [_sample(number, shape) for number, shape in enumerate(shapes)]
    parts = unpack(_pack(samples, join))
    for part, sample in zip(parts, samples, strict=True):
        assert part.media.keys() == sample.media.keys()
        for key, value in sample.media.items():
            assert torch.equal(part.media[key], value)
        assert part.label_strategy == sample.label_strategy


def test_media_that_cannot_be_cut_is_refused():
    pack = _pack([_sample(0, (2, 3)), _sample(1, (1, 3))], Summed())
    with pytest.raises(ConfigError, match=r"'pixels' of shape \(1, 1\) cannot be cut"):
        unpack(pack)


def test_a_sample_that_is_no_pack_is_refused():
    with pytest.raises(ConfigError, match="no documents"):
        unpack(attrs.evolve(_sample(0, None)))
