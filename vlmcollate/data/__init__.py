"""Feeding collators: which sample comes when."""

from vlmcollate.data.sampling import LengthGroupedSampler

__all__ = ["LengthGroupedSampler"]
