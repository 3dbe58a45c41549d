"""Mixtures of datasets: drawn by weight, resumed anywhere, each source with its own options."""

from vlmcollate.mixture.collator import MixtureCollator
from vlmcollate.mixture.iterable import IterableMixture
from vlmcollate.mixture.mixture import Mixture
from vlmcollate.mixture.rows import Draw, MixtureRow
from vlmcollate.mixture.sampler import MixtureSampler

__all__ = [
    "Draw",
    "IterableMixture",
    "Mixture",
    "MixtureCollator",
    "MixtureRow",
    "MixtureSampler",
]
