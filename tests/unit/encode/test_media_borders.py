"""The tokens around media in an answer do not train, and all words beside it do."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.processors import processor_of
from vlmcollate import collator_for
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
