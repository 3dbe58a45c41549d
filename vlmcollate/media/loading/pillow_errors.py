"""The errors that Pillow raises on broken images."""

from __future__ import annotations

import struct
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from vlmcollate.errors import MediaError

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


@contextmanager
def decoding_errors(name: str, where: str) -> Iterator[None]:
    """Turns what Pillow raises on broken data into a MediaError."""
    try:
        yield
    except MediaError:
        raise
    except BROKEN_IMAGE_ERRORS as error:
        if isinstance(error, TypeError | AttributeError) and not _comes_from_pillow(error):
            raise  # a bug around the parser
        raise MediaError(
            f"{name} cannot be decoded ({type(error).__name__}: {error}); expected a whole, "
            "undamaged image; fetch or encode it again, or drop the sample",
            where=where,
        ) from error


def _comes_from_pillow(error: Exception) -> bool:
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("PIL.") for frame in frames)
