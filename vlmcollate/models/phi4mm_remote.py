"""Phi-4-multimodal, with the processor of its remote code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import MediaKind
from vlmcollate.family import Family, NotPackable
from vlmcollate.media import Concatenate, Join, MediaRequest, PadAndConcatenate, ProcessedMedia
from vlmcollate.sample import EncodedSample

_SAMPLING_RATE = 16000


@attrs.frozen(kw_only=True)
class _Modes(Join):
    """Joins the samples' modes into one for the batch, for the media of any sample."""

    def join(self, values: Sequence[Tensor], key: str) -> Tensor:
        """See `Join`."""
        del key
        modes = torch.cat(list(values))
        return ((modes & 1).amax() | (modes & 2).amax()).reshape(1)


def _process(request: MediaRequest) -> ProcessedMedia:
    """Processes one item per call."""
    replacements: list[str] = []
    found: dict[str, list[Tensor]] = {}
    for kind, item, token in zip(request.kinds, request.items, request.texts, strict=True):
        output = _processed(request.processor, kind, item)
        ids = output["input_ids"].reshape(-1).tolist()
        number = request.processor.tokenizer.convert_tokens_to_ids(token)
        replacements.append(token * ids.count(number))
        for key in request.joins:
            # the processor returns an empty tensor for a kind that a sample lacks
            if isinstance(value := output.get(key), Tensor) and value.numel():
                found.setdefault(key, []).append(value)
    found.pop("input_mode", None)
    tensors = {key: request.joins[key](values, key=key) for key, values in found.items()}
    return ProcessedMedia(replacements=tuple(replacements), tensors=tensors)


def _processed(processor: Any, kind: MediaKind, item: Any) -> dict[str, Any]:
    if kind == "image":
        return dict(processor(text="<|image_1|>", images=[item], return_tensors="pt"))
    audio = (item, _SAMPLING_RATE)
    output = dict(processor(text="<|audio_1|>", audios=[audio], return_tensors="pt"))
    frames = output["input_audio_embeds"].shape[:2]
    output["audio_attention_mask"] = torch.ones(frames, dtype=torch.bool)
    return output


def _with_mode(sample: EncodedSample, _: Any) -> EncodedSample:
    """Adds the sample's mode."""
    counts = sample.media_counts
    mode = bool(counts.get("image")) + 2 * bool(counts.get("audio"))
    return attrs.evolve(sample, media={**sample.media, "input_mode": torch.tensor([mode])})


class Phi4MMCollator(BaseCollator):
    """Collates for Phi-4-multimodal with the processor of its remote code: images and audio.

    Its template takes strings, so the placeholders are written into a message's text.

    Media keys: `input_image_embeds` (images, maximum tiles, 3, height, width), `image_sizes`
    (images, 2), `image_attention_mask` (images, maximum tiles, patches, patches);
    `input_audio_embeds` (audio items, frames, mel bins), `audio_embed_sizes` (audio items,),
    `audio_attention_mask` (audio items, frames) bool;
    `input_mode` (1,) int64: 0 for text, 1 with images, 2 with audio, 3 with both.

    Source:
        The remote code of microsoft/Phi-4-multimodal-instruct, `Phi4MMProcessor`.
    """

    family = Family(
        joins={
            "input_image_embeds": PadAndConcatenate(rows="image"),
            "image_sizes": Concatenate(rows="image"),
            "image_attention_mask": PadAndConcatenate(rows="image"),
            "input_audio_embeds": PadAndConcatenate(rows="audio"),
            "audio_embed_sizes": Concatenate(rows="audio"),
            "audio_attention_mask": PadAndConcatenate(rows="audio"),
            "input_mode": _Modes(),
        },
        stop_tokens=("<|end|>",),
        packing=NotPackable("`input_mode` applies to a whole row"),
        string_content_with_media=True,
        placeholders={"image": "<|endoftext10|>", "audio": "<|endoftext11|>"},
        sampling_rate=_SAMPLING_RATE,
        process=_process,
        postprocess=_with_mode,
    )
