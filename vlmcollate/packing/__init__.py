"""Planning which samples share a pack, taking packs apart, and cutting batches for pipelines."""

from vlmcollate.joining import unpack
from vlmcollate.packing.microbatches import split_microbatches
from vlmcollate.packing.planning import PackPlan, plan_packs
from vlmcollate.packing.streaming import stream_packs

__all__ = ["PackPlan", "plan_packs", "split_microbatches", "stream_packs", "unpack"]
