"""What the tests know of each family, independently of its collator."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Family:
    """What a family's template writes, independently of its collator.

    Attributes:
        stop: The token that ends a turn.
        before: The text between the generation prompt and the text of an answer.
        trims: Whether the template strips the text of a message.
        image_token: The token of one image feature.
        options: Options that the collator needs.
    """

    stop: str
    before: str = ""
    trims: bool = False
    image_token: str = ""
    options: dict[str, Any] = attrs.field(factory=dict)


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(stop="<|im_end|>", image_token="<|image_pad|>"),
    "qwen2_5_vl": Family(stop="<|im_end|>", image_token="<|image_pad|>"),
    "qwen3_vl": Family(stop="<|im_end|>", image_token="<|image_pad|>"),
    "qwen3_5": Family(stop="<|im_end|>", trims=True, image_token="<|image_pad|>"),
    "gemma3": Family(stop="<end_of_turn>", trims=True, image_token="<image_soft_token>"),
    "smolvlm": Family(stop="<end_of_utterance>", before=" ", image_token="<image>"),
    "idefics3": Family(stop="<end_of_utterance>", before=" ", image_token="<image>"),
    "llava_onevision": Family(stop="<|im_end|>", image_token="<image>"),
}
"""Families that every conformance test tries."""

_GLM = {"template_kwargs": {"enable_thinking": False}}
_COHERE = "<|END_OF_TURN_TOKEN|>"

MORE_FAMILIES: dict[str, Family] = {
    "gemma3_whole": Family(stop="<end_of_turn>", trims=True),
    "llava": Family(stop="</s>", options={"stop_tokens": ["</s>"]}, before=" "),
    "llava_next": Family(stop="</s>", options={"stop_tokens": ["</s>"]}, before=" "),
    "pixtral": Family(stop="</s>", options={"stop_tokens": ["</s>"]}),
    "internvl": Family(stop="<|im_end|>"),
    "glm4v": Family(stop="<|user|>", options=_GLM, trims=True),
    "glm46v": Family(stop="<|user|>", options=_GLM, trims=True),
    "llama4": Family(stop="<|eot|>", options={"stop_tokens": ["<|eot|>"]}),
    "cohere2_vision": Family(stop=_COHERE, options={"stop_tokens": [_COHERE]}),
    "aya_vision": Family(stop=_COHERE, options={"stop_tokens": [_COHERE]}),
    "lfm2_vl": Family(stop="<|im_end|>"),
    "molmo2": Family(stop="<|im_end|>"),
    "ovis2": Family(stop="<|im_end|>"),
    "minimax_m3_vl": Family(stop="<|im_end|>"),
    "step3p7": Family(stop="<|im_end|>"),
    "inkling": Family(stop="<|im_end|>"),
}
"""Families of the default collator or of a small one; labels and batches are tested."""
