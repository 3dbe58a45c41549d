"""Feeding collators: datasets that encode, prepared datasets, lengths and samplers."""

from vlmcollate.data.encoded import (
    EncodedDataset,
    EncodedIterableDataset,
    load_sample,
    sample_from_bytes,
    sample_to_bytes,
    save_sample,
)
from vlmcollate.data.lengths import WithinLength, token_counts, within_length
from vlmcollate.data.manifest import Manifest, ShardFacts, ShardTable
from vlmcollate.data.prepared import PreparedDataset
from vlmcollate.data.preparing import prepare_dataset
from vlmcollate.data.reporting import Progress
from vlmcollate.data.sampling import BlockShuffledSampler, LengthGroupedSampler

__all__ = [
    "BlockShuffledSampler",
    "EncodedDataset",
    "EncodedIterableDataset",
    "LengthGroupedSampler",
    "Manifest",
    "PreparedDataset",
    "Progress",
    "ShardFacts",
    "ShardTable",
    "WithinLength",
    "load_sample",
    "prepare_dataset",
    "sample_from_bytes",
    "sample_to_bytes",
    "save_sample",
    "token_counts",
    "within_length",
]
