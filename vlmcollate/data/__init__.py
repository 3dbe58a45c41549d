"""Feeding collators: what is encoded where, and which sample comes when."""

from vlmcollate.data.encoded import (
    EncodedDataset,
    PretokenizedIterableDataset,
    load_sample,
    sample_bytes,
    sample_from_bytes,
    save_sample,
)
from vlmcollate.data.lengths import WithinLength, token_counts, within_length
from vlmcollate.data.manifest import Manifest, ShardFacts
from vlmcollate.data.prepared import PreparedDataset
from vlmcollate.data.preparing import Progress, prepare_dataset
from vlmcollate.data.sampling import LengthGroupedSampler

__all__ = [
    "EncodedDataset",
    "LengthGroupedSampler",
    "Manifest",
    "PreparedDataset",
    "PretokenizedIterableDataset",
    "Progress",
    "ShardFacts",
    "WithinLength",
    "load_sample",
    "prepare_dataset",
    "sample_bytes",
    "sample_from_bytes",
    "save_sample",
    "token_counts",
    "within_length",
]
