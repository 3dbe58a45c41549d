"""The errors that Pillow raises on broken images."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

# What Pillow and its format plugins raise on broken data. OSError: truncated or unidentified.
# SyntaxError: "not a PNG file". AssertionError: Pillow's own checks. Warning: only if the user
# asked Python to turn warnings into errors. The rest: parsers that ran off the data.
BROKEN_IMAGE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    AssertionError,
    Warning,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
