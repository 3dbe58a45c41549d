"""The tokens around media in an answer do not train, and all words beside it do."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.decoding import trained_texts
from tests.processors import processor_of
from vlmcollate import collator_for
from vlmcollate.errors import ConversationError, LabelError
from vlmcollate.labels import RenderedSpanLabels, TemplateMarkerLabels

IMAGE = {"type": "image", "image": Image.new("RGB", (56, 56))}
CONTENTS = {
    "between words": ([{"type": "text", "text": "Here"}, IMAGE, {"type": "text", "text": "it is"}]),
    "two in a row": (
        [{"type": "text", "text": "Here"}, IMAGE, IMAGE, {"type": "text", "text": "a"}]
    ),
    "at the end": ([{"type": "text", "text": "Here"}, IMAGE]),
    "alone": ([IMAGE]),
}
STOPS = {"qwen2_5_vl": "<|im_end|>", "kimi_k25": "<|im_end|>", "gemma3": "<end_of_turn>"}


@pytest.mark.parametrize("family", STOPS)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("by_markers", [False, True])
def test_only_the_words_and_the_stop_token_of_an_answer_with_media_train(
    family, content, by_markers
):
    labels = TemplateMarkerLabels() if by_markers else RenderedSpanLabels()
    collator = collator_for(processor_of(family), labels=labels)
    chat = [{"role": "user", "content": "Draw"}, {"role": "assistant", "content": content}]
    sample = collator.encode(chat)
    trained = sample.labels != -100
    tokenizer = collator.processor.tokenizer
    words = "".join(part.get("text", "") for part in content)
    said = "".join(tokenizer.convert_ids_to_tokens(sample.input_ids[trained].tolist()))
    for space in ("Ġ", "▁", "Ċ", "\n"):
        said = said.replace(space, "")
    assert said == words.replace(" ", "") + STOPS[family]
    assert not trained[sample.media_ids >= 0].any()


def trained(family, content, **options):
    """Returns the runs of text that train, and the sample."""
    collator = collator_for(processor_of(family), **options)
    chat = [{"role": "user", "content": "Draw"}, {"role": "assistant", "content": content}]
    sample = collator.encode(chat)
    return trained_texts(collator.processor.tokenizer, sample.input_ids, sample.labels), sample


@pytest.mark.parametrize("family", ["internvl", "llava"])
def test_the_newline_that_a_template_writes_behind_media_does_not_train(family):
    words, _ = trained(family, [IMAGE, {"type": "text", "text": "It is"}])
    assert "".join(words).lstrip() == "It is<|im_end|>"
    words, _ = trained(family, [IMAGE, IMAGE])
    assert "".join(words).lstrip() == "<|im_end|>"


def test_the_newline_of_the_answer_trains():
    words, _ = trained("qwen2_5_vl", [IMAGE, {"type": "text", "text": "\nIt is"}])
    assert words == ["\nIt is<|im_end|>"]


@pytest.mark.parametrize("asked", [{"weight": 1}, {"train": True}])
def test_a_weight_of_media_trains_what_stands_around_it(asked):
    content = [{"type": "text", "text": "Here"}, {**IMAGE, **asked}, IMAGE]
    words, sample = trained("qwen2_5_vl", content)
    assert words == ["Here<|vision_start|>", "<|vision_end|>", "<|im_end|>"]
    assert (sample.labels[sample.media_ids >= 0] == -100).all()
    words, _ = trained("qwen2_5_vl", content, split_turns=True)
    assert words == ["Here<|vision_start|>", "<|vision_end|>", "<|im_end|>"]
    words, _ = trained("internvl", [{**IMAGE, **asked}, {"type": "text", "text": "It is"}])
    assert words == ["\nIt is<|im_end|>"]


def test_the_weight_of_media_is_that_of_what_stands_around_it():
    _, sample = trained("qwen2_5_vl", [{"type": "text", "text": "Here"}, {**IMAGE, "weight": 0.5}])
    weights = sample.tokens["loss_weights"]
    assert weights[weights > 0].tolist()[-3:] == [0.5, 0.5, 1.0]
    assert (weights[sample.media_ids >= 0] == 0).all()
    words, _ = trained("qwen2_5_vl", [{**IMAGE, "weight": 0}])
    assert words == ["<|im_end|>"]


def test_a_weight_of_media_that_can_have_no_effect_is_refused():
    with pytest.raises(LabelError, match=r"messages\[1\].content\[0\]: has the weight 1, which"):
        trained("pixtral", [{**IMAGE, "weight": 1}])
    asked = {"role": "user", "content": [{**IMAGE, "weight": 1}, {"type": "text", "text": "Q"}]}
    collator = collator_for(processor_of("qwen2_5_vl"))
    with pytest.raises(ConversationError, match="does not train, but a part"):
        collator.encode([asked, {"role": "assistant", "content": "A"}])
    untrained = {"role": "assistant", "content": [{**IMAGE, "weight": 1}], "weight": 0}
    with pytest.raises(ConversationError, match="does not train, but a part"):
        collator.encode([{"role": "user", "content": "Q"}, untrained])
