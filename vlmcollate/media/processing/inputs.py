"""Decoded media as the arguments of a processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmcollate.conversation import MediaKind
from vlmcollate.media.loading.sampling import FrameSampling

_SAMPLING = FrameSampling()


def processor_inputs(kinds: Sequence[MediaKind], items: Sequence[Any]) -> dict[str, Any]:
    """One sample's media as keyword arguments of a `transformers` processor.

    Args:
        kinds: The kind of each item.
        items: RGB images, `Video` values and (N,) float32 audio, in the order of the prompt.

    Returns:
        `images`, `videos` and `audio` as far as there are any. Videos come with the true times of
        their frames, and are not sampled again.
    """
    of = {
        kind: [item for k, item in zip(kinds, items, strict=True) if k == kind]
        for kind in dict.fromkeys(kinds)
    }
    arguments: dict[str, Any] = {}
    if "image" in of:
        arguments |= {"images": [of["image"]], "images_kwargs": {"return_tensors": "pt"}}
    if "video" in of:
        arguments["videos"] = [video.frames for video in of["video"]]
        arguments["videos_kwargs"] = {
            "video_metadata": [video.metadata() for video in of["video"]],
            "do_sample_frames": False,
            "return_metadata": True,  # some processors write the times of frames, but ask for this
            "return_tensors": "pt",
        }
    if "audio" in of:
        arguments |= {"audio": of["audio"], "audio_kwargs": {"return_tensors": "pt"}}
    return arguments


def sampling_of(video_processor: Any) -> FrameSampling:
    """How a processor wants a video sampled: by its `num_frames`, or by its `fps`."""
    number = getattr(video_processor, "num_frames", None)
    fps = getattr(video_processor, "fps", None)
    most = getattr(video_processor, "max_frames", None) or _SAMPLING.max_frames
    least = min(getattr(video_processor, "min_frames", None) or _SAMPLING.min_frames, most)
    if fps is None and number is not None:
        return FrameSampling(
            fps=None, num_frames=number, min_frames=1, max_frames=max(most, number)
        )
    return FrameSampling(fps=fps or _SAMPLING.fps, min_frames=least, max_frames=most)
