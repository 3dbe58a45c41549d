"""NeMo Automodel's functions on real processors: their conventions, and exact labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaNextConfig

from tests.conformance.test_laws import SERVED
from tests.measuring import PARTS
from tests.processors import build, processor_of
from tests.processors.cases import CASES, in_turns
from tests.processors.families import FAMILIES
from tests.unit.models.test_nemotron_parse import TASK, page
from vlmcollate import ConfigError, automodel, collator_for
from vlmcollate.automodel.audio import _insert_audio  # where phi4_mm_collate_fn puts the audio
from vlmcollate.errors import EmptyBatchError, LabelError, MediaMismatchError, SampleTooLongError

# names of `automodel` with an underscore are NeMo Automodel's own, which its recipes import

TONE = (np.sin(np.arange(16000) / 20) * 0.3).astype(np.float32)


def chat(*sizes: tuple[int, int], answer: str = "A cat.") -> dict[str, Any]:
    parts: list[Any] = [{"type": "image", "image": Image.new("RGB", s, "teal")} for s in sizes]
    return {
        "conversation": [
            {"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
    }


EXAMPLES = [chat((64, 48)), chat(answer="No image here."), chat((40, 90), (120, 60), answer="Two.")]


def answers(batch: Any, tokenizer: Any) -> list[str]:
    """What trains in each row, by the shifted labels alone."""
    return [tokenizer.decode(row[row != -100]).strip() for row in batch["labels"]]


def is_shifted(batch: Any) -> bool:
    """Each label is the id one column later, and all rows are one column short."""
    ids, labels = batch["input_ids"], batch["labels"]
    trained = labels[:, :-1] != -100
    return ids.shape == labels.shape and torch.equal(labels[:, :-1][trained], ids[:, 1:][trained])


@pytest.mark.parametrize("name", FAMILIES)
def test_default_collate_fn(name: str) -> None:
    processor, family = processor_of(name), FAMILIES[name]
    batch = automodel.default_collate_fn(EXAMPLES, processor)
    assert answers(batch, processor.tokenizer) == [
        text + family.stop for text in ("A cat.", "No image here.", "Two.")
    ]
    assert is_shifted(batch)
    assert batch["pixel_values"].dtype == torch.bfloat16
    assert batch["n_images_per_sample"].tolist() == [1, 0, 2]
    assert "position_ids" not in batch
    unshifted = collator_for(processor)([e["conversation"] for e in EXAMPLES])
    assert torch.equal(batch["input_ids"], unshifted["input_ids"][:, :-1])
    assert torch.equal(batch["labels"], unshifted["labels"][:, 1:])


def test_default_collate_fn_with_a_length() -> None:
    processor = processor_of("qwen2_5_vl")
    long = chat(answer="word " * 300)
    batch = automodel.default_collate_fn([EXAMPLES[0], long], processor, max_length=96)
    assert batch["input_ids"].shape == (2, 95)
    kept = automodel.default_collate_fn([EXAMPLES[0], long], processor, 96, drop_overlong=True)
    assert kept["input_ids"].shape == (1, 95)
    with pytest.raises(EmptyBatchError):
        automodel.default_collate_fn([long], processor, 96, drop_overlong=True)


def test_the_hook_comes_before_the_labels() -> None:
    processor = processor_of("qwen2_5_vl")
    seen = {}

    def hook(batch: dict[str, torch.Tensor], given: Any) -> dict[str, torch.Tensor]:
        seen.update(batch)
        assert given is processor
        return {**batch, "input_ids": batch["input_ids"].clone()}

    plain = automodel.default_collate_fn(EXAMPLES, processor)
    batch = automodel.default_collate_fn(EXAMPLES, processor, _post_tokenize_hook=hook)
    assert "labels" not in seen
    assert seen["input_ids"].shape[1] == batch["input_ids"].shape[1] + 1
    assert batch.keys() == plain.keys()
    for key, value in plain.items():
        assert torch.equal(batch[key], value), key


def test_the_hook_keeps_messages_switched_off_and_weights() -> None:
    processor = processor_of("qwen2_5_vl")
    first = EXAMPLES[0]["conversation"]
    off = [*first[:1], {**first[1], "train": False}, *talk(answer="Yes.")["conversation"]]
    examples = [{"conversation": off}, talk(answer="Half, or so.", weight=0.5), EXAMPLES[2]]

    def longer(batch: dict[str, torch.Tensor], _: Any) -> dict[str, torch.Tensor]:
        assert "loss_weights" not in batch
        tokens = ("input_ids", "attention_mask", "mm_token_type_ids")
        pad = processor.tokenizer.pad_token_id
        return {
            key: torch.nn.functional.pad(value, (0, 3), value=pad if key == "input_ids" else 0)
            if key in tokens
            else value
            for key, value in batch.items()
        }

    plain = automodel.default_collate_fn(examples, processor)
    same = automodel.default_collate_fn(
        examples, processor, _post_tokenize_hook=lambda batch, _: batch
    )
    assert answers(same, processor.tokenizer)[0] == "Yes.<|im_end|>"
    assert same.keys() == plain.keys()
    for key, value in plain.items():
        assert torch.equal(same[key], value), key
    wide = automodel.default_collate_fn(examples, processor, _post_tokenize_hook=longer)
    assert wide["input_ids"].shape == wide["loss_weights"].shape == wide["labels"].shape
    assert torch.equal(wide["loss_weights"][:, :-3], plain["loss_weights"])
    assert torch.equal(wide["labels"][:, :-3], plain["labels"])


THINKS_NOT = {"enable_thinking": False}


def test_a_think_block_that_the_template_forces_is_not_trained() -> None:
    processor, _ = of_family("Glm4vProcessor")
    examples = [talk(), talk(answer="A longer answer.")]
    expected = ["A cat.<|user|>", "A longer answer.<|user|>"]
    batch = automodel.default_collate_fn(examples, processor, template_kwargs=THINKS_NOT)
    assert answers(batch, processor.tokenizer) == expected
    hooked = automodel.default_collate_fn(
        examples, processor, None, False, lambda b, _: b, template_kwargs=THINKS_NOT
    )
    assert torch.equal(hooked["labels"], batch["labels"])
    ids = collator_for(processor, template_kwargs=THINKS_NOT)([e["conversation"] for e in examples])
    found = automodel.build_labels_from_template(
        ids["input_ids"],
        [e["conversation"] for e in examples],
        processor,
        template_kwargs=THINKS_NOT,
    )
    assert torch.equal(found, ids["labels"])


def test_padding_ends_no_turn() -> None:
    processor = build("glm4v")
    tokenizer = processor.tokenizer
    tokenizer.pad_token = "<|endoftext|>"
    conversations = [talk()["conversation"], talk(answer="A longer answer.")["conversation"]]
    pad, user = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|user|>"])
    collator = collator_for(processor, template_kwargs=THINKS_NOT)
    batch = collator(conversations)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    end = int(mask[0].sum()) - 1
    assert ids[0, end] == user
    assert ids[0, end + 1] == pad

    def label(ids: torch.Tensor, **more: Any) -> torch.Tensor:
        return automodel.build_labels_from_template(
            ids, conversations, processor, template_kwargs=THINKS_NOT, **more
        )

    assert torch.equal(label(ids, attention_mask=mask), batch["labels"])
    open_ended = ids.clone()  # as a tokenizer leaves it that writes no <|user|> behind the chat
    open_ended[0, end] = pad
    for find in (label, lambda ids: automodel.build_labels(ids, conversations, processor)):
        with pytest.raises(LabelError, match=r"sample 0, .*only padding ends"):
            find(open_ended)
    held = mask.clone()
    held[0, end] = 0
    with pytest.raises(LabelError, match=r"sample 0.*no stop token"):
        label(open_ended, attention_mask=held)
    ended = label(open_ended, attention_mask=mask)  # the token is one of the answer's
    assert ended[0, end] == pad
    assert ended[0, end + 1] == -100

    def hook(batch: dict[str, torch.Tensor], _: Any) -> dict[str, torch.Tensor]:
        return {**batch, "input_ids": open_ended, "attention_mask": held}

    with pytest.raises(LabelError, match=r"sample 0.*no stop token"):
        automodel.default_collate_fn(
            [{"conversation": c} for c in conversations],
            processor,
            _post_tokenize_hook=hook,
            template_kwargs=THINKS_NOT,
        )


def test_a_pad_token_that_ends_every_turn_still_does() -> None:
    processor = build("llava_next")
    processor.tokenizer.eos_token = "</s>"
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    conversations = [talk()["conversation"], talk(answer="A longer answer.")["conversation"]]
    batch = collator_for(processor)(conversations)
    for label in (automodel.build_labels, automodel.build_labels_from_template):
        assert torch.equal(label(batch["input_ids"], conversations, processor), batch["labels"])


def test_labels_from_ids_look_at_the_weights() -> None:
    processor = processor_of("qwen2_5_vl")
    first, second = talk(weight=0.0)["conversation"], talk(answer="A dog.", weight=2.0)
    conversation = [*first, *second["conversation"]]
    batch = collator_for(processor)([conversation])
    for label in (automodel.build_labels, automodel.build_labels_from_template):
        assert torch.equal(label(batch["input_ids"], [conversation], processor), batch["labels"])


def test_families_without_a_template_are_searched() -> None:
    processor, _ = of_family("PaliGemmaProcessor")
    conversations = [talk(PARTS["image"])["conversation"]]
    batch = collator_for(processor)(conversations)
    found = automodel.build_labels_from_template(batch["input_ids"], conversations, processor)
    assert torch.equal(found, batch["labels"])


def test_a_processor_that_changes_is_read_anew() -> None:
    processor = build("llava")
    processor.tokenizer.eos_token = "</s>"
    automodel.default_collate_fn([talk()], processor)  # its template ends no answer
    template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'][0]['text'] }}"
        "{% if m['role'] == 'assistant' %}</s>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    processor.chat_template = template
    batch = automodel.default_collate_fn([talk()], processor)
    expected = collator_for(processor)([talk()["conversation"]])
    assert torch.equal(batch["input_ids"], expected["input_ids"][:, :-1])
    processor.tokenizer.add_tokens(["<end>"], special_tokens=True)
    processor.tokenizer.eos_token = "<end>"
    processor.chat_template = template.replace("</s>", "<end>")
    batch = automodel.default_collate_fn([talk()], processor)
    assert answers(batch, processor.tokenizer) == ["A cat.<end>"]


@pytest.mark.parametrize("drop", [True, False])
def test_the_hook_with_a_length(drop: bool) -> None:  # a parameter of the test
    processor = processor_of("qwen2_5_vl")
    examples = [EXAMPLES[0], chat(answer="word " * 300)]
    if not drop:  # a turn that is cut off has no end to find
        with pytest.raises(LabelError):
            automodel.default_collate_fn(examples, processor, 96, drop, lambda batch, _: batch)
        return
    batch = automodel.default_collate_fn(examples, processor, 96, drop, lambda batch, _: batch)
    assert answers(batch, processor.tokenizer) == ["A cat.<|im_end|>"]


def test_qwen2_5() -> None:
    processor = processor_of("qwen2_5_vl")
    batch = automodel.COLLATE_FNS["Qwen2_5_VLProcessor"](EXAMPLES, processor)
    assert answers(batch, processor.tokenizer)[0] == "A cat.<|im_end|>"
    assert is_shifted(batch)
    assert batch["pixel_values"].dtype == torch.float32
    assert len(batch["image_grid_thw"]) == 3


def test_qwen3_omni() -> None:
    processor = processor_of("qwen3_omni")
    example = chat((64, 64))
    example["conversation"][0]["content"].append({"type": "audio", "audio": (TONE, 16000)})
    batch = automodel.qwen3_omni_collate_fn([example, EXAMPLES[1]], processor)
    assert answers(batch, processor.tokenizer) == ["A cat.<|im_end|>", "No image here.<|im_end|>"]
    assert is_shifted(batch)
    assert batch["attention_mask"][1].tolist() == sorted(
        batch["attention_mask"][1].tolist(), reverse=True
    )
    with pytest.raises(ConfigError, match="use_audio_in_video"):
        automodel.qwen3_omni_collate_fn(EXAMPLES, processor_of("qwen2_5_vl"))


def test_kimi_vl() -> None:
    processor = processor_of("kimi_vl_stand_in")
    batch = automodel.kimi_vl_collate_fn(
        [*EXAMPLES, chat(answer="word " * 300)], processor, max_length=96
    )
    assert batch["input_ids"].shape == (3, 95)
    assert answers(batch, processor.tokenizer)[2] == "Two.<|im_end|>"
    assert is_shifted(batch)


def test_kimi_k25() -> None:
    processor = processor_of("kimi_k25_remote_stand_in")
    batch = automodel.kimi_k25_vl_collate_fn(EXAMPLES, processor, max_length=96)
    assert batch["input_ids"].shape == (3, 95)
    grids = batch["grid_thws"]
    assert torch.equal(batch["image_grid_hws"], grids[:, 1:])
    assert batch["n_images_per_sample"].tolist() == [1, 0, 2]
    media = processor.tokenizer.convert_tokens_to_ids("<|media_pad|>")
    features = ((grids[:, 1] // 2) * (grids[:, 2] // 2)).tolist()
    found = (batch["input_ids"] == media).sum(dim=1).tolist()
    assert found == [features[0], 0, features[1] + features[2]]
    assert is_shifted(batch)


def test_expand_image_tokens() -> None:
    ids = torch.tensor([5, 9, 6, 9], dtype=torch.int32)
    mask = torch.ones(4, dtype=torch.bool)
    grids = torch.tensor([[1, 2, 4], [1, 4, 2]])
    found, wide = automodel._expand_image_tokens(ids, mask, grids, 9)
    assert found.tolist() == [5, 9, 9, 6, 9, 9]
    assert found.dtype == torch.int32
    assert wide.dtype == torch.bool
    assert wide.tolist() == [True] * 6
    assert automodel._expand_image_tokens(ids, mask, grids, 7)[0] is ids
    with pytest.raises(MediaMismatchError):
        automodel._expand_image_tokens(ids, mask, grids[:1], 9)


def test_nemotron_parse() -> None:
    processor = processor_of("nemotron_parse_stand_in")
    examples = [{"conversation": page("# A title")}, {"conversation": page("Text, and more of it")}]
    batch = automodel.nemotron_parse_collate_fn(examples, processor)
    assert answers(batch, processor.tokenizer) == ["# A title</s>", "Text, and more of it</s>"]
    assert is_shifted(batch)
    trained = batch["labels"] != -100
    assert torch.equal(batch["decoder_input_ids"][trained], batch["input_ids"][trained])
    assert batch["decoder_attention_mask"][trained].all()
    assert batch["pixel_values"].dtype == torch.bfloat16
    other = automodel.nemotron_parse_collate_fn(examples, processor, task_prompt=f"{TASK}Hm: ")
    assert other["input_ids"].shape[1] > batch["input_ids"].shape[1]


@pytest.mark.parametrize("sound", [TONE, (TONE, 16000), {"array": TONE, "sampling_rate": 16000}])
@pytest.mark.parametrize("name", ["phi4mm_stand_in", "phi4_multimodal"])
def test_phi4(name: str, sound: Any) -> None:
    processor = processor_of(name)
    example = {
        "conversation": [
            {"role": "user", "content": "<|audio_1|>Write it down."},
            {"role": "assistant", "content": "A beep."},
        ],
        "audio": sound,
    }
    batch = automodel.phi4_mm_collate_fn([example], processor)
    assert answers(batch, processor.tokenizer) == ["A beep.<|end|>"]
    assert "<|audio_1|>" not in processor.tokenizer.decode(batch["input_ids"][0])
    assert int(batch["input_mode"]) == 2
    assert not {"input_image_embeds", "image_sizes", "image_attention_mask"} & batch.keys()
    assert is_shifted(batch)


@pytest.mark.parametrize("name", ["phi4mm_stand_in", "phi4_multimodal"])
def test_phi4_keeps_pictures(name: str) -> None:
    processor = processor_of(name)
    example = {**chat((64, 48)), "audio": TONE}
    words = {**talk(), "audio": TONE}
    batch = automodel.phi4_mm_collate_fn([example, words], processor)
    assert batch["input_mode"].tolist() == [3]
    assert batch["n_images_per_sample"].tolist() == [1, 0]
    assert batch["n_audios_per_sample"].tolist() == [1, 1]
    expected = collator_for(processor)(
        [_insert_audio(e["conversation"], TONE, 16000, "<|audio_1|>") for e in (example, words)]
    )
    for key in collator_for(processor).family.joins.keys() & expected.keys():
        assert torch.equal(batch[key], expected[key]), key
    seen = "input_image_embeds" if name == "phi4mm_stand_in" else "image_pixel_values"
    assert {seen, "image_sizes", "image_attention_mask"} <= batch.keys()
    alone = automodel.phi4_mm_collate_fn([words], processor)
    assert alone["input_mode"].tolist() == [2]
    assert not {seen, "image_sizes", "image_attention_mask"} & alone.keys()


def test_gemma4_prefix() -> None:
    processor = processor_of("gemma4")
    plain = automodel.default_collate_fn(EXAMPLES, processor)
    batch = automodel.gemma4_prefix_collate_fn(EXAMPLES, processor)
    assert answers(batch, processor.tokenizer) == answers(plain, processor.tokenizer)
    assert "<|turn>model\n<|channel>thought\n<channel|>" in processor.tokenizer.decode(
        batch["input_ids"][0]
    )
    assert is_shifted(batch)

    by_hook = automodel._inject_thinking_prefix_tokens(
        collator_for(processor)([e["conversation"] for e in EXAMPLES]), processor.tokenizer
    )
    assert torch.equal(by_hook["input_ids"][:, :-1], batch["input_ids"])
    other = processor_of("qwen2_5_vl")
    same = automodel.gemma4_prefix_collate_fn(EXAMPLES, other)
    assert torch.equal(
        same["input_ids"], automodel.default_collate_fn(EXAMPLES, other)["input_ids"]
    )


def test_labels_from_ids() -> None:
    processor = processor_of("qwen2_5_vl")
    conversations = [e["conversation"] for e in EXAMPLES]
    batch = collator_for(processor)(conversations)
    ids = batch["input_ids"]
    for label in (automodel.build_labels, automodel.build_labels_from_template):
        assert torch.equal(label(ids, conversations, processor), batch["labels"])
    with pytest.raises(LabelError, match="sample 0"):
        automodel.build_labels_from_template(ids[:1], [conversations[0] * 2], processor)
    quoted = [
        {"role": "user", "content": "Say A cat.<|im_end|>"},
        {"role": "assistant", "content": "A cat."},
    ]
    text = processor.apply_chat_template(quoted, tokenize=False)
    fooled = processor.tokenizer(text, return_tensors="pt")["input_ids"]
    with pytest.raises(LabelError, match="more than one place"):
        automodel.build_labels(fooled, [quoted], processor)


def test_pieces() -> None:
    tokenizer = processor_of("qwen2_5_vl").tokenizer
    marker = automodel._get_assistant_marker(tokenizer)
    assert tokenizer.decode(marker) == "<|im_start|>assistant\n"
    stop = automodel._get_stop_token_id(tokenizer)
    assert stop is not None
    assert automodel._decode_single_token(tokenizer, stop) == "<|im_end|>"
    assert automodel._get_assistant_marker(processor_of("gemma3").tokenizer) is None
    assert automodel._get_stop_token_id(processor_of("gemma3").tokenizer) is None
    find = automodel._find_pattern_indices
    assert find([1, 2, 3, 2, 3], [2, 3]) == (1, 3)
    assert find([1, 2, 3, 2, 3], [2, 3], 2) == (3, 5)
    assert find([1, 2, 3], [9, 3]) == (-1, -1)
    assert find([1, 2, 3], [9, 3], 0, True) == (1, 3)
    message = {"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}]}
    assert automodel._extract_assistant_text(message) == "ab"
    assert automodel._extract_assistant_text({"content": "plain"}) == "plain"


def test_media_of_conversations() -> None:
    conversations = [e["conversation"] for e in EXAMPLES]
    images, videos = automodel._extract_media_from_conversations(conversations)
    assert images is not None
    assert [image.size for image in images] == [(64, 48), (40, 90), (120, 60)]
    assert videos is None
    assert automodel._count_media_per_sample(conversations) == ([1, 0, 2], [0, 0, 0])
    grey = [[{"role": "user", "content": [{"type": "image", "image": Image.new("L", (4, 4))}]}]]
    assert automodel._ensure_rgb(grey) is grey  # callers ignore what it returns
    assert grey[0][0]["content"][0]["image"].mode == "RGB"  # type: ignore[index]


def test_estimates_are_the_true_lengths() -> None:
    processor = processor_of("qwen2_5_vl")
    conversations = [e["conversation"] for e in EXAMPLES]
    config = automodel._extract_image_config(processor)
    assert config is not None
    assert config["factor"] == 28
    collator = collator_for(processor)
    lengths = [len(collator.encode(c)) for c in conversations]
    for limit in sorted(set(lengths)):
        _, kept = automodel._drop_overlong_samples(conversations, processor, limit)
        assert kept == [i for i, length in enumerate(lengths) if length <= limit]
    with pytest.raises(EmptyBatchError):
        automodel._drop_overlong_samples(conversations, processor, min(lengths) - 1)


def test_pretokenized_samples_pad_to_the_same_batch() -> None:
    processor = processor_of("qwen2_5_vl")
    dataset = automodel.PreTokenizedDatasetWrapper(EXAMPLES, processor, inject_fake_images=False)
    batch = automodel.pad_collate_fn([dataset[i] for i in range(3)], processor)
    online = automodel.default_collate_fn(EXAMPLES, processor)
    assert batch.keys() == online.keys()
    for key, value in online.items():
        assert torch.equal(batch[key], value), key
    with pytest.raises(SampleTooLongError):
        automodel.pad_collate_fn([dataset[0]], processor, max_length=8)
    fake = automodel.PreTokenizedDatasetWrapper(EXAMPLES, processor)[1]
    media = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    is_media = fake["input_ids"] == media
    assert is_media.any()
    assert not fake["attention_mask"][is_media].any()
    assert (fake["labels"][is_media] == -100).all()


def of_family(name: str) -> tuple[Any, dict[str, Any]]:
    """The processor of a family, and the template variables that it needs."""
    case = CASES[name]
    try:
        return case.processor(), case.options.get("template_kwargs", {})
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this transformers has no {name}: {error}")


def talk(*parts: Any, answer: str = "A cat.", **more: Any) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": "What is it?"}]
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}], **more}
    return {"conversation": [{"role": "user", "content": content}, reply]}


def with_media_of(name: str) -> list[dict[str, Any]]:
    """Samples with each kind of media that a family takes, and one without, with a weight."""
    case = CASES[name]
    if name == "NemotronParseProcessor":
        return [talk(PARTS["image"]), talk(PARTS["image"], answer="A longer one.", weight=0.5)]
    examples = [talk(answer="Only words, and more of them.", weight=0.5)]
    for kind in case.kinds:
        if kind not in case.error:
            examples += [
                talk(PARTS[kind]),
                talk(*[PARTS[kind]] * case.most.get(kind, 2), answer="Two."),
            ]
    if "image" in case.kinds and "image" not in case.error:
        tall = {"type": "image", "image": Image.new("RGB", (60, 180), "red")}
        examples.append(talk(tall, answer="Another size."))
    return examples


@pytest.mark.parametrize("name", in_turns(SERVED, 0, step=4))
def test_pretokenized_samples_of_every_family_lose_nothing(name: str) -> None:
    processor, variables = of_family(name)
    examples = with_media_of(name)
    if name == "NemotronParseProcessor":
        online = automodel.nemotron_parse_collate_fn(examples, processor)
    else:
        online = automodel.default_collate_fn(examples, processor, template_kwargs=variables)
    dataset = automodel.PreTokenizedDatasetWrapper(
        examples, processor, inject_fake_images=False, template_kwargs=variables
    )
    batch = automodel.pad_collate_fn([dataset[i] for i in range(len(dataset))], processor)
    assert "loss_weights" in batch
    assert any(key.startswith("n_") for key in batch)
    assert batch.keys() == online.keys()
    for key, value in online.items():
        assert batch[key].dtype == value.dtype
        assert torch.equal(batch[key], value), key


def test_a_key_that_nobody_declared_is_refused() -> None:
    processor = processor_of("qwen2_5_vl")
    sample = automodel.PreTokenizedDatasetWrapper(EXAMPLES, processor)[0]
    with pytest.raises(ConfigError, match="sample 1 has the undeclared key 'pixel_mask'"):
        automodel.pad_collate_fn([sample, {**sample, "pixel_mask": torch.ones(1)}], processor)
    with pytest.raises(ConfigError, match="sample 0 has no labels"):
        automodel.pad_collate_fn([{**sample, "labels": None}], processor)
    with pytest.raises(ConfigError, match="input_ids, but 3 labels"):
        automodel.pad_collate_fn([{**sample, "labels": [1, 2, 3]}], processor)
    with pytest.raises(EmptyBatchError):
        automodel.pad_collate_fn([], processor)


def test_what_joins_without_a_processor() -> None:
    processor = processor_of("qwen2_5_vl")
    dataset = automodel.PreTokenizedDatasetWrapper(EXAMPLES, processor, inject_fake_images=False)
    samples = [dataset[i] for i in range(3)]
    by_processor = automodel.pad_collate_fn(samples, processor)
    by_name = automodel.pad_collate_fn(samples, processor.tokenizer)
    for key, value in by_processor.items():
        assert torch.equal(by_name[key], value), key
    for sample in samples:  # as of another wrapper, which does not count
        sample.pop("n_images", None)
    again = automodel.pad_collate_fn(samples, processor)
    assert again["n_images_per_sample"].tolist() == [1, 0, 2]
    mllama, _ = of_family("MllamaProcessor")
    sample = automodel.PreTokenizedDatasetWrapper(EXAMPLES, mllama)[0]
    with pytest.raises(ConfigError, match="undeclared key 'aspect_ratio_ids'"):
        automodel.pad_collate_fn([sample], mllama.tokenizer)


PACKABLE = {
    "LlavaNextProcessor": "image_sizes",
    "Qwen2_5_VLProcessor": "image_grid_thw",
    "SmolVLMProcessor": "pixel_attention_mask",
}
LEAKING = {
    "Gemma3nProcessor": "set model_config",
    "KimiVLProcessor": "remote code",
    "Llama4Processor": "set model_config",
    "Molmo2Processor": "bidirectionally",
    "NemotronH_Omni_Reasoning_V3Processor": "set model_config",
}


@pytest.mark.parametrize("name", PACKABLE)
def test_packs_of_every_family_lose_nothing(name: str) -> None:
    processor, variables = of_family(name)
    collator = collator_for(processor, template_kwargs=variables)
    examples = [e for e in with_media_of(name) if "video" not in str(e)]
    config = LlavaNextConfig() if name == "LlavaNextProcessor" else None
    dataset = automodel.PreTokenizedDatasetWrapper(
        examples,
        processor,
        inject_fake_images=False,
        template_kwargs=variables,
        collator_options={"model_config": config},
    )
    longest = max(len(dataset.encode(i)) for i in range(len(dataset)))
    packed = automodel.neat_pack_dataset_vlm(dataset, longest - 1)
    packs = [packed[i] for i in range(len(packed))]
    assert len(packs) > 1
    expected = collator.stack([dataset.encode(int(i)) for members in packed.bins for i in members])
    for batch in (
        automodel.neat_packed_vlm_collater(packs),
        automodel.packed_sequence_thd_vlm_collater(packs),
    ):
        assert PACKABLE[name] in batch
        for key in collator.family.joins.keys() & expected.keys():
            value = expected[key]
            assert torch.equal(batch[key], value.to(batch[key].dtype)), key
        trained = batch["labels"] != -100
        assert trained.sum() == (expected["labels"][:, 1:] != -100).sum()
        assert batch["loss_weights"][trained].unique().tolist() == [0.5, 1.0]
        for key in ("token_type_ids", "mm_token_type_ids"):
            assert (key in batch) == (key in expected)
            if key in batch:
                assert (batch[key] > 0).sum() == (expected[key] > 0).sum()
        for key in (key for key in expected if key.startswith("n_")):
            assert batch[key].sum() == expected[key].sum()


@pytest.mark.parametrize("name", LEAKING)
def test_packs_that_may_leak_are_refused(name: str) -> None:
    processor, variables = of_family(name)
    dataset = automodel.PreTokenizedDatasetWrapper([], processor, template_kwargs=variables)
    with pytest.raises(ConfigError, match=LEAKING[name]):
        automodel.PackedDatasetWrapper(dataset, [], pack_size=99)


def test_packs_whose_masks_are_more_than_one_are_refused() -> None:
    dataset = automodel.PreTokenizedDatasetWrapper(EXAMPLES, processor_of("gemma3"))
    with pytest.raises(ConfigError, match="sliding_attention layers need a mask of their own"):
        automodel.PackedDatasetWrapper(dataset, [[0]], pack_size=999)


def test_robust_collate_draws_alike_everywhere() -> None:
    calls: list[list[Any]] = []

    def fails_twice(batch: list[Any]) -> str:
        calls.append(batch)
        if len(calls) % 3:
            raise ValueError("broken")
        return "good"

    dataset = [f"sample {i}" for i in range(50)]
    for _ in range(2):
        assert automodel.make_robust_collate(dataset, fails_twice)(["a", "b"]) == "good"
    assert calls[:3] == calls[3:]
    assert calls[0] == ["a", "b"] != calls[1] != calls[2]

    def fails(batch: list[Any]) -> None:
        raise ValueError(f"no {batch[0]}")

    with pytest.raises(
        RuntimeError, match=r"^Collate failed after 3 retries\. Last error: no sample"
    ):
        automodel.make_robust_collate(dataset, fails, max_retries=3)(["a"])

    with pytest.raises(ConfigError, match="empty"):
        automodel.make_robust_collate([], fails)(["a"])

    def starves(_: list[Any]) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        automodel.make_robust_collate(dataset, starves)(["a"])
