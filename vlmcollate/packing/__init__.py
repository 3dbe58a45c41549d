"""Planning which samples share a pack, and taking packs apart."""

from vlmcollate.joining import unpack
from vlmcollate.packing.planning import PackPlan, plan_packs

__all__ = ["PackPlan", "plan_packs", "unpack"]
