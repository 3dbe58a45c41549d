"""Feeding collators: what is encoded where, and which sample comes when."""

from vlmcollate.data.encoded import (
    PretokenizedDataset,
    PretokenizedIterableDataset,
    load_sample,
    sample_bytes,
    sample_from_bytes,
    save_sample,
)
from vlmcollate.data.lengths import WithinLength, token_counts, within_length
from vlmcollate.data.sampling import LengthGroupedSampler

__all__ = [
    "LengthGroupedSampler",
    "WithinLength",
    "token_counts",
    "within_length",
    "PretokenizedDataset",
    "PretokenizedIterableDataset",
    "load_sample",
    "sample_bytes",
    "sample_from_bytes",
    "save_sample",
]
