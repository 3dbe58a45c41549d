"""A prompt ends where generation starts; a padded batch generates what each prompt does alone."""

from __future__ import annotations

import pytest
import torch

from tests.models.by_family import tiny_model
from tests.models.by_processor import MODELS
from tests.processors import processor_of
from tests.processors.cases import CASES, SERVED, collator_of, image, in_turns, message
from vlmcollate import collator_for
from vlmcollate.errors import CollateError

NOT_COMPARED = {"KimiVLProcessor", "Phi4MMProcessor", "PPChart2TableProcessor"}
"""Processors that tokenize no chat: two stand-ins for remote code, and one of images alone."""


def chats_for(case):
    takes_images = "image" in case.kinds and "image" not in case.error
    shown = [image(0)] if takes_images else []
    one = [message("user", "What is it?", *shown), message("assistant", "A door.")]
    return [one, [*one, message("user", "<|im_end|> So?"), message("assistant", "Yes.")]]


@pytest.mark.parametrize("name", in_turns(SERVED, 0))
def test_a_prompt_is_what_the_processor_makes_of_the_messages(name):
    collator, tried = collator_of(name), 0
    for chat in chats_for(CASES[name]):
        try:
            collator.encode(chat)
        except CollateError:  # a model of one turn
            continue
        found = collator.prompt(chat)
        tried += 1
        assert found.reference is not None
        assert found.reference.text == chat[-1]["content"][-1]["text"]
        alone = collator.prompt(chat[:-1])
        assert alone.reference is None
        assert torch.equal(alone.encoded.input_ids, found.encoded.input_ids)
        assert (found.encoded.labels == -100).all()
        is_compared = name not in NOT_COMPARED and collator.declared.needs_chat_template
        if is_compared and "<|im_end|>" not in str(chat):
            expected = collator.processor.apply_chat_template(
                [chat[:-1]],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **collator.template_kwargs,
            )
            assert found.encoded.input_ids.tolist() == expected["input_ids"][0].tolist()
    if not tried:
        pytest.skip("no conversation has the form that this model takes")


IN_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm", "llava_onevision")
BY_PROCESSOR = ("LlavaProcessor", "InternVLProcessor", "Glm4vProcessor", "PaliGemmaProcessor")


@pytest.mark.filterwarnings("ignore")  # transformers warns about options of generation
@pytest.mark.parametrize("name", [*IN_FAMILIES, *BY_PROCESSOR])
def test_a_batch_generates_what_each_prompt_does_alone(name):
    if name in IN_FAMILIES:
        processor, options = processor_of(name), {}
        model = tiny_model(name, processor)
    else:
        processor, options = CASES[name].processor(), dict(CASES[name].options)
        torch.manual_seed(0)
        model = MODELS[name](processor)
    collator = collator_for(processor, **options)
    chats = [
        [message("user", "What is it?", image(0))],
        [message("user", "Describe it at length, please, and name the colours.", image(1))],
        [message("user", "Why?", image(2)), message("assistant", "A reference.")],
    ]
    batch = collator.prompts(chats)
    assert [r is None for r in batch.references] == [True, True, False]
    length = batch["input_ids"].shape[1]
    assert (batch["attention_mask"][:, -1] == 1).all()
    model.eval()
    with torch.no_grad():
        together = model.generate(**batch, max_new_tokens=5, do_sample=False)[:, length:]
        for row, chat in enumerate(chats):
            one = collator.prompts([chat])
            alone = model.generate(**one, max_new_tokens=5, do_sample=False)
            new = alone[0, one["input_ids"].shape[1] :]
            assert together[row, : len(new)].tolist() == new.tolist()
