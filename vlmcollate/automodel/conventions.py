"""The conventions of Automodel's functions: options, shifted labels and dtypes.

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
from vlmcollate.prompt.direct import chat_template_of

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
"""The token-aligned keys."""
_AHEAD = ("labels", "loss_weights", "decoder_input_ids", "decoder_attention_mask")
PIXELS = ("pixel_values", "pixel_values_videos")
"""The keys that Automodel casts to bfloat16."""
Example = Mapping[str, Any]
Variables = Mapping[str, Any] | None


class _Request:
    """A processor in its current state, and options."""

    def __init__(self, processor: Any, options: Mapping[str, Any]) -> None:
        self.processor = processor  # compared by identity, because it may be unhashable
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
def _build(request: _Request) -> BaseCollator:
    return collator_for(request.processor, **request.options)


def automodel_collator(
    processor: Any,
    max_length: int | None = None,
    *,
    drop: bool = False,
    template_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> BaseCollator:
    """Returns the collator of a processor with Automodel's conventions.

    The collator is cached, and built again after the chat template or the vocabulary changes.

    Args:
        processor: The processor.
        max_length: The length of every batch; unlimited by default.
        drop: Whether longer samples are dropped or truncated.
        template_kwargs: The variables of the chat template.
        **options: Further options of the collator.
    """
    if template_kwargs:
        options["template_kwargs"] = dict(template_kwargs)
    if max_length is not None:
        options["max_length"] = max_length
        options["on_overlong"] = "drop" if drop else "truncate"
        options["padding"] = PadToLength(length=max_length)
    return _build(_Request(processor, options))


def shift_tokens(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shifts labels and decoder inputs by one token: (B, T) to (B, T - 1)."""
    return {
        key: value.narrow(1, int(key in _AHEAD), value.shape[1] - 1).contiguous()
        if key in TOKEN_KEYS
        else value
        for key, value in batch.items()
    }


def cast_pixels(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Casts the pixels of a batch to bfloat16."""
    half = {
        key: [value.to(torch.bfloat16) for value in batch[key]]
        if isinstance(batch[key], list)
        else batch[key].to(torch.bfloat16)
        for key in PIXELS
        if key in batch
    }
    return {**batch, **half}


def conversations_of(examples: Sequence[Example]) -> list[Any]:
    """Returns the conversations of Automodel's examples.

    Raises:
        ConfigError: An example has no key `conversation`.
    """
    for index, example in enumerate(examples):
        if not isinstance(example, Mapping) or "conversation" not in example:
            keys = ", ".join(map(str, example)) if isinstance(example, Mapping) else ""
            raise ConfigError(
                f"sample {index} has no conversation: found {keys or type(example).__name__}, "
                'expected {"conversation": [...]}; put the messages under that key'
            )
    return [example["conversation"] for example in examples]
