"""The positions of text, images and videos in models with multi-axis rotary embeddings.

Shapes: L a sample's tokens, I its images, V its videos or video frames.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True)
class MRope:
    """The positions of a document in a Qwen-VL model, as `Packable.positions`.

    Attributes:
        frames_apart: Whether each layer of a video is a separate item, after its time in the text.
        tokens_per_second: The model's `vision_config.tokens_per_second`, if positions depend on the
            time between the layers of a video.
    """

    frames_apart: bool = False
    tokens_per_second: int | None = None

    def __call__(self, sample: EncodedSample, processor: Any) -> Tensor:
        """Returns (L, 4): the position in the text, then the layer, row and column."""
        videos = sample.media.get("video_grid_thw")
        if videos is not None and self.frames_apart:
            videos = videos.repeat_interleave(videos[:, 0], dim=0)
            videos[:, 0] = 1
        seconds = sample.media.get("second_per_grid_ts")
        steps = None
        if seconds is not None and self.tokens_per_second is not None:
            steps = self.tokens_per_second * seconds
        return mrope_positions(
            sample.tokens["mm_token_type_ids"],
            sample.media.get("image_grid_thw"),
            videos,
            merge_size=processor.image_processor.merge_size,
            video_steps=steps,
        )


def mrope_positions(
    types: Tensor,
    image_grids: Tensor | None,
    video_grids: Tensor | None,
    *,
    merge_size: int,
    video_steps: Tensor | None = None,
) -> Tensor:
    """Returns the positions of a sample's tokens, without a model.

    Text advances by one on every axis. The tokens of an image all start at the end of the text
    before them, and differ by their layer, row and column; the text after them continues after the
    longer side.

    Args:
        types: (L,) int64, 0 text, 1 image, 2 video; items of one type are never adjacent.
        image_grids: (I, 3), layers, rows and columns in patches.
        video_grids: (V, 3) likewise, one for each run of video tokens.
        merge_size: The number of patches that a token spans in each direction.
        video_steps: (V,), the distance between the layers of a video; 1 by default.

    Returns:
        (L, 4) int64: the position in the text, then layer, row and column, as in the model's
        `get_rope_index`.
    """
    kinds = types.numpy()
    starts = np.flatnonzero(np.diff(kinds, prepend=-1))
    lengths = np.diff(starts, append=len(kinds))
    kind_of_run = kinds[starts]
    grids = np.ones((len(starts), 3), np.int64)
    steps = np.ones(len(starts))
    for kind, given in ((1, image_grids), (2, video_grids)):
        if given is not None:
            grids[kind_of_run == kind] = given.numpy()
    if video_steps is not None:
        steps[kind_of_run == 2] = video_steps.numpy()
    rows, columns = grids[:, 1] // merge_size, grids[:, 2] // merge_size
    is_media = kind_of_run > 0
    advance = np.where(is_media, np.maximum(rows, columns), lengths)
    base = np.cumsum(advance) - advance

    index = np.arange(len(kinds))
    positions = np.empty((len(kinds), 4), np.int64)
    positions[:, 0] = index
    positions[:, 1:] = (index + np.repeat(base - starts, lengths))[:, None]
    for run in np.flatnonzero(is_media).tolist():
        layers, height, width = int(grids[run, 0]), int(rows[run]), int(columns[run])
        item = positions[starts[run] : starts[run] + lengths[run]]
        cells = item.reshape(layers, height, width, 4)  # a view
        # the model multiplies in float32 and truncates
        layer = (np.arange(layers, dtype=np.float32) * np.float32(steps[run])).astype(np.int64)
        cells[..., 1] = base[run] + layer[:, None, None]
        cells[..., 2] = base[run] + np.arange(height)[:, None]
        cells[..., 3] = base[run] + np.arange(width)
    return torch.from_numpy(positions)
