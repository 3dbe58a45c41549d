"""Media of models that hear the sound of a video between its frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmcollate.conversation import MediaKind
from vlmcollate.media.joins import Join
from vlmcollate.media.loading.videos import Video
from vlmcollate.media.processing.per_item import process_one_by_one
from vlmcollate.media.processing.result import ProcessedMedia


def process_omni(
    processor: Any,
    kinds: Sequence[MediaKind],
    items: Sequence[Any],
    joins: Mapping[str, Join],
) -> ProcessedMedia:
    """Processes media for a Qwen Omni processor.

    Each video is processed at the rate of its own frames, which the processor takes for all videos
    alike, and a video that has `audio` with its sound between the frames.

    Source:
        transformers, `Qwen2_5OmniProcessor.replace_video_with_audio_token`.
    """
    if set(kinds) == {"audio"} and hasattr(processor, "audio_kwargs"):
        return _process_sounds(processor, items)
    texts, options = [], []
    start, end = processor.vision_bos_token, processor.vision_eos_token
    for kind, item in zip(kinds, items, strict=True):
        text, more = getattr(processor, f"{kind}_token"), {}
        if isinstance(item, Video):
            more = {"videos_kwargs": {"fps": item.sampled_fps}}
            if item.audio is not None:
                # until transformers 5.22 the frame of markers was part of what is replaced
                text = f"{start}{text}{end}"
                more |= _with_sound(processor, item)
        texts.append(text)
        options.append(more)
    found = process_one_by_one(processor, texts, kinds, items, joins, options)
    bare = (
        replacement.removeprefix(start).removesuffix(end) if text.startswith(start) else replacement
        for text, replacement in zip(texts, found.replacements, strict=True)
    )
    return ProcessedMedia(replacements=tuple(bare), tensors=found.tensors)


def _process_sounds(processor: Any, sounds: Sequence[Any]) -> ProcessedMedia:
    """What the processor makes of sounds alone.

    Calling it as a whole takes half as long again: it checks its arguments and tokenizes a text.
    """
    options = {**processor.audio_kwargs, "return_tensors": "pt"}
    found, replacements = processor._process_audio(list(sounds), **options)
    tensors = {key: found[key] for key in found.keys() - set(processor.unused_input_names)}
    return ProcessedMedia(replacements=tuple(replacements), tensors=tensors)


def _with_sound(processor: Any, video: Video) -> dict[str, Any]:
    more: dict[str, Any] = {"audio": [video.audio], "audio_kwargs": {"return_tensors": "pt"}}
    if hasattr(type(processor), "load_audio_from_video"):
        return {**more, "load_audio_from_video": True, "audio_from_video_indices": [0]}
    return {**more, "videos_kwargs": {"fps": video.sampled_fps, "use_audio_in_video": True}}
