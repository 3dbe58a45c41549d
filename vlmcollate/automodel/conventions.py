"""What Automodel's functions share: their options, their shift, their dtypes.

Shapes: B samples, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.models import collator_for
from vlmcollate.padding import PadToLength
from vlmcollate.prompt.templates import chat_template_of

TOKEN_KEYS = (
    "input_ids",
    "attention_mask",
    "labels",
    "loss_weights",
    "mm_token_type_ids",
    "token_type_ids",
    "cross_attention_mask",
    "decoder_input_ids",
    "decoder_attention_mask",
)
"""The keys that run along the tokens."""
_AHEAD = ("labels", "loss_weights", "decoder_input_ids", "decoder_attention_mask")
PIXELS = ("pixel_values", "pixel_values_videos")
"""The keys whose tensors Automodel casts to bfloat16."""
Example = Mapping[str, Any]
Variables = Mapping[str, Any] | None


class _Request:
    """A processor as it is now, and options; equal to another for the same collator."""

    def __init__(self, processor: Any, options: Mapping[str, Any]) -> None:
        self.processor = processor  # itself and no other, whether or not it can be hashed
        self.options = options
        self.tokenizer = getattr(processor, "tokenizer", None)
        self.state = [repr(sorted(options.items()))]
        if self.tokenizer is not None:
            size = repr(len(self.tokenizer))
            self.state += [chat_template_of(processor), size, repr(self.tokenizer.eos_token)]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Request)
            and other.processor is self.processor
            and other.tokenizer is self.tokenizer
            and other.state == self.state
        )

    def __hash__(self) -> int:
        return id(self.processor)


@lru_cache(maxsize=8)
def _made(request: _Request) -> BaseCollator:
    return collator_for(request.processor, **request.options)


def automodel_collator(
    processor: Any,
    max_length: int | None = None,
    *,
    drop: bool = False,
    template_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> BaseCollator:
    """The collator of a processor with Automodel's conventions.

    It is made once, and anew when the processor's template is replaced or tokens are added.

    Args:
        processor: The processor.
        max_length: The length of a batch.
        drop: Whether longer samples are left out instead of truncated.
        template_kwargs: Chat template variables.
        **options: Further options of the collator.
    """
    if template_kwargs:
        options["template_kwargs"] = dict(template_kwargs)
    if max_length is not None:
        options["max_length"] = max_length
        options["on_overlong"] = "drop" if drop else "truncate"
        options["padding"] = PadToLength(length=max_length)
    return _made(_Request(processor, options))


def shifted_tokens(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with its token tensors (B, T - 1): labels, and what a decoder reads, are ahead."""
    return {
        key: value.narrow(1, int(key in _AHEAD), value.shape[1] - 1).contiguous()
        if key in TOKEN_KEYS
        else value
        for key, value in batch.items()
    }


def with_bfloat16(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch with pixels in bfloat16, where Automodel has them so."""
    half = {
        key: [value.to(torch.bfloat16) for value in batch[key]]
        if isinstance(batch[key], list)
        else batch[key].to(torch.bfloat16)
        for key in PIXELS
        if key in batch
    }
    return {**batch, **half}


def conversations_of(examples: Sequence[Example]) -> list[Any]:
    """The conversations of Automodel's examples.

    Raises:
        ConfigError: An example holds none.
    """
    for index, example in enumerate(examples):
        if not isinstance(example, Mapping) or "conversation" not in example:
            held = ", ".join(map(str, example)) if isinstance(example, Mapping) else ""
            raise ConfigError(
                f"sample {index} has no conversation: found {held or type(example).__name__}, "
                'expected {"conversation": [...]}; name the list of messages so'
            )
    return [example["conversation"] for example in examples]
