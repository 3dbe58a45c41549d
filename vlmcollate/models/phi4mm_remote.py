"""Phi-4-multimodal, as its remote code has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import MediaKind
from vlmcollate.media import Concatenate, Join, PadAndConcatenate
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.prompt.chat import Rendering
from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True)
class _Modes(Join):
    """One mode for the batch: what any of its samples holds."""

    def join(self, values: Sequence[Tensor], key: str) -> Tensor:
        """See `Join`."""
        del key
        modes = torch.cat(list(values))
        return ((modes & 1).amax() | (modes & 2).amax()).reshape(1)


@attrs.frozen(kw_only=True, eq=False)
class Phi4MMCollator(BaseCollator):
    """Collates for Phi-4-multimodal with the processor of its remote code: images and sound.

    Its template takes strings, so the placeholders are written into a message's text.

    Media keys: `input_image_embeds` (images, most tiles, 3, height, width), `image_sizes` (images,
    2), `image_attention_mask` (images, most tiles, patches, patches); `input_audio_embeds` (sounds,
    frames, mel bins), `audio_embed_sizes` (sounds,), `audio_attention_mask` (sounds, frames) bool;
    `input_mode` (1,) int64: 0 for text, 1 with images, 2 with sound, 3 with both.

    Source:
        The remote code of microsoft/Phi-4-multimodal-instruct, `Phi4MMProcessor`.
    """

    media_joins = {
        "input_image_embeds": PadAndConcatenate(rows="image"),
        "image_sizes": Concatenate(rows="image"),
        "image_attention_mask": PadAndConcatenate(rows="image"),
        "input_audio_embeds": PadAndConcatenate(rows="audio"),
        "audio_embed_sizes": Concatenate(rows="audio"),
        "audio_attention_mask": PadAndConcatenate(rows="audio"),
        "input_mode": _Modes(),
    }
    default_stop_tokens = ("<|end|>",)
    no_packs_because = "`input_mode` holds for a whole row"
    string_content_with_media: ClassVar[bool] = True

    @property
    def placeholders(self) -> dict[MediaKind, str]:
        """The tokens that images and sounds are expanded to."""
        return {"image": "<|endoftext10|>", "audio": "<|endoftext11|>"}

    @property
    def media_tokens(self) -> dict[MediaKind, tuple[str, ...]]:
        """See `BaseCollator`."""
        return {kind: (token,) for kind, token in self.placeholders.items()}

    @property
    def sampling_rate(self) -> int:
        """See `BaseCollator`."""
        return 16000

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        replacements: list[str] = []
        found: dict[str, list[Tensor]] = {}
        for span, item in zip(rendering.media, media, strict=True):
            token = self.placeholders[span.kind]
            if span.kind == "image":
                output = dict(
                    self.processor(text="<|image_1|>", images=[item], return_tensors="pt")
                )
            else:
                sound = (item, self.sampling_rate)
                output = dict(
                    self.processor(text="<|audio_1|>", audios=[sound], return_tensors="pt")
                )
                frames = output["input_audio_embeds"].shape[:2]
                output["audio_attention_mask"] = torch.ones(frames, dtype=torch.bool)
            ids = output["input_ids"].reshape(-1).tolist()
            replacements.append(token * ids.count(self._tokenizer.convert_tokens_to_ids(token)))
            for key in self.media_joins:
                # what a sample does not hold comes as an empty tensor
                if isinstance(value := output.get(key), Tensor) and value.numel():
                    found.setdefault(key, []).append(value)
        found.pop("input_mode", None)
        tensors = {key: self.media_joins[key](values, key=key) for key, values in found.items()}
        return ProcessedMedia(replacements=tuple(replacements), tensors=tensors)

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        """Adds the mode."""
        counts = sample.media_counts
        mode = bool(counts.get("image")) + 2 * bool(counts.get("audio"))
        return attrs.evolve(sample, media={**sample.media, "input_mode": torch.tensor([mode])})
