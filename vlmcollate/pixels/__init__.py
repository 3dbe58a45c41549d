"""Pixels as bytes, and what a processor makes of them."""

from vlmcollate.pixels.reading import as_bytes, table_of
from vlmcollate.pixels.table import CHANNELS, Channels, PixelTable

__all__ = ["CHANNELS", "Channels", "PixelTable", "as_bytes", "table_of"]
