"""The media, tokens and sampling that a processor declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vlmcollate.conversation import MediaKind, MediaPart
from vlmcollate.errors import ConfigError
from vlmcollate.family import Family
from vlmcollate.media import FrameSampling
from vlmcollate.media.processing.inputs import sampling_of
from vlmcollate.tokens.vocabulary import Vocabulary

_PARTS: dict[MediaKind, tuple[str, ...]] = {
    "image": ("image_processor",),
    "video": ("video_processor",),
    "audio": ("feature_extractor", "audio_processor"),
}


@attrs.frozen(kw_only=True, eq=False)
class ProcessorTraits:
    """The traits of a processor that its model family does not declare.

    Attributes:
        placeholders: The text that the chat template writes for each kind of media.
        media_tokens: The tokens of each kind that each stand for one of the model's media
            features.
        frame_sampling: The frames that are taken of a video.
        frames_per_token: The number of frames that share the tokens of a video.
        sampling_rate: The model's audio sampling rate in Hz, or `None` if it takes no audio.
    """

    placeholders: Mapping[MediaKind, str]
    media_tokens: Mapping[MediaKind, tuple[str, ...]]
    frame_sampling: FrameSampling
    frames_per_token: int
    sampling_rate: int | None

    def sampling_for(self, part: MediaPart) -> FrameSampling:
        """Returns the frames that are taken of one video."""
        return self.frame_sampling.for_item(part.options, multiple_of=self.frames_per_token)

    @classmethod
    def of(cls, processor: Any, family: Family) -> ProcessorTraits:
        """Reads the traits of a processor.

        Args:
            processor: A `transformers` processor.
            family: Its model family.
        """
        placeholders = _placeholders(processor, family)
        video_processor = getattr(processor, "video_processor", None)
        return cls(
            placeholders=placeholders,
            media_tokens=_media_tokens(processor, family, placeholders),
            frame_sampling=sampling_of(video_processor),
            frames_per_token=getattr(video_processor, "temporal_patch_size", None) or 1,
            sampling_rate=family.sampling_rate or _sampling_rate(processor),
        )


def tokenizer_of(processor: Any) -> Any:
    """Returns a processor's tokenizer.

    Raises:
        ConfigError: The processor has no tokenizer.
    """
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise ConfigError(f"{type(processor).__name__} has no tokenizer")
    return tokenizer


def stop_tokens_of(tokenizer: Any, chosen: tuple[str, ...], family: Family) -> dict[str, int]:
    """Returns the tokens that may end an assistant turn, with their ids.

    Args:
        tokenizer: The tokenizer.
        chosen: The user's stop tokens, which replace the others if there are any.
        family: The model family.
    """
    vocabulary = Vocabulary.known(tokenizer)
    eos = tokenizer.eos_token
    declared = chosen or (*family.stop_tokens, *([eos] if eos else []))
    found = {token: vocabulary.id_of(token) for token in declared}
    return {token: number for token, number in found.items() if number is not None}


def _placeholders(processor: Any, family: Family) -> dict[MediaKind, str]:
    if family.placeholders is not None:
        return dict(family.placeholders)
    return {
        kind: token
        for kind, parts in _PARTS.items()
        if any(getattr(processor, part, None) is not None for part in parts)
        and (family.kinds is None or kind in family.kinds)
        and isinstance(token := getattr(processor, f"{kind}_token", None), str)
    }


def _media_tokens(
    processor: Any, family: Family, placeholders: Mapping[MediaKind, str]
) -> dict[MediaKind, tuple[str, ...]]:
    tokenizer = tokenizer_of(processor)
    found: dict[MediaKind, tuple[str, ...]] = {}
    for kind, placeholder in placeholders.items():
        ids = getattr(processor, f"{kind}_token_ids", None) or [
            getattr(processor, f"{kind}_token_id", None)
        ]
        tokens = [tokenizer.convert_ids_to_tokens(i) for i in ids if i is not None]
        if family.placeholders is not None:
            tokens = []
        if not tokens and Vocabulary.known(tokenizer).id_of(placeholder) is not None:
            tokens = [placeholder]
        found[kind] = tuple(tokens)
    return found


def _sampling_rate(processor: Any) -> int | None:
    parts = (getattr(processor, name, None) for name in _PARTS["audio"])
    rates = [getattr(part, "sampling_rate", None) for part in parts if part is not None]
    rates.append(getattr(processor, "audio_sampling_rate", None))
    return next((int(rate) for rate in rates if rate is not None), None)
