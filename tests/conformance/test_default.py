"""The default collator learns processors that it has never heard of, or refuses them."""

import pytest
import torch
import transformers as hf
from PIL import Image
from transformers import (
    Idefics2ImageProcessor,
    Idefics2Processor,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MllamaImageProcessor,
    MllamaProcessor,
    PixtralImageProcessor,
    PixtralProcessor,
)

from tests.decoding import trained_texts
from tests.processors import BUILDERS
from tests.processors.cases import CASES, SERVED
from tests.processors.tokenizers import tokenizer
from vlmcollate import ConfigError, collator_for, split_microbatches
from vlmcollate.models.default import DefaultCollator

CLIP = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
TILES = {"image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]}
LLAVA = {
    "patch_size": 14,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
LFM2 = ["<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"]


def chatml_stand_in(image_token):
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}"
        "{% if p.type == 'image' %}" + image_token + "{% else %}{{ p.text }}{% endif %}{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def build(kind, image_processor, tokens, **options):
    return kind(
        image_processor=image_processor,
        tokenizer=tokenizer("qwen2_5", *tokens),
        chat_template=chatml_stand_in(tokens[0]),
        **options,
    )


CHECKPOINT = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
PROCESSORS = {
    "llava_next": lambda: build(
        LlavaNextProcessor, LlavaNextImageProcessor(**CLIP, **TILES), ["<image>"], **LLAVA
    ),
    "llava_next_of_checkpoints": lambda: build(
        LlavaNextProcessor,
        LlavaNextImageProcessor(**CHECKPOINT),
        ["<image>"],
        **{**LLAVA, "patch_size": 112},  # fewer tokens
    ),
    "pixtral": lambda: build(
        PixtralProcessor,
        PixtralImageProcessor(size={"longest_edge": 64}, patch_size=16),
        ["[IMG]", "[IMG_BREAK]", "[IMG_END]"],
        patch_size=16,
    ),
    "lfm2_vl": lambda: build(Lfm2VlProcessor, Lfm2VlImageProcessor(), LFM2),
}


def chat(*images):
    """A question about images, or about plain images of these sizes."""
    made = [Image.new("RGB", i, "teal") if isinstance(i, tuple) else i for i in images]
    parts = [{"type": "image", "image": image} for image in made]
    return [
        {"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    ]


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_it_learned_makes_the_processors_own_batch(name):
    sizes = (64, 48), (40, 90), (30, 30)
    if name == "llava_next_of_checkpoints":  # small images all have as many of its large tiles
        sizes = (720, 720), (400, 900), (64, 64)
    processor = PROCESSORS[name]()
    chats = [chat(sizes[0]), chat(*sizes[1:])]
    theirs = processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "right"},
    )

    collator = collator_for(processor)
    ours = collator(chats)

    assert type(collator) is DefaultCollator
    assert set(ours) - set(theirs) == {"labels", "n_images_per_sample"}
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key
    for ids, labels in zip(ours["input_ids"], ours["labels"], strict=True):
        assert trained_texts(processor.tokenizer, ids, labels) == ["A cat.<|im_end|>"]


SCANS = [(1600, 1200), (64, 48), (700, 1500)]


@pytest.mark.parametrize(
    "name", ["DeepseekOcr2Processor", "UnlimitedOcrProcessor", "Step3p7Processor"]
)
def test_keys_that_only_large_images_have(name):
    make = CASES[name].build
    if make is None or not hasattr(hf, name):
        pytest.skip(f"this transformers has no {name}")
    processor = make()
    collate = collator_for(processor)
    images = [Image.effect_noise(size, 90).convert("RGB") for size in SCANS]
    batch = collate([chat(image) for image in images])
    expected = processor.image_processor(images=images, return_tensors="pt")
    for key in ("pixel_values", "pixel_values_local", "num_local_patches"):
        assert torch.equal(batch[key], torch.as_tensor(expected[key])), key
    parts = split_microbatches(batch, 3, items=collate.family.joins)
    tiles = [len(part.get("pixel_values_local", ())) for part in parts]
    assert tiles == batch["num_local_patches"].tolist()
    assert tiles[1] == 0


OF_IMAGES = [n for n in SERVED if "image" in CASES[n].kinds and "image" not in CASES[n].error]


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_processor_that_takes_images_takes_scans(name):
    case = CASES[name]
    assert case.build is not None
    try:
        processor = case.build()
    except (AttributeError, ImportError) as error:
        pytest.skip(f"this transformers has no {name}: {error}")
    batch = collator_for(processor, **case.options)([chat((1300, 1000)), chat((64, 48))])
    assert batch["n_images_per_sample"].tolist() == [1, 1]


def test_a_mask_along_the_tokens_is_refused():
    processor = build(
        MllamaProcessor,
        MllamaImageProcessor(size={"height": 56, "width": 56}, max_image_tiles=2),
        ["<|image|>", "<|python_tag|>"],
    )
    processor.tokenizer.bos_token = processor.bos_token = "<|endoftext|>"
    with pytest.raises(ConfigError, match="MllamaProcessor"):
        DefaultCollator(processor=processor)([chat((64, 48))])


def test_a_processor_that_changes_the_words_around_its_media_is_refused():
    """Idefics 2 puts a space between a picture and the words behind it."""
    processor = build(Idefics2Processor, Idefics2ImageProcessor(), ["<image>"])
    with pytest.raises(ConfigError, match="changes the prompt around its image media"):
        collator_for(processor).encode(chat((64, 48)))
    text = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert collator_for(processor).encode(text).label_strategy == "RenderedSpanLabels"


@pytest.mark.parametrize("name", ["pixtral", "llava_next"])
def test_a_tokenizer_without_a_padding_token_is_named(name):
    """As those of Mistral's checkpoints; it is no fault of the collator."""
    processor = BUILDERS[name]()
    processor.tokenizer.pad_token = None
    chat = [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (56, 56))}]},
        {"role": "assistant", "content": "Yes"},
    ]
    with pytest.raises(ConfigError, match=r"no padding token, .* set processor\.tokenizer\.pad_t"):
        collator_for(processor)([chat])
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    assert len(collator_for(processor)([chat])["labels"]) == 1


class NoBatches(PixtralImageProcessor):  # type: ignore[misc]  # it is Any
    def preprocess(self, *_, **__):
        raise ValueError("the images have several sizes\nYou can try: padding=True")


def test_the_refusal_of_a_processor_that_cannot_make_a_batch_is_one_line():
    processor = BUILDERS["pixtral"]()
    processor.image_processor.__class__ = NoBatches
    image = {"type": "image", "image": Image.new("RGB", (64, 48))}
    row = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "It is black."}]
    with pytest.raises(ConfigError, match="PixtralProcessor does not take") as caught:
        collator_for(processor)([row])
    message = str(caught.value)
    assert message.count("write a collator for it") == 1
    assert "\n" not in message


def test_encoder_decoder_models_are_refused():
    processor = hf.Blip2Processor(hf.BlipImageProcessor(), hf.T5Tokenizer(), num_query_tokens=4)
    processor.chat_template = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
    with pytest.raises(ConfigError, match="T5Tokenizer of an encoder-decoder model"):
        collator_for(processor)
