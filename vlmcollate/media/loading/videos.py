"""The frames of a video, and their limits.

Shapes: T sampled frames, H rows, W columns, N audio samples.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.media.loading.options import above_zero
from vlmcollate.validators import at_least_one


@attrs.frozen(kw_only=True)
class VideoLimits:
    """The limits of one video.

    Args:
        max_pixels: The maximum number of pixels (width times height) of a frame.
        max_seconds: The maximum length in seconds.
        max_frames: The maximum number of frames in the file, sampled or not.
        max_kept_bytes: The maximum number of bytes of the sampled frames, decoded.

    Raises:
        ConfigError: If a limit is not a number above 0.
    """

    max_pixels: int = attrs.field(default=64_000_000, validator=at_least_one)
    max_seconds: float = attrs.field(default=4 * 3600.0, validator=above_zero)
    max_frames: int = attrs.field(default=500_000, validator=at_least_one)
    max_kept_bytes: int = attrs.field(default=4 << 30, validator=at_least_one)


@attrs.frozen(kw_only=True, eq=False)
class Video:
    """The sampled frames of a video.

    Attributes:
        frames: (T, H, W, 3) uint8, upright RGB.
        times: (T,) float64, the time of each frame, in seconds from the first frame of the file.
        indices: (T,) int64, the index of each frame in the file.
        total_frames: The number of frames in the part of the file that is sampled.
        duration: The length of that part in seconds.
        audio: (N,) float32, the video's audio at the model's sampling rate, or `None` if the video
            has none or it was not asked for.
        is_of_images: Whether the frames were passed as separate images.
        is_resized: Whether the frames have the size that the model takes.
    """

    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    indices: npt.NDArray[np.int64]
    total_frames: int
    duration: float
    audio: npt.NDArray[np.float32] | None = None
    is_of_images: bool = False
    is_resized: bool = False

    @property
    def sampled_fps(self) -> float:
        """The number of sampled frames per second of the video."""
        return len(self.frames) / self.duration

    def metadata(self) -> Any:
        """Makes the `VideoMetadata` of transformers, with the true times of the frames.

        A processor computes a frame's time as its index divided by the frame rate. If the frames
        come at irregular times, the indices count milliseconds at a rate of 1000 instead.
        """
        from transformers.video_utils import VideoMetadata

        fps = round(self.total_frames / self.duration, 9)  # processors round the times of frames
        indices, total = self.indices, self.total_frames
        if not np.allclose(indices / fps, self.times, rtol=0, atol=0.05 / fps):
            fps, total = 1000.0, round(self.duration * 1000)
            indices = np.rint(self.times * 1000).astype(np.int64)
        return VideoMetadata(
            total_num_frames=total,
            fps=fps,
            width=self.frames.shape[2],
            height=self.frames.shape[1],
            duration=self.duration,
            video_backend="pyav",
            frames_indices=indices.tolist(),
        )
