"""How samples of different lengths become one batch."""

from vlmcollate.padding.base import PaddingStrategy
from vlmcollate.padding.fixed import PadToLength
from vlmcollate.padding.longest import PadToLongest

__all__ = ["PadToLength", "PadToLongest", "PaddingStrategy"]
