"""Methods and settings of a processor that somebody changed count for the pixels of each sample."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from tests.processors import build
from vlmcollate import collator_for
from vlmcollate.data import PreparedDataset, prepare_dataset
from vlmcollate.encode import pixel_path, stages
from vlmcollate.encode.direct_call import is_own_code
from vlmcollate.encode.pixel_probe import probe_pixels
from vlmcollate.encode.processor_settings import settings_of
from vlmcollate.extend import Family, MediaRequest, ProcessedMedia, process_together
from vlmcollate.models.default import DefaultCollator

LARGEST = 1500  # beyond the images of the probe
SIZE = (2400, 600)

pytestmark = pytest.mark.skipif(
    not hasattr(hf.ProcessorMixin, "replace_image_token"),
    reason="the calls of this transformers have no such methods",
)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def chat(*images: Any) -> list[dict[str, Any]]:
    question = [{"type": "image", "image": image} for image in images]
    return [
        {"role": "user", "content": [*question, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "This."}]},
    ]


def shrunk(images: Any) -> Any:
    if isinstance(images, list | tuple):
        return [shrunk(image) for image in images]
    if isinstance(images, Image.Image):
        images = images.copy()
        images.thumbnail((LARGEST, LARGEST))
    return images


def changed(part: Any, **methods: Any) -> Any:
    """A copy of an object of a subclass with some methods."""
    found = copy.copy(part)
    found.__class__ = type(type(part).__name__, (type(part),), methods)
    return found


def shrinking(name: str, kind: type) -> Any:
    def method(self: Any, images: Any = None, *given: Any, **options: Any) -> Any:
        return getattr(kind, name)(self, shrunk(images), *given, **options)

    return method


@pytest.mark.parametrize("family", ["internvl", "llava_next", "gemma3", "qwen2_vl"])
@pytest.mark.parametrize("where", ["processor", "image_processor"])
def test_a_method_that_matters_only_for_large_images_is_called(family: str, where: str) -> None:
    processor = build(family)
    if where == "processor":
        processor = changed(processor, __call__=shrinking("__call__", type(processor)))
    else:
        part = processor.image_processor
        method = shrinking("preprocess", type(part))
        processor.image_processor = changed(part, preprocess=method)
    messages = chat(noise(*SIZE))
    text = processor.apply_chat_template(messages)
    images = [messages[0]["content"][0]["image"]]
    own = processor(text=[text], images=[images], add_special_tokens=False, return_tensors="pt")
    batch = collator_for(processor)([messages])
    assert torch.equal(batch["input_ids"], own["input_ids"])
    assert torch.equal(batch["pixel_values"], own["pixel_values"])


@pytest.mark.parametrize("name", ["processor", "image_processor", "video_processor"])
def test_a_part_with_a_method_of_its_own_is_found(name: str) -> None:
    processor = build("qwen2_5_vl")
    assert not is_own_code(processor)
    if name == "processor":
        processor = changed(processor, __call__=lambda _: None)
    else:
        setattr(processor, name, changed(getattr(processor, name), preprocess=lambda _: None))
    assert is_own_code(processor)


def test_a_method_that_resizes_in_floats_is_not_cut_as_bytes() -> None:
    processor = build("qwen2_vl")
    kind = type(processor.image_processor)

    def resize(self: Any, images: Any, size: Any, **options: Any) -> Any:
        large = max(images.shape[-2:]) > LARGEST
        return kind.resize(self, images.float() if large else images, size, **options)

    processor.image_processor = changed(processor.image_processor, resize=resize)
    messages = chat(noise(*SIZE))
    images = [messages[0]["content"][0]["image"]]
    text = processor.apply_chat_template(messages)
    own = processor(text=[text], images=[images], return_tensors="pt")
    assert torch.equal(collator_for(processor)([messages])["pixel_values"], own["pixel_values"])


def test_videos_of_unlike_length_are_padded_as_by_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    videos = [random.integers(0, 256, (n, 48, 64, 3), np.uint8) for n in (6, 4)]
    question = [{"type": "video", "video": video} for video in videos]
    text = [{"type": "text", "text": "What?"}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "This."}]}
    messages = [{"role": "user", "content": [*question, *text]}, answer]
    batch = collator_for(build("smolvlm"))([messages])
    monkeypatch.setattr(stages, "process_as_bytes", lambda *_: None)
    own = collator_for(build("smolvlm"))([messages])
    assert torch.equal(batch["pixel_values"], own["pixel_values"])


def test_functions_of_one_name_are_tried_apart() -> None:
    processor = build("internvl")

    def collating(changes: bool) -> Any:
        def process(request: MediaRequest) -> ProcessedMedia:
            found = process_together(request)
            pixels = found.tensors["pixel_values"]
            changed = {
                **found.tensors,
                "pixel_values": pixels - pixels.amax() if changes else pixels,
            }
            return attrs.evolve(found, tensors=changed)

        @attrs.frozen(kw_only=True, eq=False)
        class Collator(DefaultCollator):
            @property
            def family(self) -> Family:
                known = super().family
                return attrs.evolve(known, process=process, takes_pixel_bytes=True)

        return Collator(processor=processor)

    messages = chat(noise(64, 48))
    plain, shifted = (collating(changes)([messages])["pixel_values"] for changes in (False, True))
    assert torch.equal(plain - plain.amax(), shifted)


def test_a_used_collator_reads_what_it_prepared(tmp_path: Path) -> None:
    noise(97, 61).save(tmp_path / "image.png")
    row = {"messages": chat(str(tmp_path / "image.png"))}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    folder = tmp_path / "prepared"
    prepare_dataset(tmp_path / "rows.jsonl", folder, collator=collator_for(build("internvl")))
    used = collator_for(build("internvl"), pixels="uint8")
    used([row])
    assert len(PreparedDataset(folder, used)) == 1


def test_a_setting_of_the_processor_itself_counts_at_once() -> None:
    processor, messages = build("pixtral"), chat(noise(640, 480))
    collate = collator_for(processor)
    collate([messages])
    processor.patch_size *= 2
    other = build("pixtral")
    other.patch_size *= 2
    for one in (collate, collator_for(processor)):
        found, expected = one([messages]), collator_for(other)([messages])
        assert torch.equal(found["input_ids"], expected["input_ids"])
        assert torch.equal(found["pixel_values"], expected["pixel_values"])


def _hold_a_lock(processor: Any) -> None:
    processor.image_processor.lock = threading.Lock()  # which cannot be pickled


def _set_as_tensor(processor: Any, mean: float) -> None:
    processor.image_processor.image_mean = torch.tensor([mean] * 3)


def _set_at_the_tokenizer(processor: Any, mean: float) -> None:
    processor.tokenizer.init_kwargs["image_mean"] = [mean] * 3


def _set_at_the_processor(processor: Any, mean: float) -> None:
    processor.options = {"image_mean": (mean,) * 3}


class OwnOptions(hf.Gemma3Processor):  # type: ignore[misc]  # it is Any
    options: dict[str, Any] = {}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return super().__call__(*arguments, **options, **self.options)


class Counting(hf.Gemma3ImageProcessor):  # type: ignore[misc]  # it is Any
    calls = 0

    def _preprocess(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        return super()._preprocess(*arguments, **options)


@pytest.mark.parametrize("prepare", [lambda _: None, _hold_a_lock])
@pytest.mark.parametrize("change", [_set_as_tensor, _set_at_the_tokenizer, _set_at_the_processor])
def test_any_digit_of_a_setting_counts_at_once(prepare: Any, change: Any) -> None:
    processor, messages = build("gemma3"), chat(noise(640, 480))
    processor.__class__ = OwnOptions
    prepare(processor)
    collate, found = collator_for(processor), []
    for mean in (0.5, 0.5 + 1e-6):  # a tensor shows four digits
        other = build("gemma3")
        other.__class__ = OwnOptions
        for each in (processor, other):
            change(each, mean)
        found.append(collate([messages])["pixel_values"])
        assert torch.equal(found[-1], collator_for(other)([messages])["pixel_values"])
    assert not torch.equal(*found)


def mirrored(value: Any) -> Any:
    """Images, and lists of them, from left to right if they are large."""
    if isinstance(value, list):
        return [mirrored(item) for item in value]
    if isinstance(value, Image.Image) and value.width > LARGEST:
        return value.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if isinstance(value, torch.Tensor) and value.ndim >= 3 and value.shape[-1] > LARGEST:
        return value.flip(-1)
    return value


@pytest.mark.parametrize("when", ["before use", "after use"])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        *(("internvl", name) for name in ("__call__", "preprocess", "_preprocess", "resize")),
        *(("qwen2_vl", name) for name in ("__call__", "resize")),
        *(("gemma3", name) for name in ("preprocess", "_preprocess")),
    ],
)
def test_a_method_that_somebody_replaces_in_a_class_counts(
    family: str, when: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = build(family)
    collate, small = collator_for(processor), [chat(noise(64, 48))]
    if when == "after use":
        collate(small)
    kind = type(processor if name == "__call__" else processor.image_processor)
    own = getattr(kind, name)

    @functools.wraps(own)  # as of a library that changes another
    def method(self: Any, *given: Any, **options: Any) -> Any:
        return own(self, *map(mirrored, given), **{k: mirrored(v) for k, v in options.items()})

    monkeypatch.setattr(kind, name, method)
    messages = chat(noise(*SIZE))
    text = processor.apply_chat_template(messages)
    images = [messages[0]["content"][0]["image"]]
    expected = processor(
        text=[text], images=[images], add_special_tokens=False, return_tensors="pt"
    )
    batch = collate([messages])
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    monkeypatch.undo()
    assert not torch.equal(collate([messages])["pixel_values"], batch["pixel_values"])


def test_a_copy_serves_all_samples_until_a_part_is_replaced() -> None:
    processor, messages = build("internvl"), chat(noise(64, 48))
    collate = collator_for(processor)

    def copies() -> list[Any]:
        collate([messages, messages])
        return [plan.processor for plan in collate._pixel_plans.values()]

    (first,) = copies()
    assert copies() == [first]
    processor.image_processor = copy.copy(processor.image_processor)
    (second,) = copies()
    assert second is not first
    processor.tokenizer = copy.copy(processor.tokenizer)
    (third,) = copies()
    assert third is not second and copies() == [third]


def test_a_processor_with_code_of_its_own_gets_a_new_copy_each_time() -> None:
    processor, images = build("gemma3"), [noise(64, 48), noise(1200, 500)]
    seen: list[Any] = []

    def preprocess(self: Any, *given: Any, **options: Any) -> Any:
        seen.append(self.__dict__.setdefault("calls", 0))
        self.calls += 1
        return type(self).__mro__[1].preprocess(self, *given, **options)  # type: ignore[attr-defined]

    collate = collator_for(processor)
    processor.image_processor = changed(processor.image_processor, preprocess=preprocess)
    collate([chat(image) for image in images])
    seen.clear()
    processor.image_processor.__dict__.pop("calls", None)
    collate([chat(image) for image in images])
    assert seen == [0, 0]


def test_a_change_of_a_large_setting_counts_though_it_is_not_read() -> None:
    processor = build("gemma3")
    processor.image_processor.lookup = torch.zeros(1 << 20)
    keys: list[Any] = [settings_of(processor, "image")]
    assert keys[0] == settings_of(processor, "image")
    processor.image_processor.lookup[3] = 1
    keys.append(settings_of(processor, "image"))
    processor.image_processor.lookup = processor.image_processor.lookup.clone()
    keys.append(settings_of(processor, "image"))
    assert len(set(keys)) == 3
    assert max(len(pickle.dumps(key[-1][0])) for key in keys) < 1 << 14


def test_a_processor_that_changes_itself_is_not_tried_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor, messages = build("gemma3"), chat(noise(64, 48))
    processor.image_processor.__class__ = Counting
    tried = []

    def probed(*arguments: Any) -> Any:
        tried.append(arguments)
        return probe_pixels(*arguments)

    monkeypatch.setattr(pixel_path, "probe_pixels", probed)
    collate = collator_for(processor)
    found = [collate([messages])["pixel_values"] for _ in range(5)]
    assert len(tried) == 2
    expected = collator_for(build("gemma3"))([messages])["pixel_values"]
    assert all(torch.equal(pixels, expected) for pixels in found)
