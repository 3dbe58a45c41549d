"""Pixels that stay bytes until the batch are those of the processor, bit for bit."""

from __future__ import annotations

import copy
import re

import attrs
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import NIGHTLY
from tests.processors import build
from tests.processors.cases import CASES, in_turns
from vlmcollate import collator_for
from vlmcollate.batch.media import with_float_pixels
from vlmcollate.encode.processor_settings import settings_of
from vlmcollate.errors import CollateError
from vlmcollate.media import Concatenate, MediaRequest, Video
from vlmcollate.media.processing.result import NOT_MEDIA, as_tensor
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator

SERVED = [
    name
    for name, case in CASES.items()
    if case.build is not None and not {"", "image"} & case.error.keys()
]
NO_BYTES = {
    *("DeepseekOcr2Processor", "Emu3Processor", "Gemma4UnifiedProcessor"),
    *("Idefics2Processor", "Inkling2Processor", "InklingProcessor", "KimiVLProcessor"),
    *("Lfm2VlProcessor",),
    *("MllamaProcessor", "NemotronH_Omni_Reasoning_V3Processor", "Phi4MMProcessor"),
    *("Phi4MultimodalProcessor", "Step3p7Processor", "UnlimitedOcrProcessor"),
    *("VideoLlavaProcessor", "Gemma4Processor"),
}
"""Processors whose images are not bytes: they pad, resize or blend after normalising."""


SEVERAL_AS_BYTES = {"Qwen2_5_VLProcessor", "SmolVLMProcessor", "Gemma3Processor"}
"""Processors of which several images of one sample are bytes, among others."""
NO_BYTES_OF_VIDEOS = {
    *("MiniCPMOcrProcessor", "MiniCPMV4_6Processor", "MiniCPMV4_7Processor"),
    *("MiniMaxM3VLProcessor", "Molmo2Processor", "NemotronH_Omni_Reasoning_V3Processor"),
    *("VideoLlama3Processor",),
}
"""Processors whose videos are not bytes."""
EXAMPLES = 20 if NIGHTLY else 3
SEEDS = st.integers(0, 1000)


def _taking(kind):
    return [name for name in SERVED if kind in {*CASES[name].kinds} - CASES[name].error.keys()]


def _collator(name):
    case = CASES[name]
    try:
        return collator_for(case.processor(), **dict(case.options))
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this transformers has no {name}: {error}")


def _image(width, height, seed):
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def _video(frames):
    count = np.arange(len(frames))
    return Video(
        frames=frames,
        times=count / 2,
        indices=count,
        total_frames=len(frames),
        duration=len(frames) / 2,
    )


def _own(collator, kind, items):
    """Returns the tensors of the family's own processing, without any bytes."""
    request = MediaRequest(
        processor=collator.processor,
        kinds=[kind] * len(items),
        items=items,
        texts=[collator.traits.placeholders[kind]] * len(items),
        joins=collator.family.joins,
    )
    found = collator.family.process(request).tensors
    return {key: as_tensor(value) for key, value in found.items() if key not in NOT_MEDIA}


def _check(collator, kind, items):
    found = collator.process_media(_rendering(collator, kind, len(items)), items)
    own = _own(collator, kind, items)
    assert found.tensors.keys() - NOT_MEDIA == own.keys()
    for key, expected in own.items():
        tensor = as_tensor(found.tensors[key])
        if key in found.pixel_tables:
            assert tensor.dtype == torch.uint8
            tensor = found.pixel_tables[key](tensor)
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected), key
    return bool(found.pixel_tables)


def _copies(collator):
    """The settings of the copies of the processor that a collator keeps."""
    copies = [p.processor for p in collator._pixel_plans.values() if p.processor is not None]
    return [settings_of(copy, kind) for copy in copies for kind in ("image", "video")]


def _rendering(collator, kind, count):
    from vlmcollate.prompt.rendering import MediaSpan, Rendering

    placeholder = collator.traits.placeholders[kind]
    spans = [
        MediaSpan(i * len(placeholder), (i + 1) * len(placeholder), -1, kind) for i in range(count)
    ]
    return Rendering(text=placeholder * count, caller_spans=(), media=tuple(spans))


@pytest.mark.parametrize("name", in_turns(_taking("image"), 2))
def test_images_are_those_of_the_processor(name):
    collator = _collator(name)
    used, kept = [], []
    try:
        for seed, size in enumerate([(31, 57), (500, 333), (770, 130)]):
            used.append(_check(collator, "image", [_image(*size, seed)]))
            kept.append(_copies(collator))
        two = [_image(90, 40, 5), _image(64, 300, 6)]
        if CASES[name].most.get("image", 2) > 1:
            _check(collator, "image", two)
    except CollateError as error:
        pytest.skip(str(error))
    assert all(used) == (name not in NO_BYTES)
    assert kept[0] == kept[2] == _copies(collator), "the call of a copy changed it"


@pytest.mark.parametrize("name", in_turns(_taking("video"), 2))
def test_videos_are_those_of_the_processor(name):
    collator = _collator(name)
    frames = np.random.default_rng(0).integers(0, 256, (6, 112, 224, 3), np.uint8)
    video, small = _video(frames), _video(frames[:, ::2, ::2].copy())
    try:
        _check(collator, "video", [video])
        kept = _copies(collator)
        _check(collator, "video", [small])
    except CollateError as error:
        pytest.skip(str(error))
    assert kept == _copies(collator), "the call of a copy changed it"


_STEPS = {"MiniMaxM3VLProcessor": 28}
"""Processors that take videos only whose sides are multiples of a number."""


def _agrees(collator, kind, items):
    """Returns whether the pixels are bytes; `None` if the processor refuses the media."""
    try:
        _own(collator, kind, items)
    except (CollateError, ValueError, RuntimeError) as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            collator.process_media(_rendering(collator, kind, len(items)), items)
        return None
    return _check(collator, kind, items)


def _several(shape, most):
    return st.lists(shape, min_size=1, max_size=most)


def _image_sizes(most):
    """Draws widths and heights, of which the greater is at most fifty times the other."""
    side = st.integers(8, 900)
    size = st.tuples(side, side).map(lambda s: (max(s[0], s[1] // 50), max(s[1], s[0] // 50)))
    return _several(size, most)


def _video_shapes(most, step):
    """Draws numbers of frames, heights and widths."""
    number = st.integers(1, 9).map(lambda number: 10 - number)  # some models refuse one frame
    side = st.integers(30 // step + 1, 300 // step).map(lambda side: side * step)
    return _several(st.tuples(number, side, side), most)


def _noise_videos(shapes, seed):
    random = np.random.default_rng(seed)
    return [_video(random.integers(0, 256, (*shape, 3), np.uint8)) for shape in shapes]


@pytest.mark.parametrize("name", _taking("image"))
@settings(max_examples=EXAMPLES)
@given(data=st.data(), seed=SEEDS)
def test_images_of_any_size_are_those_of_the_processor(name, data, seed):
    collator = _collator(name)
    sizes = data.draw(_image_sizes(CASES[name].most.get("image", 2)))
    images = [_image(width, height, seed + i) for i, (width, height) in enumerate(sizes)]
    used = _agrees(collator, "image", images)
    assume(used is not None)
    is_open = len(sizes) > 1 and name not in SEVERAL_AS_BYTES
    assert is_open or used == (name not in NO_BYTES)


@pytest.mark.parametrize("name", _taking("video"))
@settings(max_examples=EXAMPLES)
@given(data=st.data(), seed=SEEDS)
def test_videos_of_any_size_and_length_are_those_of_the_processor(name, data, seed):
    collator = _collator(name)
    shapes = data.draw(_video_shapes(CASES[name].most.get("video", 2), _STEPS.get(name, 1)))
    used = _agrees(collator, "video", _noise_videos(shapes, seed))
    assume(used is not None)
    assert used == (name not in NO_BYTES_OF_VIDEOS) or len(shapes) > 1


class _Doubles(Qwen2_5_VLCollator):
    """A subclass that knows nothing of bytes."""

    def process_media(self, rendering, media):
        found = super().process_media(rendering, media)
        tensors = dict(found.tensors)
        assert tensors["pixel_values"].is_floating_point()
        return attrs.evolve(found, tensors={**tensors, "pixel_values": tensors["pixel_values"] * 2})


class _Floats(Qwen2_5_VLCollator):
    """A subclass for a processor that the probe media does not show as it is."""

    def process_media(self, rendering, media):
        return super().process_media(rendering, media)


class _LooksAtPixels(Qwen2_5_VLCollator):
    def postprocess(self, sample):
        assert all(sample.media[key].is_floating_point() for key in sample.media if "pixel" in key)
        return sample


class _Joins(Concatenate):
    def join(self, values, key):
        assert all(value.is_floating_point() for value in values)
        return super().join(values, key)


def test_code_that_knows_nothing_of_bytes_gets_floats():
    plain = _collator("Qwen2_5_VLProcessor")
    image = {"type": "image", "image": _image(90, 60, 1)}
    chat = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "Noise."}]
    expected = plain([chat])["pixel_values"]
    doubled = _Doubles(processor=plain.processor)([chat, chat])
    assert torch.equal(doubled["pixel_values"], torch.cat([expected, expected]) * 2)
    looking = _LooksAtPixels(processor=plain.processor)
    assert torch.equal(looking([chat])["pixel_values"], expected)

    class Own(Qwen2_5_VLCollator):
        family = attrs.evolve(
            Qwen2_5_VLCollator.family,
            joins={
                **Qwen2_5_VLCollator.family.joins,
                "pixel_values": _Joins(rows="image_grid_thw"),
            },
        )

    own = Own(processor=plain.processor)
    assert own.encode(chat).pixel_tables
    assert torch.equal(own([chat])["pixel_values"], expected)
    mixed = plain.stack([plain.encode(chat), with_float_pixels(plain.encode(chat), None)])
    assert torch.equal(mixed["pixel_values"], torch.cat([expected, expected]))


def test_a_subclass_gets_floats_of_a_size_that_is_treated_in_another_way():
    processor = build("qwen2_5_vl")
    part = processor.image_processor
    kind = type(part)

    def dims_one_size(self, images, *args, **options):
        found = kind.rescale_and_normalize(self, images, *args, **options)
        is_dimmed = found.is_floating_point() and found.shape[-2:] == (84, 84)
        return found * 0.5 if is_dimmed else found

    body = {"rescale_and_normalize": dims_one_size}
    part.__class__ = type("StandInThatDimsOneSize", (kind,), body)
    image = _image(84, 84, 0)
    chat = [
        {"role": "user", "content": [{"type": "image", "image": image}]},
        {"role": "assistant", "content": "Noise."},
    ]
    expected = part([image], return_tensors="pt")["pixel_values"]
    assert torch.equal(_Floats(processor=processor)([chat])["pixel_values"], expected)
    sample = collator_for(processor).encode(chat)
    assert not torch.equal(sample.pixels("pixel_values"), expected), "amend docs/explanation"


@pytest.mark.parametrize(
    ("name", "option", "before"),
    [
        ("LlavaNextProcessor", "image_grid_pinpoints", [[28, 28]]),
        ("MllamaProcessor", "max_image_tiles", 1),
    ],
)
def test_every_option_of_a_processor_may_change_between_calls(name, option, before):
    case = CASES[name]
    processor = copy.deepcopy(case.processor())
    images = processor.image_processor
    after = getattr(images, option)
    text = {"type": "text", "text": "What?"}
    parts = [{"type": "image", "image": _image(*size, 0)} for size in ((48, 40), (300, 900))]
    chat = [{"role": "user", "content": [*parts, text]}, {"role": "assistant", "content": "A."}]
    collator = collator_for(processor, **dict(case.options))
    setattr(images, option, before)
    collator([chat])
    setattr(images, option, after)
    found = collator([chat])["pixel_values"]
    fresh = collator_for(copy.deepcopy(processor), **dict(case.options))
    assert torch.equal(found, fresh([chat])["pixel_values"])


def test_frames_are_never_written_to(monkeypatch):
    """A processor that writes to what it is given gets a copy, as from its own call."""
    processor = build("qwen2_5_vl")
    kind = type(processor.video_processor)
    plain = kind._preprocess

    def writes(self, videos, **options):
        found = plain(self, videos, **options)
        for video in videos if not options["do_normalize"] else ():
            video.zero_()
        return found

    monkeypatch.setattr(kind, "_preprocess", writes)
    frames = np.random.default_rng(0).integers(1, 256, (4, 56, 56, 3), np.uint8)
    kept = frames.copy()
    question = [{"type": "video", "video": frames}, {"type": "text", "text": "What is it?"}]
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": "A door."}]
    assert "pixel_values_videos" in collator_for(processor).encode(chat).media
    assert np.array_equal(frames, kept)
