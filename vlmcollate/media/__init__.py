"""Loading images within limits, and joining media tensors into a batch."""

from vlmcollate.media.base import MediaStrategy
from vlmcollate.media.joins import Concatenate, Join, PadAndConcatenate, Stack
from vlmcollate.media.local import LocalMedia
from vlmcollate.media.patch_grid import process_patch_grids

__all__ = [
    "Concatenate",
    "Join",
    "LocalMedia",
    "MediaStrategy",
    "PadAndConcatenate",
    "Stack",
    "process_patch_grids",
]
