"""The frames that are sampled, as they leave a decoder.

Shapes: T sampled frames, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.display_matrix import upright_pixels
from vlmcollate.media.loading.frame_arrays import check_kept_bytes
from vlmcollate.media.loading.videos import VideoLimits


@attrs.define(kw_only=True, eq=False)
class SampledFrames:
    """Room for the sampled frames of a video.

    Args:
        wanted: (T,) int64, the time of each frame in units of the stream's time base.
        name: The video's name in errors.
        limits: The limits of the video.
        where: The path inside the sample, for errors.
    """

    wanted: npt.NDArray[np.int64]
    name: str
    limits: VideoLimits
    where: str
    _rows: dict[int, int] = attrs.field(init=False)
    _pixels: npt.NDArray[np.uint8] | None = attrs.field(default=None, init=False)

    @_rows.default
    def _every_row(self) -> dict[int, int]:
        return {at: row for row, at in enumerate(self.wanted.tolist())}

    @property
    def missing(self) -> int:
        """The number of frames that are not there yet."""
        return len(self._rows)

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """The frames, (T, H, W, 3), upright.

        Raises:
            MediaError: If a frame is missing.
        """
        if self._rows or self._pixels is None:
            raise MediaError(
                f"{self.name} is truncated: {len(self._rows)} of the {len(self.wanted)} sampled "
                "frames cannot be decoded; fetch or encode it again, or drop the sample",
                where=self.where,
            )
        return self._pixels

    def take(self, at: int | None, frame: Any) -> None:
        """Keeps a decoded frame if it is wanted.

        Args:
            at: The time of the frame, if it is known.
            frame: PyAV's frame.

        Raises:
            MediaError: If the frame is damaged, of another size or askew, or the frames are too
                large.
        """
        if at is None or at not in self._rows:
            return
        pixels = self._read(frame)
        if self._pixels is None:
            size = frame.width, frame.height
            check_kept_bytes(len(self.wanted), size, self.limits, self.where)
            self._pixels = np.empty((len(self.wanted), *pixels.shape), np.uint8)
        elif pixels.shape != self._pixels.shape[1:]:
            raise MediaError(
                f"{self.name} changes the size of its frames midway; encode it again",
                where=self.where,
            )
        self._pixels[self._rows.pop(at)] = pixels

    def _read(self, frame: Any) -> npt.NDArray[np.uint8]:
        """The upright pixels of a decoded frame, (H, W, 3)."""
        if frame.is_corrupt:
            raise MediaError(
                f"{self.name} is damaged at {frame.time:.1f} s; fetch or encode it again, or drop "
                "the sample",
                where=self.where,
            )
        pixels: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
        return upright_pixels(pixels, frame, self.name, self.where)
