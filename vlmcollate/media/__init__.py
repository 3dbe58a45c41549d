"""Loading media within limits, and joining media tensors into a batch."""

from vlmcollate.media.base import MediaStrategy
from vlmcollate.media.fetching import UrlFetcher
from vlmcollate.media.joins import Concatenate, Join, PadAndConcatenate, Stack
from vlmcollate.media.local import LocalMedia
from vlmcollate.media.omni import process_omni
from vlmcollate.media.one_by_one import process_one_by_one
from vlmcollate.media.patch_grid import process_patch_grids
from vlmcollate.media.processor_inputs import processor_inputs
from vlmcollate.media.videos import FrameSampling, Video, VideoLimits

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
