"""Placeholder media runs a model's towers and changes nothing that is trained."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from tests.models.by_family import tiny_model
from tests.processors import processor_of
from tests.processors.cases import CASES
from tests.processors.families import FAMILIES
from vlmcollate import IGNORE_INDEX, BlockCausalMask, PadToLongest, collator_for
from vlmcollate.errors import SampleTooLongError


def chat(answer, *colours):
    images = [{"type": "image", "image": Image.new("RGB", (48, 40), c)} for c in colours]
    return [
        {"role": "user", "content": [*images, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": answer},
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_batch_runs_the_vision_tower(name):
    processor = processor_of(name)
    model = tiny_model(name, processor).eval()
    chats = [chat("Nothing at all."), chat("Yes.")]
    plain = collator_for(processor)(chats)

    batch = collator_for(processor, dummy_media="batch")(chats)

    width = plain["input_ids"].shape[1]
    assert batch["n_images_per_sample"].sum() == 1
    trained = batch["labels"] != IGNORE_INDEX
    assert torch.equal(batch["labels"][trained], plain["labels"][plain["labels"] != IGNORE_INDEX])
    assert (batch["attention_mask"].sum(1) == plain["attention_mask"].sum(1)).all()
    theirs, ours = model(**plain), model(**batch)
    for row, length in enumerate(plain["attention_mask"].sum(1).tolist()):
        torch.testing.assert_close(ours.logits[row, :length], theirs.logits[row, :length])
    torch.testing.assert_close(ours.loss, theirs.loss)
    assert batch["input_ids"].shape[1] >= width
    ours.loss.backward()
    vision = [p for n, p in model.named_parameters() if "visual" in n or "vision" in n]
    assert any(p.grad is not None for p in vision)


def test_batch_adds_one_and_only_where_a_tower_is_idle():
    collator = collator_for(processor_of("qwen2_5_vl"), dummy_media="batch")
    with_image = collator([chat("a", "red"), chat("b")])
    assert with_image["n_images_per_sample"].tolist() == [1, 0]
    without = collator([chat("a long answer"), chat("b")])
    assert without["n_images_per_sample"].tolist() == [0, 1]  # the shorter one


def test_sample_adds_one_to_each_that_has_none():
    collator = collator_for(processor_of("qwen2_5_vl"), dummy_media="sample")
    batch = collator([chat("a", "red"), chat("b"), chat("c")])
    assert batch["n_images_per_sample"].tolist() == [1, 1, 1]
    sample = collator.encode(chat("b"))
    standing_in = sample.media_ids >= 0
    assert standing_in.any()
    assert (sample.labels[standing_in] == IGNORE_INDEX).all()
    assert (sample.tokens["attention_mask"][standing_in] == 0).all()


def test_audio_towers_run_too():
    collator = collator_for(processor_of("gemma4"), dummy_media="batch")
    batch = collator([chat("a"), chat("b", "red")])
    assert batch["n_audios_per_sample"].tolist() == [1, 0]
    assert batch["n_images_per_sample"].tolist() == [0, 1]
    assert torch.isfinite(batch["input_features"]).all()


def test_the_placeholder_has_its_room_within_max_length():
    processor = processor_of("qwen2_5_vl")
    text = chat("one two three four")
    length = len(collator_for(processor).encode(text))
    room = len(collator_for(processor, dummy_media="sample").encode(text)) - length
    with pytest.raises(
        SampleTooLongError, match=f" and {room} of dummy media, .*; raise it to {length + room}, or"
    ):
        collator_for(processor, dummy_media="sample", max_length=length + room - 1).encode(text)
    fitting = collator_for(processor, dummy_media="sample", max_length=length + room)
    assert len(fitting.encode(text)) == length + room


def test_a_kind_that_the_processor_is_refused_for_gets_no_placeholder():
    """Dots3's sounds are refused, and its pictures are not."""
    try:
        processor = CASES["Dots3NoteProcessor"].processor()
    except AttributeError as error:  # not in every release of transformers
        pytest.skip(str(error))
    batch = collator_for(processor, dummy_media="batch")([chat("Yes")])
    assert batch["n_images_per_sample"].tolist() == [1]
    assert "n_audios_per_sample" not in batch


@pytest.mark.parametrize("policy", ["batch", "sample"])
@pytest.mark.parametrize("name", ["LlavaProcessor", "Qwen2_5_VLProcessor", "SmolVLMProcessor"])
def test_shifting_the_labels_takes_no_media_token_away(name, policy):
    """Dummy media stands at a sample's end, where a shift drops the last column."""
    case = CASES[name]
    processor, options = case.processor(), {**case.options, "dummy_media": policy}
    chats = [chat("Yes."), chat("No.")]
    plain = collator_for(processor, **options)(chats)

    shifted = collator_for(processor, shift_labels=True, **options)(chats)

    (token,) = collator_for(processor).traits.media_tokens["image"]
    media_token = processor.tokenizer.convert_tokens_to_ids(token)
    assert (shifted["input_ids"] == media_token).sum() == (plain["input_ids"] == media_token).sum()
    trained = shifted["labels"][shifted["labels"] != IGNORE_INDEX]
    assert torch.equal(trained, plain["labels"][plain["labels"] != IGNORE_INDEX])


def test_shifting_keeps_media_at_the_end_of_a_truncated_sample_and_of_a_pack():
    processor = processor_of("qwen2_5_vl")
    whole = collator_for(processor).encode(chat("Yes.", "red"))
    end = int((whole.media_ids >= 0).nonzero().max()) + 1
    for padding in (PadToLongest(), BlockCausalMask()):
        collator = collator_for(
            processor,
            max_length=end,
            on_overlong="truncate",
            require_labels=False,
            shift_labels=True,
            padding=padding,
        )
        batch = collator([chat("Yes.", "red")])
        (token,) = collator.traits.media_tokens["image"]
        found = (batch["input_ids"] == processor.tokenizer.convert_tokens_to_ids(token)).sum()
        assert found * 4 == batch["pixel_values"].shape[0]
