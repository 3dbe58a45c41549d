"""Pixels as bytes, and what a processor makes of them."""

from vlmcollate.pixels.batched import PixelBytes
from vlmcollate.pixels.finishing import finish_pixels, normalize_pixels
from vlmcollate.pixels.keys import PIXEL_FORMATS, PixelFormat, cast_pixels, dtype_of
from vlmcollate.pixels.reading import as_bytes, table_of
from vlmcollate.pixels.table import CHANNELS, Channels, PixelTable

__all__ = [
    "CHANNELS",
    "PIXEL_FORMATS",
    "Channels",
    "PixelBytes",
    "PixelFormat",
    "PixelTable",
    "as_bytes",
    "cast_pixels",
    "dtype_of",
    "finish_pixels",
    "normalize_pixels",
    "table_of",
]
