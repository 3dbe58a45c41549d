"""Rows of several sources in one batch, each with the options of its source."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.processors import qwen
from tests.unit.mixture.sources import Numbers
from vlmcollate import (
    BlockCausalMask,
    ConfigError,
    LocalMedia,
    PadToLength,
    Resample,
    RobustCollator,
    collator_for,
    plan_packs,
)
from vlmcollate.data import EncodedDataset, EncodedIterableDataset
from vlmcollate.errors import ConversationError, MediaError, SampleTooLongError
from vlmcollate.mixture import IterableMixture, Mixture, MixtureRow
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.objectives import ClassificationCollator
from vlmcollate.testing import tiny_processor


def chat(text, answer="Yes", **part):
    content = [{"type": "text", "text": text}]
    if part:
        content.insert(0, part)
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def chart(size=(112, 112), **options):
    return chat("What?", type="image", image=Image.new("RGB", size, "teal"), **options)


LLAVA = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}


@pytest.fixture(scope="module")
def collator():
    return collator_for(tiny_processor())


def test_each_source_has_its_own_options(collator):
    mixture = Mixture(
        {"charts": ([chart()], 1), "chat": ([chart()], 1), "old": ([LLAVA], 1)},
        per_source={
            "charts": {"max_pixels": 56 * 56},
            "old": {"format": "llava", "train_on": "last_turn"},
        },
    )
    collate = mixture.collator(collator)
    rows = {row.source: row for row in map(mixture.__getitem__, range(20))}
    small, large = collate.encode(rows["charts"]), collate.encode(rows["chat"])
    assert small.media["pixel_values"].shape[0] < large.media["pixel_values"].shape[0]
    limited = collator.encode(chart(max_pixels=56 * 56))
    assert torch.equal(small.input_ids, limited.input_ids)
    assert torch.equal(small.media["pixel_values"], limited.media["pixel_values"])
    assert torch.equal(large.input_ids, collator.encode(chart()).input_ids)
    assert collate.explain(rows["old"]).format == "llava"


def test_a_batch_is_that_of_the_samples(collator):
    mixture = Mixture({"charts": ([chart()], 1), "chat": ([chat("Hi")], 1)}, samples=8, seed=2)
    rows = list(mixture)
    batch = mixture.collator(collator)(rows)
    plain = collator([row.row for row in rows])
    assert batch.keys() == plain.keys()
    assert all(torch.equal(batch[key], plain[key]) for key in batch)


def test_an_item_keeps_the_size_that_it_sets(collator):
    row = chart(max_pixels=28 * 28)
    mixture = Mixture({"charts": ([row], 1)}, per_source={"charts": {"max_pixels": 56 * 56}})
    found = mixture.collator(collator).encode(mixture[0])
    assert torch.equal(found.input_ids, collator.encode(row).input_ids)


def test_the_root_of_media_may_differ(collator, tmp_path):
    per_source = {}
    for name, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (56, 56), colour).save(tmp_path / name / "1.png")
        per_source[name] = {"media": LocalMedia(root=tmp_path / name)}
    row = chat("What?", type="image", image="1.png")
    mixture = Mixture({"a": ([row], 1), "b": ([row], 1)}, per_source=per_source, samples=10)
    collate = mixture.collator(collator)
    pixels = {row.source: collate.encode(row).media["pixel_values"] for row in mixture}
    assert not torch.equal(pixels["a"], pixels["b"])


def test_it_works_in_workers_and_is_pickled(collator):
    mixture = Mixture(
        {"charts": ([chart()], 1), "chat": ([chat("Hi"), chat("Ho")], 1)},
        samples=8,
        per_source={"charts": {"max_pixels": 56 * 56}},
    )
    collate = pickle.loads(pickle.dumps(mixture.collator(collator)))
    batches = [
        list(
            DataLoader(
                mixture,
                batch_size=4,
                sampler=mixture.sampler(),
                collate_fn=collate,
                num_workers=workers,
            )
        )
        for workers in (0, 2)
    ]
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_encoded_datasets_and_packs_take_a_mixture(collator):
    sources = {"charts": ([chart()], 1), "chat": ([chat("Hi")], 1)}
    mixture = Mixture(sources, samples=6, per_source={"charts": {"max_pixels": 56 * 56}})
    packer = collator_for(tiny_processor(), padding=BlockCausalMask())
    collate = mixture.collator(packer)
    samples = list(map(EncodedDataset(mixture, collate).__getitem__, range(6)))
    streamed = EncodedIterableDataset(IterableMixture(mixture.sources, samples=6), collate)
    assert [len(sample) for sample in streamed] == [len(sample) for sample in samples]
    plan = plan_packs([len(sample) for sample in samples], max_length=512)
    batch = collate.stack([collate.pack([samples[i] for i in pack]) for pack in plan])
    assert batch["attention_mask"].ndim == 4


def test_rows_that_are_encoded_already_pass(collator):
    encoded = collator.encode(chat("Hi"))
    mixture = Mixture({"prepared": ([encoded], 1), "chat": ([chat("Ho")], 1)}, samples=4)
    assert len(mixture.collator(collator)(list(mixture))["input_ids"]) == 4
    options = {"prepared": {"train_on": "last_turn"}}
    changed = Mixture({"prepared": ([encoded], 1)}, per_source=options)
    with pytest.raises(ConfigError, match=r"per_source\['prepared'\] has no effect"):
        changed.collator(collator)([changed[0]])


def test_an_error_names_the_source_and_the_row(collator):
    bad = chat("What?", type="image", image="missing.png")
    mixture = Mixture({"charts": ([bad], 1), "chat": ([chat("Hi")], 1)}, samples=8)
    collate = mixture.collator(collator)
    charts = next(row for row in mixture if row.source == "charts")
    with pytest.raises(MediaError, match=r"sample 1, .*\(row 0 of the source 'charts'\)"):
        collate([next(row for row in mixture if row.source == "chat"), charts])
    batch = RobustCollator(collator=collate, on_error="skip")(list(mixture))
    assert batch["n_failed_samples"] == sum(row.source == "charts" for row in mixture)
    drawn = RobustCollator(collator=collate, on_error=Resample(mixture, seed=1))(list(mixture))
    assert len(drawn["input_ids"]) == 8


def test_a_source_may_drop_what_another_refuses(collator):
    long = chat("Hi", "yes " * 200)
    options: dict[str, Any] = {
        "a": {"max_length": 64, "on_overlong": "drop"},
        "b": {"max_length": 64},
    }
    mixture = Mixture({"a": ([long], 1), "b": ([chat("Hi")], 1)}, per_source=options, samples=8)
    collate = mixture.collator(collator)
    kept = collate(list(mixture))["input_ids"]
    assert len(kept) == sum(row.source == "b" for row in mixture)
    with pytest.raises(SampleTooLongError, match="row 0 of the source 'b'"):
        collate([MixtureRow(source="b", index=0, row=long)])
    with pytest.raises(ConfigError, match="dummy_sample"):
        RobustCollator(collator=collate, on_error="dummy_sample")


def test_images_and_audio_share_a_batch_or_are_refused(collator):
    audio = chat("What?", type="audio", audio=(np.zeros(8000, np.float32), 16000))
    mixture = Mixture({"charts": ([chart()], 1), "speech": ([audio], 1)}, samples=4, seed=1)
    assert {row.source for row in mixture} == {"charts", "speech"}
    omni = mixture.collator(collator_for(qwen.qwen2_5_omni()))
    batch = omni(list(mixture))
    assert batch["n_images_per_sample"].sum() + batch["n_audios_per_sample"].sum() == 4
    with pytest.raises((MediaError, ConversationError), match="of the source 'speech'"):
        mixture.collator(collator)(list(mixture))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"padding": PadToLength(length=8)},
            "per_source['a'] sets padding, which all rows of a batch",
        ),
        ({"pixels": "uint8"}, "sets pixels, which all rows of a batch share"),
        ({"max_pixels": -1}, "per_source['a'].max_pixels: expected a whole number"),
        ({"min_pixels": 9, "max_pixels": 4}, "sets min_pixels=9 above max_pixels=4"),
        ([("max_pixels", 3)], "per_source['a'] is wrong: found [('max_pixels', 3)]"),
    ],
)
def test_options_that_no_source_can_have_are_refused(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Mixture({"a": (Numbers(0, 3), 1)}, per_source={"a": options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixel": 3}, "sets 'max_pixel', which is no option of Qwen"),
        ({"formt": "llava"}, "did you mean 'format'?"),
        ({"format": "lava"}, "per_source['a']: format is wrong"),
    ],
)
def test_wrong_options_of_a_collator_are_refused(collator, options, message):
    mixture = Mixture({"a": (Numbers(0, 3), 1)}, per_source={"a": options})
    with pytest.raises(ConfigError, match=re.escape(message)):
        mixture.collator(collator)


def test_sizes_that_the_processor_does_not_take_are_refused():
    mixture = Mixture({"a": ([chart()], 1)}, per_source={"a": {"max_pixels": 3136}})
    with pytest.raises(ConfigError, match="takes no limits of pixels; resize the images"):
        mixture.collator(collator_for(tiny_processor("llava")))


class Captions(Qwen2_5_VLCollator):
    """Reads captions."""

    def read(self, example: Any) -> Any:
        return super().read(chat("Describe", example["caption"], **example["part"]))


def test_a_collator_that_reads_rows_itself_reads_each_once():
    row = {"caption": "Teal.", "part": chart()[0]["content"][0]}
    mixture = Mixture({"a": ([row], 1)}, per_source={"a": {"max_pixels": 56 * 56}})
    reading = Captions(processor=tiny_processor())
    sample = mixture.collator(reading).encode(mixture[0])
    assert len(sample) < len(reading.encode(row))


def test_an_error_of_a_source_that_encodes_is_named(collator):
    encoded = EncodedDataset([chat("Hi"), [[]]], collator)
    mixture = Mixture({"a": (encoded, 1)})
    with pytest.raises(ConversationError, match=r"sample 1.*\(row 1 of the source 'a'\)"):
        list(mixture)


def test_rows_without_a_source_and_collators_without_a_mixture_are_refused(collator):
    mixture = Mixture({"a": ([chat("Hi")], 1)})
    with pytest.raises(ConfigError, match="the row is of no mixture: found list"):
        mixture.collator(collator)([chat("Hi")])
    with pytest.raises(ConfigError, match="of the unknown source 'b'"):
        mixture.collator(collator)([MixtureRow(source="b", index=0, row=chat("Hi"))])
    with pytest.raises(ConversationError, match=r"collate it with mixture.collator\(collator\)"):
        collator([mixture[0]])


@pytest.mark.parametrize("per_source", [{}, {"a": {"format": "llava"}}])
def test_a_collator_of_another_objective_is_refused(collator, per_source):
    mixture = Mixture({"a": ([chat("Hi")], 1)}, per_source=per_source)
    for other in (ClassificationCollator(collator, num_labels=2), 5):
        with pytest.raises(ConfigError, match="pass others the rows themselves"):
            mixture.collator(other)  # type: ignore[arg-type]
