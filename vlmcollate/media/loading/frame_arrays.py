"""Reading videos that are passed as frames.

Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.videos import MAX_FPS, MIN_FPS, Video, VideoLimits
from vlmcollate.plain_values import show


def frames_and_rate(source: object) -> tuple[object, object]:
    """Splits a dict with `video` and `fps`.

    Args:
        source: A video as the example holds it.

    Returns:
        The video, and the frame rate that comes with it, or `None`.
    """
    if isinstance(source, Mapping) and "video" in source:
        return source["video"], source.get("fps")
    return source, None


def video_from_frames(
    frames: object,
    *,
    fps: object,
    default_fps: float,
    limits: VideoLimits,
    where: str,
) -> Video:
    """Makes a video of frames that are sampled already.

    Args:
        frames: (T, H, W, 3) or (T, 3, H, W) uint8, or a list of RGB images of one size.
        fps: Their frame rate, or `None`.
        default_fps: The frame rate if `fps` is `None`.
        limits: The limits of the video.
        where: The path inside the sample, for errors.

    Returns:
        The frames, at even times.

    Raises:
        MediaError: If there are no frames, their dtype, shape or sizes are wrong, they are above
            the limits, or `fps` is not a frame rate.
    """
    pixels = _stack(frames, where) if isinstance(frames, list) else _channels_last(frames, where)
    if not len(pixels):
        raise MediaError("the video has no frames; drop it", where=where)
    _check_fps(fps, where)
    if pixels.shape[1] * pixels.shape[2] > limits.max_pixels or len(pixels) > limits.max_frames:
        raise MediaError(
            f"the video has {len(pixels)} frames of {pixels.shape[2]}x{pixels.shape[1]}, more than "
            f"max_frames={limits.max_frames} or max_pixels={limits.max_pixels} allow; sample fewer "
            "or smaller frames, or raise them",
            where=where,
        )
    rate = float(fps or default_fps)  # type: ignore[arg-type]  # a number, as just checked
    indices = np.arange(len(pixels))
    return Video(
        frames=pixels,
        times=indices / rate,
        indices=indices,
        total_frames=len(pixels),
        duration=len(pixels) / rate,
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


def _check_fps(fps: object, where: str) -> None:
    is_number = isinstance(fps, int | float | np.number) and not isinstance(fps, bool)
    if fps is not None and not (is_number and MIN_FPS <= fps <= MAX_FPS):  # type: ignore[operator]  # a number
        raise MediaError(
            f"fps is {show(fps)}, expected a number from {MIN_FPS:g} to {MAX_FPS:g}; correct it, "
            "or remove it",
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
    return np.stack([np.asarray(image) for image in images]) if images else np.empty((0,), np.uint8)


def _channels_last(frames: object, where: str) -> npt.NDArray[np.uint8]:
    if not isinstance(frames, np.ndarray | torch.Tensor):
        raise MediaError(
            f"a video is {type(frames).__name__}, expected an array of frames", where=where
        )
    pixels = frames.detach().cpu().numpy() if isinstance(frames, torch.Tensor) else frames
    if pixels.dtype != np.uint8:
        raise MediaError(
            f"a video array has dtype {pixels.dtype}, expected uint8 from 0 to 255; scale it (0..1 "
            "by 255), round and clip, then convert it",
            where=where,
        )
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
