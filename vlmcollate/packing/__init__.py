"""Plans which samples share a pack, unpacks packs, and splits batches for pipelines."""

from vlmcollate.batch.microbatches import split_microbatches
from vlmcollate.packing.documents import unpack
from vlmcollate.packing.plan import PackPlan, plan_packs
from vlmcollate.packing.stream import stream_packs

__all__ = ["PackPlan", "plan_packs", "split_microbatches", "stream_packs", "unpack"]
