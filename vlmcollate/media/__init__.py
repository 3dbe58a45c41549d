"""Loads media within limits, calls the processor on it, and joins media tensors into a batch."""

from vlmcollate.media.base import MediaStrategy
from vlmcollate.media.joins import Concatenate, Join, PadAndConcatenate, Stack
from vlmcollate.media.loading.fetching import UrlFetcher
from vlmcollate.media.loading.local import LocalMedia
from vlmcollate.media.loading.videos import FrameSampling, Video, VideoLimits
from vlmcollate.media.processing.inputs import processor_inputs
from vlmcollate.media.processing.omni import process_omni
from vlmcollate.media.processing.patch_grid import process_patch_grids
from vlmcollate.media.processing.per_item import process_one_by_one

__all__ = [
    "Concatenate",
    "FrameSampling",
    "Join",
    "LocalMedia",
    "MediaStrategy",
    "PadAndConcatenate",
    "Stack",
    "UrlFetcher",
    "Video",
    "VideoLimits",
    "process_omni",
    "process_one_by_one",
    "process_patch_grids",
    "processor_inputs",
]
