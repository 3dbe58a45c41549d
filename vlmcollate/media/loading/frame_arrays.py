"""Reading videos that are passed as frames.

Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vlmcollate.conversation import MediaOptions
from vlmcollate.errors import MediaError
from vlmcollate.media.loading.sampling import FrameSampling, named_times
from vlmcollate.media.loading.tensors import array_of
from vlmcollate.media.loading.videos import Video, VideoLimits


@attrs.frozen(kw_only=True, eq=False)
class GivenFrames:
    """The frames that are taken of a video that is passed as frames.

    Attributes:
        kept: (T,) int64, their indices among the frames that are passed.
        times: (T,) float64, their times in seconds.
        indices: (T,) int64, their indices in the video.
        total_frames: The number of frames in the part of the video that is sampled.
        duration: The length of that part in seconds.
    """

    kept: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    indices: npt.NDArray[np.int64]
    total_frames: int
    duration: float

    @classmethod
    def of(cls, number: int, sampling: FrameSampling, where: str) -> GivenFrames:
        """Chooses among frames that were sampled already.

        Args:
            number: The number of frames.
            sampling: The frames that the model takes. If the video does not state the rate of its
                frames, it is the rate of the sampling.
            where: The path inside the sample, for errors.

        Raises:
            MediaError: If the options of the video name another number of frames, or none.
        """
        item = sampling.item
        if not number:
            raise MediaError("the video has no frames; drop it", where=where)
        if item.times is not None or item.indices is not None:
            return cls._named(number, item, where)
        rate = item.sample_fps or item.fps or sampling.fps or 1.0
        times = np.arange(number) / rate
        kept, total, duration = np.arange(number), number, number / rate
        if _chooses(item):
            wanted = item.fps if item.sample_fps and item.fps else rate
            fps = None if item.num_frames else wanted
            chosen = attrs.evolve(sampling, fps=fps, num_frames=item.num_frames, multiple_of=1)
            kept = chosen.pick(times, where=where)
            total, duration = chosen.span(times, kept, 1 / rate)
        return cls(
            kept=kept, times=times[kept], indices=kept, total_frames=total, duration=duration
        )

    @classmethod
    def _named(cls, number: int, item: MediaOptions, where: str) -> GivenFrames:
        """Frames whose times the options of the video name."""
        times = named_times(item)
        if times is None:
            raise MediaError(
                "frames_indices of a video that is passed as frames lacks raw_fps, the rate of "
                "the video that they count; set it",
                where=where,
            )
        if len(times) != number:
            raise MediaError(
                f"the video has {number} frames, but its options name {len(times)}; make the "
                "numbers equal",
                where=where,
            )
        every = np.arange(number)
        span = number * float(times[-1] - times[0]) / max(number - 1, 1)
        total, duration = number, span or 1.0
        if item.raw_fps is not None:
            total = max(round(span * item.raw_fps), 1)
            duration = total / item.raw_fps
        indices = every if item.indices is None else np.array(item.indices, np.int64)
        return cls(kept=every, times=times, indices=indices, total_frames=total, duration=duration)


def _chooses(item: MediaOptions) -> bool:
    """Whether the options may leave out frames."""
    limits = item.num_frames, item.max_frames, item.start, item.end
    return any(limit is not None for limit in limits) or bool(item.sample_fps and item.fps)


def video_from_frames(
    frames: object, given: GivenFrames, *, limits: VideoLimits, where: str
) -> Video:
    """Makes a video of frames that are sampled already.

    Args:
        frames: The frames that are taken: (T, H, W, 3) uint8, or a list of RGB images of one size.
        given: Their times.
        limits: The limits of the video.
        where: The path inside the sample, for errors.

    Returns:
        The frames with their times.

    Raises:
        MediaError: If the frames differ in size or are above the limits.
    """
    pixels = _stack(frames, where) if isinstance(frames, list) else np.asarray(frames)
    if pixels.shape[1] * pixels.shape[2] > limits.max_pixels or len(pixels) > limits.max_frames:
        raise MediaError(
            f"the video has {len(pixels)} frames of {pixels.shape[2]}x{pixels.shape[1]}, more than "
            f"max_frames={limits.max_frames} or max_pixels={limits.max_pixels} allow; sample fewer "
            "or smaller frames, or raise them",
            where=where,
        )
    return Video(
        frames=pixels,
        times=given.times,
        indices=given.indices,
        total_frames=given.total_frames,
        duration=given.duration,
        is_of_images=isinstance(frames, list),
    )


def check_kept_bytes(number: int, size: tuple[int, int], limits: VideoLimits, where: str) -> None:
    """Refuses frames that need too much memory.

    Args:
        number: The number of frames.
        size: The width and the height of each.
        limits: The limits of the video.
        where: The path inside the sample, for errors.

    Raises:
        MediaError: If the frames need more than `max_kept_bytes`.
    """
    width, height = size
    needed = width * height * 3 * number
    if needed > limits.max_kept_bytes:
        raise MediaError(
            f"{number} frames of {width}x{height} need {needed} bytes, more than "
            f"max_kept_bytes={limits.max_kept_bytes}; sample fewer or smaller frames, or raise it",
            where=where,
        )


def _stack(images: Sequence[Image.Image], where: str) -> npt.NDArray[np.uint8]:
    for i, image in enumerate(images):
        if image.size != images[0].size:
            raise MediaError(
                f"frame {i} has size {image.size}, but frame 0 has {images[0].size}; bring the "
                "frames of a video to one size",
                where=where,
            )
    return np.stack([np.asarray(image) for image in images])


def channels_last(frames: object, where: str) -> npt.NDArray[np.uint8]:
    """Checks an array of frames, (T, H, W, 3) or (T, 3, H, W) uint8, and returns the former.

    Args:
        frames: The array or tensor.
        where: The path inside the sample, for errors.

    Raises:
        MediaError: If the dtype or the shape is wrong.
    """
    if not isinstance(frames, np.ndarray | torch.Tensor):
        raise MediaError(
            f"a video is {type(frames).__name__}, expected an array of frames", where=where
        )
    if frames.dtype not in (torch.uint8, np.dtype(np.uint8)):
        raise MediaError(
            f"a video array has dtype {frames.dtype}, expected uint8 from 0 to 255; scale it (0..1 "
            "by 255), round and clip, then convert it",
            where=where,
        )
    pixels = array_of(frames, "a video", where) if isinstance(frames, torch.Tensor) else frames
    shape = pixels.shape
    if len(shape) != 4 or (shape[1] != 3 and shape[3] != 3):
        raise MediaError(
            f"a video array has shape {shape}, expected (T, H, W, 3) or (T, 3, H, W); reorder its "
            "axes",
            where=where,
        )
    if shape[1] == 3 and shape[3] == 3:
        raise MediaError(
            f"a video array has shape {shape}, whose second and last axis could both be the "
            "channels; pass a list of images",
            where=where,
        )
    return np.ascontiguousarray(pixels if shape[3] == 3 else pixels.transpose(0, 2, 3, 1))
