"""The processors and models that need no download."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from tests.conftest import NIGHTLY
from tests.forking import run_in_fresh_package
from vlmcollate import collator_for
from vlmcollate.errors import ConfigError
from vlmcollate.testing import LAWS, check_collator, tiny_model, tiny_processor

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
]


def test_the_processor_is_a_real_one_and_writes_chatml() -> None:
    processor = tiny_processor("qwen2_5_vl")
    assert isinstance(processor, Qwen2_5_VLProcessor)
    assert processor.apply_chat_template(CHAT, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_tokenizer_is_small_and_loses_nothing() -> None:
    tokenizer = tiny_processor().tokenizer
    assert 1000 <= len(tokenizer) <= 2000
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    text = " Grüße,\t日本 🙂\r\n\x00  end "
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer("<|im_start|><|vision_start|><|video_pad|>").input_ids) == 3


@pytest.mark.parametrize(("size", "tokens"), [((112, 84), 12), ((20, 20), 4), ((900, 900), 16)])
def test_a_picture_becomes_few_tokens(size: tuple[int, int], tokens: int) -> None:
    processor = tiny_processor()
    batch = processor(text=["<|image_pad|>"], images=[[Image.new("RGB", size)]])
    assert len(batch["input_ids"][0]) == tokens


def test_another_process_makes_the_same_tokenizer() -> None:
    """The fork server has another hash seed."""
    ids = tiny_processor().tokenizer("A zebra and a blue circle.").input_ids
    run_in_fresh_package(
        "from vlmcollate.testing import tiny_processor\n"
        f"assert tiny_processor().tokenizer('A zebra and a blue circle.').input_ids == {ids}"
    )


def test_the_model_trains_on_a_batch_and_depends_on_the_seed_alone() -> None:
    processor = tiny_processor()
    example = [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (112, 84))}]},
        {"role": "assistant", "content": "Black."},
    ]
    batch = collator_for(processor)([example])
    state = torch.get_rng_state()
    model = tiny_model(processor)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(model, Qwen2_5_VLForConditionalGeneration)
    loss = model(**batch).loss
    loss.backward()
    assert loss.isfinite()
    assert model.model.visual.patch_embed.proj.weight.grad.abs().sum() > 0
    assert torch.equal(tiny_model(processor)(**batch).loss, loss)
    assert not torch.equal(tiny_model(processor, seed=1)(**batch).loss, loss)


def test_unknown_families_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"found 'llama'.*'qwen2_5_vl'"):
        tiny_processor("llama")
    with pytest.raises(ConfigError, match=r"found str.*Qwen2_5_VLProcessor"):
        tiny_model("llama")


FAMILIES = ["gemma3", "llava", "qwen2_5_vl", "qwen3_vl", "smolvlm"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_the_laws_and_learns(family: str) -> None:
    processor = tiny_processor(family)
    collator = collator_for(processor)
    # each law on one family, since all of them hold for the real processors
    laws = LAWS if NIGHTLY else LAWS[FAMILIES.index(family) :: len(FAMILIES)]
    assert not check_collator(collator, laws=laws, examples=3 if NIGHTLY else 1).failed
    parts = [{"type": "image", "image": Image.new("RGB", (90, 60), "teal")}]
    asked = {"role": "user", "content": [*parts, {"type": "text", "text": "What colour?"}]}
    chats = [[asked, {"role": "assistant", "content": f"It is {c}."}] for c in ("teal", "a blue")]
    batch = collator(chats)
    model = tiny_model(processor)
    inputs = {key: value for key, value in batch.items() if not key.startswith("n_")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
