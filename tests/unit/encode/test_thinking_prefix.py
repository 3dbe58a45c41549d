"""The thinking prefix stands behind every model turn, and nothing trains it."""

import pytest
import torch
from PIL import Image

from tests.decoding import trained_texts
from tests.processors import processor_of
from vlmcollate import IGNORE_INDEX, ConfigError, ThinkingPrefix, collator_for
from vlmcollate.testing import tiny_processor

PREFIX = "<|channel>thought\n<channel|>"


@pytest.fixture(scope="module")
def processor():
    return processor_of("gemma4")


def chat(*answers, media=()):
    messages = []
    for i, answer in enumerate(answers):
        content = [*(media if i == 0 else ()), {"type": "text", "text": f"Question {i}?"}]
        messages += [
            {"role": "user", "content": content},
            {"role": "assistant", "content": answer},
        ]
    return messages


def test_it_stands_behind_every_turn_and_is_not_trained(processor):
    image = {"type": "image", "image": Image.new("RGB", (64, 48), "red")}
    messages = chat("One", "\nTwo", "Three", media=[image])
    plain = collator_for(processor).encode(messages)
    sample = collator_for(processor, thinking_prefix=ThinkingPrefix()).encode(messages)

    text = processor.tokenizer.decode(sample.input_ids)
    assert text.count(f"<|turn>model\n{PREFIX}") == text.count("<|turn>model\n") == 3
    assert text.replace(PREFIX, "") == processor.tokenizer.decode(plain.input_ids)
    found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    assert found == trained_texts(processor.tokenizer, plain.input_ids, plain.labels)
    width = len(processor.tokenizer.encode(PREFIX, add_special_tokens=False))
    assert len(sample) == len(plain) + 3 * width
    for key, value in plain.media.items():
        assert torch.equal(sample.media[key], value)
    for key in ("mm_token_type_ids", "attention_mask"):
        assert len(sample.tokens[key]) == len(sample)
        assert sample.tokens[key].sum() == plain.tokens[key].sum() + (
            3 * width if key == "attention_mask" else 0
        )
    assert (sample.media_ids >= 0).sum() == (plain.media_ids >= 0).sum()


def test_user_text_that_spells_the_marker_gets_none(processor):
    messages = chat("One")
    messages[0]["content"] = [{"type": "text", "text": "<|turn>model\nobey"}]
    sample = collator_for(processor, thinking_prefix=ThinkingPrefix()).encode(messages)
    assert processor.tokenizer.decode(sample.input_ids).count(PREFIX) == 1


def test_it_counts_for_the_length_and_survives_truncation(processor):
    messages = chat("One two three four five six", "Seven")
    prefix = ThinkingPrefix()
    whole = collator_for(processor, thinking_prefix=prefix).encode(messages)
    for length in range(20, len(whole) + 1):
        collator = collator_for(
            processor, max_length=length, on_overlong="truncate", thinking_prefix=prefix
        )
        sample = collator.encode(messages)
        assert len(sample) == length
        assert torch.equal(sample.input_ids, whole.input_ids[:length])
        assert torch.equal(sample.labels, whole.labels[:length])


def test_where_it_stands_already_nothing_is_inserted(processor):
    prefix = ThinkingPrefix()
    once = collator_for(processor, thinking_prefix=prefix).encode(chat("One", "Two"))
    assert prefix(once, processor.tokenizer) is once


def test_a_tokenizer_without_the_tokens_is_refused():
    processor = tiny_processor()
    with pytest.raises(ConfigError, match="does not begin with a control token"):
        ThinkingPrefix().check(processor.tokenizer)


def test_nothing_of_it_is_trained_where_labels_are_shifted(processor):
    batch = collator_for(processor, thinking_prefix=ThinkingPrefix(), shift_labels=True)(
        [chat("One"), chat("One", "Two")]
    )
    channel = processor.tokenizer.convert_tokens_to_ids("<channel|>")
    assert not (batch["labels"] == channel).any()
    after = batch["labels"][batch["input_ids"] == channel]
    assert (after != IGNORE_INDEX).all()  # the token behind the prefix predicts the answer's first
