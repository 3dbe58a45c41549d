"""Packs of hybrid models: the documents stay apart, or the collator refuses the pack."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from tests.models.by_family import tiny_model
from tests.models.by_processor import MODELS
from tests.models.tiny_configs import tiny_config
from tests.processors import processor_of
from tests.unit.packing.test_token_mixing import kernels_by_document
from vlmcollate import (
    BaseCollator,
    BlockCausalMask,
    ConfigError,
    FlattenedDocuments,
    FlexBlockMask,
    IndexedMask,
    PadToLongest,
    TransformerEngineTHD,
    collator_for,
)
from vlmcollate.data.fingerprint import fingerprint_of
from vlmcollate.packing.token_mixing import token_mixing
from vlmcollate.testing import tiny_model as kit_model
from vlmcollate.testing import tiny_processor

needs_5_24 = pytest.mark.skipif(
    not token_mixing(tiny_config("qwen3_5_text")).separates_by,
    reason="stateful layers leak in this transformers",
)


def _image(seed: int) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 255, (56, 84, 3), np.uint8)
    return {"type": "image", "image": Image.fromarray(pixels)}


def _chat(*images: dict[str, Any], answer: str) -> list[dict[str, Any]]:
    content = [*images, {"type": "text", "text": "What?"}]
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    return [{"role": "user", "content": content}, reply]


EXAMPLES = [
    _chat(_image(0), answer="Noise."),
    _chat(answer="Nothing at all, for there is no image."),
    _chat(_image(1), _image(2), answer="Two of them."),
]


@lru_cache
def _qwen3_5() -> Any:
    return tiny_model("qwen3_5", processor_of("qwen3_5")).eval()


def _lfm2_vl() -> tuple[Any, Any]:
    processor = processor_of("lfm2_vl")
    torch.manual_seed(0)
    return processor, MODELS["Lfm2VlProcessor"](processor).eval()


def _scores(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        found = model(**{k: v for k, v in batch.items() if not k.startswith("n_")}).logits[0]
    assert isinstance(found, torch.Tensor)
    return found


def _check_documents(model: Any, collator: BaseCollator) -> None:
    samples = [collator.encode(example) for example in EXAMPLES]
    alone = attrs.evolve(collator, padding=PadToLongest())
    packed = _scores(model, collator.stack([collator.pack(samples)]))
    start = 0
    for sample in samples:
        single = _scores(model, alone.stack([sample]))
        found = packed[start : start + len(sample)]
        assert (found - single).abs().max() < 1e-4 * single.abs().max()
        start += len(sample)


@needs_5_24
def test_qwen3_5_takes_flattened_documents_alone() -> None:
    processor, config = processor_of("qwen3_5"), _qwen3_5().config
    for layout in (BlockCausalMask(), FlexBlockMask(), IndexedMask(), TransformerEngineTHD()):
        name = type(layout).__name__
        with pytest.raises(ConfigError, match=rf"^{name} .*linear_attention.*Flattened") as caught:
            collator_for(processor, padding=layout, model_config=config)
        assert "carry a state" in str(caught.value)
    collator = collator_for(processor, padding=FlattenedDocuments(), model_config=config)
    samples = [collator.encode(example) for example in EXAMPLES]
    batch = collator.stack([collator.pack(samples)])
    lengths = [len(sample) for sample in samples]
    edges = torch.tensor([0, *lengths]).cumsum(0)
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == edges.tolist()
    assert batch["seq_idx"].dtype == torch.int32
    assert batch["seq_idx"][0].tolist() == [i for i, n in enumerate(lengths) for _ in range(n)]
    with pytest.raises(ValueError, match="can't keep packed sequences apart without"):
        _scores(_qwen3_5(), batch)


@needs_5_24
def test_qwen3_5_keeps_documents_apart_with_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _qwen3_5()
    kernels_by_document(model, monkeypatch)
    collator = collator_for(
        processor_of("qwen3_5"), padding=FlattenedDocuments(), model_config=model.config
    )
    _check_documents(model, collator)


@needs_5_24
def test_lfm2_vl_keeps_documents_apart_with_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    processor, model = _lfm2_vl()
    kernels_by_document(model, monkeypatch)
    with pytest.raises(ConfigError, match="its conv layers carry a state"):
        collator_for(processor, padding=BlockCausalMask(), model_config=model.config)
    collator = collator_for(processor, padding=FlattenedDocuments(), model_config=model.config)
    _check_documents(model, collator)


@needs_5_24
def test_nemotron_omni_and_llama_4_take_flattened_documents_alone() -> None:
    for processor, config, kind in (
        (
            processor_of("nemotron_omni"),
            tiny_config("nemotron_h_omni"),
            "linear_attention",
        ),
        (processor_of("llama4"), hf.Llama4Config(), "chunked_attention"),
    ):
        assert collator_for(processor, padding=FlattenedDocuments(), model_config=config)
        for layout in (BlockCausalMask(), BlockCausalMask(sliding_window=8), IndexedMask()):
            with pytest.raises(ConfigError, match=kind):
                collator_for(processor, padding=layout, model_config=config)


def test_a_processor_of_several_models_needs_the_config() -> None:
    processor = tiny_processor("qwen3_vl")
    with pytest.raises(ConfigError, match="Qwen3VLProcessor serves models with different layers"):
        collator_for(processor, padding=BlockCausalMask())
    collator = collator_for(processor)
    samples = [collator.encode(_chat(answer="One"))]
    with pytest.raises(ConfigError, match="set model_config to the configuration of the model"):
        collator.pack(samples)
    config = kit_model(processor).config
    assert attrs.evolve(collator, model_config=config).pack(samples).documents
    assert attrs.evolve(collator, model_config=config.text_config).pack(samples).documents
    with pytest.raises(ConfigError, match="expected a PreTrainedConfig"):
        collator_for(processor, model_config={"model_type": "qwen3_vl"})


def test_a_prepared_dataset_knows_the_model() -> None:
    processor = tiny_processor("qwen3_vl")
    config = kit_model(processor).config
    found = [
        fingerprint_of(collator_for(processor, model_config=c))["option model_config"]
        for c in (None, config, type(config).from_dict(config.to_dict()), hf.Qwen3_5Config())
    ]
    assert found[1] == found[2]
    assert len(set(found)) == 3
