"""Stacks encoded samples into the tensors of a batch, the same for every model.

Shapes: B samples, L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.media import joined_media
from vlmcollate.errors import ConfigError
from vlmcollate.media import Join
from vlmcollate.pixels import PixelFormat
from vlmcollate.sample import IGNORE_INDEX, LOGPROBS, OF_LABELS, EncodedSample


def stack_samples(
    samples: Sequence[EncodedSample],
    pad: Callable[[list[dict[str, Tensor]], Mapping[str, float]], dict[str, Tensor]],
    joins: Mapping[str, Join],
    fill: Mapping[str, float],
    *,
    shift_labels: bool,
    is_packed: bool,
    pixels: PixelFormat = "float32",
) -> dict[str, Any]:
    """Makes a batch of samples, or of packs.

    Args:
        samples: At least one sample.
        pad: A function that pads their rows to one length.
        joins: The joining rule of each media key.
        fill: The padding value of each token key; 0 by default.
        shift_labels: Whether to shift labels by one.
        is_packed: Whether the samples are packs.
        pixels: What pixels become.

    Returns:
        See `BaseCollator.stack`; without the numbers of media items.
    """
    if shift_labels:
        samples = [with_spare_token(s, fill) if s.media_ids[-1] >= 0 else s for s in samples]
    rows = token_rows(samples)
    if shift_labels and is_packed:  # a mask has more than one token axis
        rows = [shifted(row, axis=0) for row in rows]
    batch = pad(rows, fill)
    if shift_labels and not is_packed:
        batch = shifted(batch, axis=1)
    return {**batch, **joined_media(samples, joins, pixels)}


def token_rows(samples: Sequence[EncodedSample]) -> list[dict[str, Tensor]]:
    """Returns the token tensors, each with the keys of all samples.

    Raises:
        ConfigError: A sample trains without log probabilities, and others have them.
    """
    keys = {key: value for sample in samples for key, value in sample.tokens.items()}
    if LOGPROBS in keys:
        _check_logprobs(samples)
    rows = []
    for sample in samples:
        tokens = dict(sample.tokens)
        for key in keys.keys() - tokens.keys():
            if key == "loss_weights":
                tokens[key] = (tokens["labels"] != IGNORE_INDEX).float()
            else:
                tokens[key] = keys[key].new_zeros(len(sample), *(1 for _ in keys[key].shape[1:]))
        rows.append({key: tokens[key] for key in keys})
    return rows


def _check_logprobs(samples: Sequence[EncodedSample]) -> None:
    for number, sample in enumerate(samples):
        if LOGPROBS not in sample.tokens and (sample.tokens["labels"] != IGNORE_INDEX).any():
            raise ConfigError(
                f"sample {number} trains without log probabilities, which other samples have; "
                "pass logprobs for the sampled tokens of all, or of none"
            )


def fill_values(tokenizer: Any) -> Mapping[str, float]:
    """Returns the padding values of token keys; other keys have 0."""
    pad = tokenizer.pad_token_id
    # without a pad token any id will do, since attention and labels exclude padding
    pad = pad if pad is not None else (tokenizer.eos_token_id or 0)
    return {"input_ids": pad, "decoder_input_ids": pad, "labels": IGNORE_INDEX}


def shifted(tensors: Mapping[str, Tensor], *, axis: int) -> dict[str, Tensor]:
    """Returns the tensors one token shorter, with what belongs to the next token's labels."""
    return {
        key: value.narrow(axis, int(key in OF_LABELS), value.shape[axis] - 1).contiguous()
        for key, value in tensors.items()
    }


def with_spare_token(sample: EncodedSample, fill: Mapping[str, float]) -> EncodedSample:
    """Adds one token of padding, so that a shift removes no media token."""

    def longer(value: Tensor, last: float) -> Tensor:
        return torch.cat([value, value.new_full((1, *value.shape[1:]), last)])

    return attrs.evolve(
        sample,
        tokens={key: longer(value, fill.get(key, 0)) for key, value in sample.tokens.items()},
        message_ids=longer(sample.message_ids, -1),
        media_ids=longer(sample.media_ids, -1),
    )


def media_counts(samples: Sequence[EncodedSample]) -> dict[str, Tensor]:
    """Returns `n_images_per_sample`, and so on for each kind, (B,) int64."""
    kinds = dict.fromkeys(kind for sample in samples for kind in sample.media_counts)
    return {
        f"n_{kind}s_per_sample": torch.tensor([s.media_counts.get(kind, 0) for s in samples])
        for kind in kinds
    }
