"""Models take bytes once they finish them, to the losses of floats, and raise before."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models.by_family import tiny_model as tiny_model_of
from tests.models.by_processor import MODELS
from tests.processors import processor_of
from tests.processors.cases import CASES
from tests.processors.families import FAMILIES
from vlmcollate import collator_for, finish_pixels, normalize_pixels
from vlmcollate.errors import ConfigError, UnfinishedPixelsError
from vlmcollate.pixels import PixelBytes
from vlmcollate.pixels.finishing import FinishesPixels
from vlmcollate.testing import tiny_model, tiny_processor


def chat(seed, *, images=1, answer="A red door."):
    random = np.random.default_rng(seed)
    noise = [
        {"type": "image", "image": Image.fromarray(random.integers(0, 256, (40, 48, 3), np.uint8))}
        for _ in range(images)
    ]
    return [
        {"role": "user", "content": [*noise, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": answer},
    ]


CHATS = [chat(0), chat(1, images=2, answer="Two of them, side by side.")]


def _batches(processor, chats=CHATS, **options):
    floats = collator_for(processor, **options)(chats)
    return floats, collator_for(processor, pixels="uint8", **options)(chats)


def _check_model(model, floats, unfinished):
    kept = [key for key, value in unfinished.items() if isinstance(value, PixelBytes)]
    assert kept
    with pytest.raises(UnfinishedPixelsError, match=r"finish_pixels\(model\)"):
        model(**unfinished)
    expected = model(**floats).loss
    finish_pixels(model)
    finish_pixels(model)  # a second call changes nothing
    assert torch.equal(model(**unfinished).loss, expected)
    assert torch.equal(model(**floats).loss, expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_raises_until_it_finishes_pixels(name):
    processor = processor_of(name)
    _check_model(tiny_model_of(name, processor).eval(), *_batches(processor))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_the_default_collator_raises_until_it_finishes_pixels(name):
    case = CASES[name]
    processor = case.processor()
    options = dict(case.options)
    try:
        floats, unfinished = _batches(processor, CHATS[:1], **options)
    except ConfigError as error:
        assert 'pixels="uint8" has no effect' in str(error)
        return
    _check_model(MODELS[name](processor).eval(), floats, unfinished)


def test_generation_finishes_pixels_once(finished_pixels):
    processor = tiny_processor()
    model = tiny_model(processor).eval()
    floats, unfinished = _batches(processor, [chat(0), chat(1)])
    left = {"input_ids", "attention_mask", "pixel_values", "image_grid_thw"}
    left |= {"mm_token_type_ids"} & floats.keys()
    options = {"max_new_tokens": 4, "do_sample": False, "num_beams": 2, "pad_token_id": 0}
    expected = model.generate(**{key: floats[key] for key in left}, **options)
    with pytest.raises(UnfinishedPixelsError):
        model.generate(**{key: unfinished[key] for key in left}, **options)
    finish_pixels(model)
    found = model.generate(**{key: unfinished[key] for key in left}, **options)
    assert torch.equal(found, expected)
    assert len(finished_pixels) == 1


def test_features_are_those_of_floats(finished_pixels):
    processor = tiny_processor()
    model = tiny_model(processor).eval()
    floats, unfinished = _batches(processor)
    grid = {"image_grid_thw": floats["image_grid_thw"]}
    expected = model.get_image_features(pixel_values=floats["pixel_values"], **grid)
    finish_pixels(model)
    found = model.get_image_features(pixel_values=unfinished["pixel_values"], **grid)
    for a, b in zip(found.pooler_output, expected.pooler_output, strict=True):
        assert torch.equal(a, b)
    assert len(finished_pixels) == 1


def test_copies_and_pickles_of_a_model_finish_pixels():
    processor = tiny_processor()
    model = tiny_model(processor).eval()
    floats, unfinished = _batches(processor)
    expected, kind = model(**floats).loss, type(model)
    finish_pixels(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(other, kind)
        assert isinstance(other, FinishesPixels)
        assert other is not model
        assert torch.equal(other(**unfinished).loss, expected)
    assert type(model).__name__ == kind.__name__


def test_a_saved_model_loads_as_its_own_class(tmp_path):
    model = tiny_model(tiny_processor())
    kind = type(model)
    finish_pixels(model)
    model.save_pretrained(tmp_path)
    assert type(kind.from_pretrained(tmp_path)) is kind


def test_gradient_checkpointing_finishes_pixels_once_a_step(finished_pixels):
    processor = tiny_processor()
    model = tiny_model(processor)
    _, unfinished = _batches(processor)
    finish_pixels(model)
    model.gradient_checkpointing_enable()
    model.train()
    model(**unfinished).loss.backward()
    assert len(finished_pixels) == 1


@pytest.mark.parametrize("is_wrapped_first", [True, False])
def test_peft_finishes_pixels_once_a_step(is_wrapped_first, finished_pixels):
    peft = pytest.importorskip("peft", reason="the extra vlmcollate[examples] installs peft")
    processor = tiny_processor()
    model = tiny_model(processor).eval()
    floats, unfinished = _batches(processor)
    expected = model(**floats).loss
    if not is_wrapped_first:
        finish_pixels(model)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"]))
    if is_wrapped_first:
        finish_pixels(wrapped)
    assert torch.equal(wrapped(**unfinished).loss, expected)
    assert len(finished_pixels) == 1


def test_what_is_no_model_is_refused():
    with pytest.raises(ConfigError, match=r"found Trainer, expected a torch\.nn\.Module"):
        finish_pixels(type("Trainer", (), {})())


def test_a_batch_is_finished_without_a_model():
    floats, unfinished = _batches(tiny_processor())
    found = normalize_pixels(unfinished, "cpu")
    assert found.keys() == floats.keys()
    for key, value in floats.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value)
    halves = normalize_pixels(unfinished, dtype=torch.bfloat16)
    assert torch.equal(halves["pixel_values"], floats["pixel_values"].bfloat16())
