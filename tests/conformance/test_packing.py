"""A pack is right when a real model says so: its documents do as they do alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import transformers.integrations.flex_attention as hf_flex
from PIL import Image
from torch.nn.attention.flex_attention import flex_attention

from tests.conftest import NIGHTLY
from tests.models.by_family import tiny_model
from tests.processors import processor_of
from vlmcollate import (
    BaseCollator,
    BlockCausalMask,
    ConfigError,
    FlattenedDocuments,
    FlexBlockMask,
    collator_for,
    unpack,
)
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator

MODELS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm")
WINDOW = 64
NOT_IN_THE_MODEL = ("labels", "n_images_per_sample", "n_videos_per_sample")


def _image(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (56, 84, 3), np.uint8)
    return Image.fromarray(pixels)


def _turns(*parts: object, answer: str) -> list[dict[str, Any]]:
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": part}
        for part in parts
    ]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


EXAMPLES = [
    _turns("What is this?", _image(0), answer="Noise."),
    _turns("Count to three.", answer="One, two, three, and many more after that " * 4),
    _turns(_image(1), "and", _image(2), "?", answer="Two pictures."),
]


@lru_cache
def _model(name: str, attention: str) -> Any:
    model = tiny_model(name, processor_of(name)).eval()
    # the wrapper's class may not claim an attention that its text model has
    model.config.text_config._attn_implementation = attention
    return model


@pytest.fixture(autouse=True)
def _flex_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention as torch runs it uncompiled: its compiler fails on some CPUs."""

    def uncompiled(*inputs: Any, training: bool = False, **options: Any) -> Any:
        del training
        return flex_attention(*inputs, **options)

    monkeypatch.setattr(hf_flex, "compile_friendly_flex_attention", uncompiled)


def _collator(name: str, **options: Any) -> BaseCollator:
    config = _model(name, "sdpa").config
    return collator_for(processor_of(name), model_config=config, **options)


def _hidden(model: Any, batch: dict[str, Any]) -> Any:
    """Returns the last hidden states, of which each row of logits is a function.

    The logits themselves, 150,000 a token, take most of the time of a tiny model.
    """
    inputs = {key: value for key, value in batch.items() if key not in NOT_IN_THE_MODEL}
    return model.model(**inputs).last_hidden_state


def _layouts(name: str) -> dict[str, Any]:
    window: dict[str, Any] = {"sliding_window": WINDOW} if name == "gemma3" else {}
    return {
        "eager": BlockCausalMask(additive=True, **window),
        "sdpa": BlockCausalMask(multiple_of=16, **window),
        "flex_attention": FlexBlockMask(multiple_of=128, **window),
    }


def _tried(*attentions: str) -> list[tuple[str, str]]:
    """Returns every model with SDPA, and two that differ in their masks with all attentions."""
    every = MODELS if NIGHTLY else ("gemma3", "qwen2_5_vl")
    return [(n, a) for n in MODELS for a in attentions if a == "sdpa" or n in every]


@pytest.mark.parametrize(("name", "attention"), _tried("eager", "sdpa", "flex_attention"))
def test_hidden_states_of_a_document_are_those_of_the_sample(name: str, attention: str) -> None:
    model = _model(name, attention)
    collator = _collator(name, padding=_layouts(name)[attention])
    alone = attrs.evolve(collator, padding=collator_for(processor_of(name)).padding)
    samples = [collator.encode(example) for example in EXAMPLES]
    pack = collator.pack(samples)
    with torch.no_grad():
        packed = _hidden(model, collator.stack([pack]))[0]
        singles = [_hidden(_model(name, "sdpa"), alone.stack([s]))[0] for s in samples]
    start = 0
    for sample, single in zip(samples, singles, strict=True):
        torch.testing.assert_close(
            packed[start : start + len(sample)], single, atol=2e-5, rtol=1e-4
        )
        start += len(sample)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "gemma3"])
def test_flattened_documents_need_no_mask(name: str) -> None:
    model = _model(name, "sdpa")
    collator = _collator(name, padding=FlattenedDocuments(multiple_of=16))
    alone = collator_for(processor_of(name))
    samples = [collator.encode(example) for example in EXAMPLES]
    batch = collator.stack([collator.pack(samples[:2]), samples[2]])
    assert batch["input_ids"].shape[0] == 1
    lengths = [len(sample) for sample in samples]
    ends = np.cumsum(lengths).tolist()
    tail = [] if batch["input_ids"].shape[1] == ends[-1] else [batch["input_ids"].shape[1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, *ends, *tail]
    assert batch["max_length_q"].item() == max(lengths)
    with torch.no_grad():
        packed = _hidden(model, batch)[0]
        for sample, end in zip(samples, ends, strict=True):
            single = _hidden(model, alone.stack([sample]))[0]
            torch.testing.assert_close(
                packed[end - len(sample) : end], single, atol=2e-5, rtol=1e-4
            )


@pytest.mark.parametrize(("name", "attention"), _tried("eager", "sdpa"))
def test_loss_and_gradients_are_those_of_the_samples(name: str, attention: str) -> None:
    model = _model(name, attention)
    collator = _collator(name, padding=_layouts(name)[attention])
    alone = collator_for(processor_of(name))
    samples = [collator.encode(example) for example in EXAMPLES]

    def gradients(batches: list[dict[str, Any]]) -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad()
        total = 0.0
        for batch in batches:
            labels = batch.pop("labels")
            hidden, wanted = _hidden(model, batch)[:, :-1], labels[:, 1:]
            trained = wanted != -100
            loss = torch.nn.functional.cross_entropy(
                model.lm_head(hidden[trained]), wanted[trained], reduction="sum"
            )
            loss.backward()
            total += loss.item()
        grads = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
        return total, grads

    loss, grads = gradients([collator.stack([collator.pack(samples)])])
    expected, wanted = gradients([alone.stack([sample]) for sample in samples])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert grads.keys() == wanted.keys()
    for key, grad in wanted.items():
        torch.testing.assert_close(grads[key], grad, atol=2e-3, rtol=2e-3, msg=key)


def _video(frames: int, height: int) -> Any:
    return np.random.default_rng(frames).integers(0, 255, (frames, height, 56, 3), np.uint8)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_positions_are_those_of_the_model(name: str) -> None:
    processor, model = processor_of(name), _model(name, "sdpa")
    options: dict[str, Any] = {"tokens_per_second": 4} if name == "qwen2_5_vl" else {}
    collator = collator_for(processor, **options)
    content: list[Any] = [
        {"type": "video", "video": _video(8, 84), "fps": 2.0},
        {"type": "text", "text": "before"},
        {"type": "image", "image": _image(4)},
        {"type": "video", "video": _video(6, 140), "fps": 2.0},
    ]
    example = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "I see."},
    ]
    for messages in (example, EXAMPLES[1], EXAMPLES[2]):
        sample = collator.encode(messages)
        batch = collator.stack([sample])
        found, _ = model.model.get_rope_index(
            **{
                key: batch[key]
                for key in (
                    "input_ids",
                    "mm_token_type_ids",
                    "image_grid_thw",
                    "video_grid_thw",
                    "second_per_grid_ts",
                    "attention_mask",
                )
                if key in batch
            }
        )
        positions = collator.position_ids(sample)
        assert torch.equal(positions[:, 0], torch.arange(len(sample)))
        assert torch.equal(positions[:, 1:].T, found[:, 0])


def test_tokens_per_second_has_an_effect() -> None:
    content = [{"type": "video", "video": _video(8, 84), "fps": 2.0}]
    example = [{"role": "user", "content": content}, {"role": "assistant", "content": "Yes."}]
    layers = []
    for rate in (2, 4):
        collator = Qwen2_5_VLCollator(processor=processor_of("qwen2_5_vl"), tokens_per_second=rate)
        sample = collator.encode(example)
        layers.append(collator.position_ids(sample)[sample.media_ids >= 0, 1].max().item())
    assert layers[0] < layers[1]


def test_shifted_labels_of_a_pack_stay_inside_documents() -> None:
    collator = collator_for(
        processor_of("qwen2_5_vl"), padding=BlockCausalMask(), shift_labels=True
    )
    samples = [collator.encode(example) for example in EXAMPLES]
    batch = collator.stack([collator.pack(samples)])
    length = sum(map(len, samples)) - 1
    assert batch["labels"].shape == (1, length)
    assert batch["attention_mask"].shape == (1, 1, length, length)
    ends = np.cumsum([len(sample) for sample in samples])[:-1] - 1
    assert (batch["labels"][0, ends] == -100).all()
    expected = torch.cat([sample.labels for sample in samples])[1:]
    assert torch.equal(batch["labels"][0], expected)


def test_gemma3_needs_its_window_and_a_mask_of_its_blocks() -> None:
    with pytest.raises(ConfigError, match="bidirectionally"):
        collator_for(processor_of("gemma3"), padding=FlattenedDocuments())
    with pytest.raises(ConfigError, match=r"BlockCausalMask\(sliding_window=\.\.\.\)"):
        collator_for(processor_of("gemma3"), padding=BlockCausalMask())
    assert collator_for(processor_of("gemma3"), padding=BlockCausalMask(sliding_window=7))
    with pytest.raises(ConfigError, match="found 7, expected 64"):
        _collator("gemma3", padding=BlockCausalMask(sliding_window=7))


@pytest.mark.parametrize("name", MODELS)
def test_unpacking_returns_the_samples(name: str) -> None:
    collator = _collator(name)
    samples = [collator.encode(example) for example in EXAMPLES]
    for sample, again in zip(samples, unpack(collator.pack(samples, multiple_of=8)), strict=True):
        for key, value in sample.tokens.items():
            assert torch.equal(value, again.tokens[key])
        for key in sample.media:
            assert torch.equal(sample.pixels(key), again.pixels(key))
        assert torch.equal(sample.message_ids, again.message_ids)
        assert torch.equal(sample.media_ids, again.media_ids)
        assert sample.media_counts == again.media_counts
        assert sample.label_strategy == again.label_strategy


def test_packs_need_a_layout() -> None:
    collator = collator_for(processor_of("smolvlm"))
    pack = collator.pack([collator.encode(example) for example in EXAMPLES])
    with pytest.raises(ConfigError, match="BlockCausalMask"):
        collator.stack([pack])


@pytest.mark.parametrize(("name", "attention"), _tried("eager", "sdpa", "flex_attention"))
def test_hidden_states_of_a_branch_are_those_of_the_sample(name: str, attention: str) -> None:
    model = _model(name, attention)
    collator = _collator(name, padding=_layouts(name)[attention])
    alone = attrs.evolve(collator, padding=collator_for(processor_of(name)).padding)
    long, question = "One, two, and many more after that " * 4, [_image(1), "and", "why? " * 20]
    chats = [
        [_turns(*question, answer=answer) for answer in answers]
        for answers in (("Noise.", long), (long, "A door."), ("Yes.", "No.", long))
    ]
    samples = [[alone.encode(chat) for chat in some] for some in chats]
    packs = [collator.pack_branches(some) for some in samples]
    batch = collator.stack(packs)
    branches = batch.pop("branch_ids")
    with torch.no_grad():
        packed = _hidden(model, batch)
        for row, some in enumerate(samples):
            for number, sample in enumerate(some, 1):
                single = _hidden(_model(name, "sdpa"), alone.stack([sample]))[0]
                own = packed[row][: len(packs[row])][(branches[row] == number)[: len(packs[row])]]
                start = len(sample) - len(own)
                torch.testing.assert_close(own, single[start:], atol=2e-5, rtol=1e-4)
                shared = packed[row][:start]
                torch.testing.assert_close(shared, single[:start], atol=2e-5, rtol=1e-4)
            assert len(packs[row]) < sum(map(len, some)) - len(some[0].input_ids) // 2


def test_branches_are_refused_where_they_cannot_be_kept_apart() -> None:
    collator = _collator("qwen2_5_vl", padding=BlockCausalMask())
    samples = [collator.encode(_turns("Why?", answer=answer)) for answer in ("So.", "No.")]
    pack = collator.pack_branches(samples)
    flattened = attrs.evolve(collator, padding=FlattenedDocuments())
    with pytest.raises(ConfigError, match="FlattenedDocuments cannot keep the branches"):
        flattened.stack([pack])
    with pytest.raises(ConfigError, match="holds no documents"):
        unpack(pack)
    other = collator.encode(_turns(_image(0), "Why?", answer="So."))
    with pytest.raises(ConfigError, match="media is not in the beginning"):
        collator.pack_branches([samples[0], other])
    images = [collator.encode(_turns(_image(k), "Why?", answer="So.")) for k in (0, 1)]
    with pytest.raises(ConfigError, match="different media in the beginning"):
        collator.pack_branches(images)
    with pytest.raises(ConfigError, match="a pack already"):
        collator.pack_branches([pack, pack])
