"""Families served by the default collator or a small one: labels, and the processor's own batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conversations import conversations, given_for_family
from tests.decoding import normal, trained_texts
from tests.media_bytes import video_bytes
from tests.processors import processor_of
from tests.processors.families import MORE_FAMILIES
from vlmcollate import collator_for
from vlmcollate.errors import LabelError
from vlmcollate.formats import read_example

MOVIE = video_bytes([i / 10 for i in range(20)])


def chat(*sizes, again=False):
    images = [{"type": "image", "image": Image.new("RGB", size, "teal")} for size in sizes]
    messages = [
        {"role": "user", "content": [*images, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    ]
    if again:
        messages += [
            {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]},
        ]
    return messages


@pytest.mark.parametrize("name", MORE_FAMILIES)
@given_for_family(messages=conversations(max_turns=3, max_images=1))
def test_exactly_the_answers_train(name, messages):
    processor, family = processor_of(name), MORE_FAMILIES[name]
    if name in ("llava_next",):  # its template takes no system message
        messages = [message for message in messages if message["role"] != "system"]
    sample = collator_for(processor, on_template_omission="allow", **family.options).encode(
        messages
    )
    found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    answers = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    expected = [family.before + (a.strip() if family.trims else a) + family.stop for a in answers]
    assert list(map(normal, found)) == list(map(normal, expected))


@pytest.mark.parametrize("name", MORE_FAMILIES)
def test_equals_the_processors_own_batch(name):
    processor = processor_of(name)
    collator = collator_for(processor, **MORE_FAMILIES[name].options)
    chats = [chat((64, 48)), chat((40, 90), (30, 30), again=True), chat((200, 120), again=True)]
    images = [[part["image"] for part in c[0]["content"][:-1]] for c in chats]
    theirs = processor(
        text=[collator.render(read_example(c)).text for c in chats]
        if name == "llava"  # whose template ends no answer
        else [processor.apply_chat_template(c) + collator.family.last_turn_end for c in chats],
        images=images,
        padding=True,
        padding_side="right",
        add_special_tokens=False,
        return_tensors="pt",
    )

    ours = collator(chats)

    assert set(ours) - set(theirs) == {"labels", "n_images_per_sample"}
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key
    assert ours["n_images_per_sample"].tolist() == [1, 2, 1]
    for row, messages in enumerate(chats):
        alone = collator.encode(messages)
        assert torch.equal(ours["labels"][row][: len(alone)], alone.labels)
        assert trained_texts(processor.tokenizer, alone.input_ids, alone.labels)[0] == (
            MORE_FAMILIES[name].before + "A cat." + MORE_FAMILIES[name].stop
        )


@pytest.mark.parametrize("name", ["glm4v", "glm46v"])
def test_glms_turns_are_ended_by_the_next_role(name):
    """The middle turn by the marker that stands there, the last by one that is added."""
    processor = processor_of(name)
    sample = collator_for(processor, **MORE_FAMILIES[name].options).encode(chat(again=True))
    marker = processor.tokenizer.convert_tokens_to_ids("<|user|>")
    stops = (sample.input_ids == marker).nonzero()[:, 0].tolist()
    assert len(stops) == 3  # the opener of each user turn, and the one at the end
    assert [int(sample.labels[at]) == marker for at in stops] == [False, True, True]
    assert stops[-1] == len(sample) - 1


@pytest.mark.parametrize("name", ["internvl", "glm4v", "glm46v", "molmo2"])
@pytest.mark.parametrize("with_image", [False, True])
def test_a_video_equals_the_processors_own(name, with_image):
    processor = processor_of(name)
    collator = collator_for(processor, **MORE_FAMILIES[name].options)
    messages = chat((64, 48)) if with_image else chat()
    messages[0]["content"].insert(0, {"type": "video", "video": MOVIE})
    video = collator.media.load_video(MOVIE, sampling=collator.traits.frame_sampling, where="video")
    images = {"images": [[messages[0]["content"][1]["image"]]]} if with_image else {}
    theirs = processor(
        text=[processor.apply_chat_template(messages) + collator.family.last_turn_end],
        videos=[video.frames],
        videos_kwargs={"video_metadata": [video.metadata()], "do_sample_frames": False},
        add_special_tokens=False,
        return_tensors="pt",
        **images,
    )

    ours = collator([messages])

    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


def test_inklings_sounds_equal_the_processors_own():
    """Their padding has a value that follows from the processor's settings."""
    processor = processor_of("inkling")
    tone = (np.sin(np.arange(40000) / 20) * 0.3).astype(np.float32)
    sounds = [tone[:9000], tone, tone[:300]]
    chats = []
    for sound in sounds:
        messages = chat()
        messages[0]["content"].insert(0, {"type": "audio", "audio": (sound, 16000)})
        chats.append(messages)
    theirs = processor(
        text=[processor.apply_chat_template(c) for c in chats],
        audio=sounds,
        padding=True,
        padding_side="right",
        add_special_tokens=False,
        return_tensors="pt",
    )

    ours = collator_for(processor)(chats)

    assert set(ours) - set(theirs) == {"labels", "n_audios_per_sample"}
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


@pytest.mark.parametrize("name", ["glm4v", "glm46v"])
@pytest.mark.parametrize("between", [("assistant", ""), ("assistant", "\n"), ("system", "")])
def test_a_message_without_words_ends_no_turn_of_glm(name, between):
    """Its marker is no stop token, and the one behind it belongs to another turn."""
    role, content = between
    messages = [*chat(again=True)]
    messages.insert(2, {"role": role, "content": content})
    with pytest.raises(LabelError, match=r"messages\[1\]: this turn has no stop token"):
        collator_for(processor_of(name), **MORE_FAMILIES[name].options).encode(messages)
