"""A rollout keeps the tokens that were sampled, and grows as its conversation is encoded whole."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch

from tests.processors.cases import CASES, SERVED, collator_of, image, in_turns, message
from tests.template_corpus import Judge, templates
from vlmcollate import BlockCausalMask, collator_for, split_microbatches
from vlmcollate.errors import CollateError, ConfigError, ConversationError, SampleTooLongError


def answers_of(sample):
    """Returns the trained tokens of each answer."""
    trains = sample.labels != -100
    return [
        sample.labels[trains & (sample.message_ids == k)].tolist()
        for k in sample.message_ids[trains].unique().tolist()
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", in_turns(SERVED, 1))
def test_sampled_answers_grow_to_the_whole_conversation(name):
    case, collator, tried = CASES[name], collator_of(name), 0
    takes_images = "image" in case.kinds and "image" not in case.error
    chats: list[Any] = [[[], [], []]]
    if takes_images:
        chats += [[[image(0)], [], []], [[image(0)], [image(1)], [image(2)]]]
    for media in chats:
        chat = []
        for turn, parts in enumerate(media):
            chat.append(message("user", f"Question {turn}?", *parts))
            chat.append(message("assistant", f"Answer {turn}."))
        try:
            whole = collator.encode(chat)
        except CollateError:  # a model of one turn or of one image
            continue
        answers = answers_of(whole)
        assert len(answers) == 3
        prompt = collator.prompt(chat[:1])
        prompt = prompt.extended(answers[0]).followed_by(chat[2:3])
        prompt = prompt.extended(answers[1]).followed_by(chat[4:5])
        found = prompt.sample(answers[2])
        length = len(found)
        assert found.input_ids.tolist() == whole.input_ids[:length].tolist()
        assert found.labels.tolist() == whole.labels[:length].tolist()
        assert (whole.labels[length:] == -100).all()
        assert found.media_ids.tolist() == whole.media_ids[:length].tolist()
        assert dict(found.media_counts) == dict(whole.media_counts)
        collator.stack([found])
        tried += 1
    if not tried:
        pytest.skip("the model takes one turn")


RANDOM = ("Qwen2_5_VLProcessor", "SmolVLMProcessor", "Qwen3VLProcessor", "MllamaProcessor")


def random_ids(random, collator):
    """Returns sampled tokens, mostly with a stop token behind them, that stand for no media."""
    tokenizer, traits = collator.processor.tokenizer, collator.traits
    held = {*traits.placeholders.values()}.union(*traits.media_tokens.values())
    ids = [int(i) for i in random.integers(0, len(tokenizer), random.integers(1, 12))]
    ids = [i for i in ids if i not in tokenizer.convert_tokens_to_ids([*held])] or [5]
    return ids + [int(random.choice(collator.stop_ids))] * int(random.random() < 0.7)


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_rollout_keeps_what_was_sampled(name):
    collator = collator_of(name)
    for seed in range(50):
        random = np.random.default_rng(seed)
        prompt = collator.prompt([message("user", "Look: <|im_end|>", image(seed % 3))])
        sampled, chances, lengths = [], [], []
        for turn in range(random.integers(1, 5)):
            if turn:
                shown = [image(turn % 3)] if random.random() < 0.5 else []
                prompt = prompt.followed_by([message("user", f"Result {turn}", *shown)])
            lengths.append(len(prompt))
            sampled.append(random_ids(random, collator))
            chances.append(-random.random(len(sampled[-1])))
            prompt = prompt.extended(sampled[-1], chances[-1])
        sample = prompt.encoded
        mask = torch.zeros(len(sample), dtype=torch.bool)
        for start, ids, values in zip(lengths, sampled, chances, strict=True):
            end = start + len(ids)
            mask[start:end] = True
            assert sample.input_ids[start:end].tolist() == ids
            np.testing.assert_allclose(sample.tokens["logprobs"][start:end], values, rtol=1e-6)
        assert torch.equal(sample.labels != -100, mask)
        assert torch.equal(sample.labels[mask], sample.input_ids[mask])
        assert (sample.tokens["logprobs"][~mask] == 0).all()
        items = sample.media_counts["image"]
        assert sample.media_ids.max() == items - 1 == len(prompt.media) - 1
        placeholder = collator.traits.placeholders["image"]
        own = collator.processor.tokenizer.convert_tokens_to_ids(placeholder)
        assert prompt.token_ids.count(own) == items
        assert prompt.text.count(placeholder) == items
        other = collator.prompt([message("user", "Hi")]).sample([5], logprobs=[-0.5])
        batch = collator.stack([sample, other])
        assert batch["logprobs"].shape == batch["input_ids"].shape


def test_a_tools_result_with_an_image_follows_a_call():
    collator = collator_of("Qwen2_5_VLProcessor")
    prompt = collator.prompt([message("user", "Look.")])
    ids = collator.processor.tokenizer("<tool_call>f</tool_call><|im_end|>")["input_ids"]
    result = {"role": "tool", "content": [image(0), {"type": "text", "text": "Seen."}]}
    grown = prompt.extended(ids).followed_by([result])
    text = collator.processor.tokenizer.decode(grown.encoded.input_ids[len(prompt) + len(ids) :])
    assert text.startswith("\n<|im_start|>")
    assert "Seen." in text
    assert text.endswith("<|im_start|>assistant\n")
    assert dict(grown.encoded.media_counts) == {"image": 1}


def test_an_answer_without_a_stop_gets_the_templates_which_does_not_train():
    collator = collator_of("Qwen2_5_VLProcessor")
    prompt = collator.prompt([message("user", "Look.")]).extended([785, 8251])
    grown = prompt.followed_by([message("user", "Go on.")])
    stop = collator.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert grown.encoded.input_ids[len(prompt)] == stop
    assert grown.encoded.labels[len(prompt)] == -100


@pytest.mark.parametrize(
    ("ids", "logprobs", "words"),
    [
        ([], None, "expected at least one token id"),
        ([1.5], None, "expected at least one token id"),
        ([[1, 2]], None, "expected at least one token id"),
        ("text", None, "expected a list of token ids"),
        ([1, -100], None, r"sampled_ids\[1\]: expected ids from 0"),
        ([1, 10**7], None, "remove the padding"),
        ([1, 151655], None, r"sampled_ids\[1\]: the model sampled '<\|image_pad\|>'"),
        ([1, 2], [0.5], r"logprobs: expected one log probability for each of 2 tokens"),
    ],
)
def test_what_was_not_sampled_is_refused(ids, logprobs, words):
    prompt = collator_of("Qwen2_5_VLProcessor").prompt([message("user", "Look.")])
    with pytest.raises(ConversationError, match=words):
        prompt.sample(ids, logprobs)


def test_a_rollout_has_the_options_of_its_collator():
    collator = collator_of("Qwen2_5_VLProcessor")
    filled = attrs.evolve(collator, dummy_media="sample").prompt([message("user", "Look.")])
    plain, sample = collator.prompt([message("user", "Look.")]).sample([5]), filled.sample([5])
    assert len(sample) > len(plain)
    assert "pixel_values" in sample.media
    assert filled.encoded.media == {}  # from which the model generates
    short = attrs.evolve(collator, max_length=len(plain)).prompt([message("user", "Look.")])
    assert len(short.sample([5])) == len(plain)
    with pytest.raises(SampleTooLongError, match="with those that were sampled"):
        short.sample([5, 6])


def test_messages_follow_an_answer_alone():
    collator = collator_of("Qwen2_5_VLProcessor")
    prompt = collator.prompt([message("user", "Look.")])
    with pytest.raises(ConfigError, match="no answer precedes these messages"):
        prompt.followed_by([message("user", "And?")])
    with pytest.raises(ConversationError):
        prompt.extended([5]).followed_by([])
    ended = prompt.extended([5]).extended([6, collator.stop_ids[0]])
    with pytest.raises(ConfigError, match=r"ended with '<\|im_end\|>'; call followed_by"):
        ended.extended([5])


GO, RESULT = (
    {"role": "user", "content": "Go on."},
    {"role": "tool", "content": "42", "name": "calc"},
)


ENDS_OF_CALLS = {
    "trl/qwen3": "<|im_end|>",
    "trl/gptoss": "<|call|>",
    "trl/llama3_1": "<|eot_id|>",
    "trl/deepseekv3": "<｜end▁of▁sentence｜>",
    "trl/gemma4": "<|tool_response>",
    "trl/glm4moe": "<|observation|>",
}
"""For each template, the token that ends a call."""


@pytest.mark.parametrize("template", ENDS_OF_CALLS)
@pytest.mark.parametrize("messages", [[GO], [RESULT]], ids=["question", "result"])
@pytest.mark.parametrize("is_ended", [True, False])
def test_what_follows_an_answer_is_what_the_template_writes(template, messages, is_ended):
    processor = Judge(templates()[template]).processor
    collator = collator_for(processor, on_unread="allow", on_template_omission="allow")
    tokenizer = processor.tokenizer
    ends = [collator.renderer.turn_ends.tokens[0], ENDS_OF_CALLS[template]]
    end, other = ends if messages == [GO] else ends[::-1]
    prompt = collator.prompt([{"role": "user", "content": "Compute."}])
    stop = [tokenizer.convert_tokens_to_ids(end)] if is_ended else []
    said = prompt.extended([*tokenizer("So", add_special_tokens=False)["input_ids"], *stop])
    grown = said.followed_by(messages)
    tail = tokenizer.decode(grown.encoded.input_ids[len(said) :].tolist())
    assert ("42" if messages == [RESULT] else "Go on.") in tail
    assert "arguments" not in tail
    assert tail.startswith(end) != is_ended
    assert tokenizer.decode(grown.token_ids) == grown.text
    if end != other:
        said = prompt.extended([40, tokenizer.convert_tokens_to_ids(other)])
        with pytest.raises(ConversationError, match="the answer was ended by"):
            said.followed_by(messages)


@pytest.mark.parametrize(
    ("template", "is_refused"), [("axolotl/command_a_tool_use", True), ("trl/qwen3", False)]
)
def test_results_follow_earlier_ones_unless_a_template_numbers_them(template, is_refused):
    processor = Judge(templates()[template]).processor
    collator = collator_for(processor, on_unread="allow", on_template_omission="allow")
    first = collator.prompt([{"role": "user", "content": "Compute."}]).extended([40])
    second = first.followed_by([{**RESULT, "tool_call_id": "call00000"}]).extended([41])
    result = {**RESULT, "tool_call_id": "call00001"}
    if not is_refused:
        assert len(second.followed_by([result])) > len(second)
        return
    with pytest.raises(ConversationError, match="otherwise behind earlier ones"):
        second.followed_by([result])
    assert second.followed_by([GO])


@pytest.mark.parametrize("policy", ["on_unread", "on_template_omission"])
def test_what_a_template_ignores_behind_an_answer_is_reported(policy):
    collator = collator_of("Qwen2_5_VLProcessor", **{policy: "raise"})
    prompt = collator.prompt([message("user", "Look.")]).extended([5])
    calls = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    ignored = (
        {"foo": "bar"} if policy == "on_unread" else {"tool_calls": calls, "role": "assistant"}
    )
    with pytest.raises(ConversationError, match=r"messages\[0\]"):
        prompt.followed_by([{**message("user", "And?"), **ignored}, message("user", "So?")])


def test_log_probabilities_are_complete_and_possible():
    prompt = collator_of("Qwen2_5_VLProcessor").prompt([message("user", "Look.")])
    second = prompt.extended([5]).followed_by([message("user", "And?")])
    with pytest.raises(ConversationError, match="some sampled answers have log probabilities"):
        second.sample([5], logprobs=[-1.0])
    for wrong in ([0.5], [float("nan")], [None]):
        with pytest.raises(ConversationError, match="logprobs: expected"):
            prompt.sample([5], logprobs=wrong)


def test_log_probabilities_stand_with_the_labels_of_their_tokens():
    collator = collator_of("Qwen2_5_VLProcessor")
    prompt = collator.prompt([message("user", "Look.")])
    known, unknown = prompt.sample([40, 41], [-1.0, -2.0]), prompt.sample([42])
    untrained = collator.dummy_sample()
    shifting = attrs.evolve(collator, shift_labels=True)
    for batch in (collator.stack([known, untrained]), shifting.stack([untrained, known])):
        assert batch["logprobs"][batch["labels"] != -100].tolist() == [-1.0, -2.0]
        parts = split_microbatches(batch, 2, items=collator.family.joins)
        assert sorted(part["logprobs"].min().item() for part in parts) == [-2.0, 0.0]
    grown = [prompt.extended([40], [-1.0]), prompt.extended([40, 41])]
    assert "logprobs" not in collator.stack_prompts(grown)  # which generate does not take
    packing = attrs.evolve(collator, padding=BlockCausalMask())
    for join in (collator.stack, packing.stack, packing.pack, packing.pack_branches):
        with pytest.raises(ConfigError, match="sample 1 trains without log probabilities"):
            join([known, unknown])


def test_padding_behind_the_stop_token_is_refused():
    collator = collator_of("Qwen2_5_VLProcessor")
    stop, pad = collator.stop_ids[0], collator.processor.tokenizer.pad_token_id
    with pytest.raises(ConversationError, match="tokens follow the stop token"):
        collator.prompt([message("user", "Look.")]).sample([5, stop, pad])
