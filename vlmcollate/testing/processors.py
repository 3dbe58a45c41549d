"""Real processors around a tokenizer made on the spot, and tiny models to match.

Nothing is downloaded. The processor, the image processor and the model are the classes that
`transformers` ships; only the vocabulary is small and the weights are random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vlmcollate.errors import ConfigError

_VOCABULARY = 1200
_HIDDEN = 64

_TEXT = """\
Look at the picture and tell me what you see. What colour is the circle? The circle is red.
Which shape is on the left, and which one is on the right? A blue square stands left of a green
triangle. How many shapes are there? There are two shapes: one yellow star and one purple circle.
You are a helpful assistant who answers questions about pictures. Describe this image in one short
sentence, please. The image shows an orange triangle on a white background. Is that right? Yes, it
is. No, it is not: the square is larger than the circle, and it lies below the other shape.
system user assistant tool message content answer question image video picture chart table page
A chart compares the sales of three years; the tallest bar belongs to the last of them. The table
lists names, dates and prices. The page is a receipt from a cafe, and its total is 12.50 dollars.
Read the text in the photo: "Open from 9 to 17, Monday to Friday." I cannot read the second line.
First, I compare both pictures. They differ in colour, in size and in the number of objects.
The dog sleeps under the table while the cat watches a bird through the window of the kitchen.
def area(width, height): return width * height  # the area of a rectangle in square metres
{"name": "count", "arguments": {"shape": "circle", "colour": "red"}}  0 1 2 3 4 5 6 7 8 9
Wie viele Kreise siehst du? Drei, und alle sind grün. Où est le carré ? Il est à gauche.
What would change if the light came from above? Every shadow would fall straight down.
Repeat after me: "The circle is red." I would rather say what I see: the circle is blue.
The map marks a station, a bridge and two museums along the river; a dotted line joins them.
Children play football behind the school, and somebody has parked a bicycle against the fence.
Snow covers the mountains, but flowers already bloom in front of the small wooden houses.
The screenshot shows a form with fields for an address, a phone number and a password.
Press the button labelled "Continue" in order to submit your application before Wednesday.
Compute 3 + 4 * 5 = 23, then divide by 2: 11.5. The result is greater than ten percent of 100.
Both curves start at zero; only the dashed one grows exponentially after about six minutes.
An elderly woman wearing glasses holds an umbrella next to her husband, who carries a suitcase.
Breakfast: bread, butter, cheese, eggs, coffee with milk, orange juice and a bowl of cherries.
import json; print([item["name"] for item in json.load(open("objects.json")) if item["visible"]])
Please translate the handwriting into English, explain every abbreviation, and keep the layout.
Ein gelber Stern liegt zwischen zwei violetten Vierecken. Une étoile jaune entre deux carrés.
Without more context nobody could say whether this photograph was taken at sunrise or at sunset.
The engine diagram names eleven components: valve, piston, spark plug, cylinder, crankshaft,
camshaft, pump, filter, belt, radiator and exhaust. Arrows indicate which direction air flows.
Twelve passengers wait on platform seven because their express train has been delayed again.
Thanks! You are welcome. Anything else? Hello, good morning, and goodbye until next time.
"""

# Our own wording, in ChatML as the Qwen models read it.
_QWEN_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif part.type == 'text' -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""

_QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def tiny_processor(family: str = "qwen2_5_vl") -> Any:
    """Builds a processor of a family without a download.

    Args:
        family: A `transformers` model type; `"qwen2_5_vl"` is known.

    Returns:
        A real processor of the family, the same one each time: its tokenizer is a byte-level BPE
        of about a thousand tokens, and a picture becomes 4 to 16 of them.

    Raises:
        ConfigError: The family is not known.

    Example:
        >>> tiny_processor("qwen2_5_vl").tokenizer.eos_token
        '<|im_end|>'
    """
    if family not in _PROCESSORS:
        known = ", ".join(map(repr, _PROCESSORS))
        raise ConfigError(f"no tiny processor for {family!r}; known families: {known}")
    return _PROCESSORS[family]()


def tiny_model(processor: Any, *, seed: int = 0) -> Any:
    """Builds a small model with random weights for a processor of `tiny_processor`.

    Args:
        processor: What `tiny_processor` gave.
        seed: Decides the weights; torch's own random state is left as it was.

    Returns:
        A real model of the processor's family in training mode, float32, on the CPU.

    Raises:
        ConfigError: The processor's family is not known.
    """
    build = _MODELS.get(type(processor).__name__)
    if build is None:
        known = ", ".join(_MODELS)
        raise ConfigError(
            f"no tiny model for {type(processor).__name__}; known processors: {known}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(processor).train()


def _tokenizer(special_tokens: tuple[str, ...], *, eos: str, pad: str) -> Any:
    """Trains a byte-level BPE tokenizer on the text above."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=eos,
        pad_token=pad,
        additional_special_tokens=[t for t in special_tokens if t not in (eos, pad)],
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )


def _qwen2_5_vl() -> Any:
    token = 28 * 28  # the pixels behind one image token: two by two patches of 14
    size = {"shortest_edge": 4 * token, "longest_edge": 16 * token}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=_tokenizer(_QWEN_TOKENS, eos="<|im_end|>", pad="<|endoftext|>"),
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=_QWEN_TEMPLATE,
    )


def _qwen2_5_vl_model(processor: Any) -> Any:
    tokenizer = processor.tokenizer
    ids = dict(zip(_QWEN_TOKENS, tokenizer.convert_tokens_to_ids(_QWEN_TOKENS), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": _HIDDEN,
            "intermediate_size": 2 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],  # half of a head's 16 channels: time, height, width
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": _HIDDEN,
            "intermediate_size": 2 * _HIDDEN,
            "num_heads": 4,
            "out_hidden_size": _HIDDEN,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return Qwen2_5_VLForConditionalGeneration(config)


_PROCESSORS: dict[str, Callable[[], Any]] = {"qwen2_5_vl": _qwen2_5_vl}
_MODELS: dict[str, Callable[[Any], Any]] = {"Qwen2_5_VLProcessor": _qwen2_5_vl_model}
