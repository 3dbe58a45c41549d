"""Loading media within limits, processing it, and joining media tensors into a batch."""

from vlmcollate.media.base import MediaStrategy
from vlmcollate.media.joins import Concatenate, Join, PadAndConcatenate, Stack, grid_joins
from vlmcollate.media.loading.fetching import UrlFetcher
from vlmcollate.media.loading.local import LocalMedia
from vlmcollate.media.loading.sampling import FrameSampling
from vlmcollate.media.loading.stores import ObjectStores
from vlmcollate.media.loading.videos import Video, VideoLimits
from vlmcollate.media.processing.inputs import processor_inputs
from vlmcollate.media.processing.omni import process_omni
from vlmcollate.media.processing.patch_grid import process_patch_grids
from vlmcollate.media.processing.per_item import process_per_item
from vlmcollate.media.processing.request import MediaRequest
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.media.processing.together import process_together

__all__ = [
    "Concatenate",
    "FrameSampling",
    "Join",
    "LocalMedia",
    "MediaRequest",
    "MediaStrategy",
    "ObjectStores",
    "PadAndConcatenate",
    "ProcessedMedia",
    "Stack",
    "UrlFetcher",
    "Video",
    "VideoLimits",
    "grid_joins",
    "process_omni",
    "process_patch_grids",
    "process_per_item",
    "process_together",
    "processor_inputs",
]
