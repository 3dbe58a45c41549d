"""Batches for preference tuning, over a collator of single conversations."""

from vlmcollate.preference.pairs import EncodedPair, Layout, PreferenceCollator, RewardCollator
from vlmcollate.preference.unpaired import EncodedAnswer, KTOCollator

__all__ = [
    "EncodedAnswer",
    "EncodedPair",
    "KTOCollator",
    "Layout",
    "PreferenceCollator",
    "RewardCollator",
]
