"""Padding strategies, which make one batch of samples of different lengths."""

from vlmcollate.padding.base import PaddingStrategy, Separation
from vlmcollate.padding.block_causal import BlockCausalMask
from vlmcollate.padding.documents import DocumentLayout
from vlmcollate.padding.fixed import PadToLength
from vlmcollate.padding.flattened import FlattenedDocuments
from vlmcollate.padding.flex_block import FlexBlockMask
from vlmcollate.padding.indexed_mask import IndexedMask
from vlmcollate.padding.longest import PadToLongest
from vlmcollate.padding.thd import TransformerEngineTHD

__all__ = [
    "BlockCausalMask",
    "DocumentLayout",
    "FlattenedDocuments",
    "FlexBlockMask",
    "IndexedMask",
    "PadToLength",
    "PadToLongest",
    "PaddingStrategy",
    "Separation",
    "TransformerEngineTHD",
]
