"""Decoding data URIs and base64."""

from __future__ import annotations

import base64
import binascii

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.files import check_bytes, shorten


def decode_data_uri(text: str, *, kind: str, expected: str, max_bytes: int, where: str) -> bytes:
    """Decodes a data URI of base64.

    Args:
        text: The URI, such as `data:image/png;base64,iVBORw0...`; its media type is not read.
        kind: The kind of media that it should hold, for errors.
        expected: The header of such a URI, for errors.
        max_bytes: The maximum number of decoded bytes, checked before decoding.
        where: The path inside the sample, for errors.

    Returns:
        The decoded bytes.

    Raises:
        MediaError: If it is not a data URI of base64, or too large.
    """
    header, comma, encoded = text.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise MediaError(
            f"the data URI starts with {text[:40]!r}, expected '{expected},' and the {kind} in "
            "base64",
            where=where,
        )
    # four letters hold three bytes; checked before another copy is made
    check_bytes(len(encoded) // 4 * 3 - 2, "the data URI", max_bytes, where)
    return decode_base64(encoded, where)


def decode_base64(text: str, where: str) -> bytes:
    """Decodes strict base64: the standard alphabet, padded, without line breaks.

    Args:
        text: The base64 text alone, without a `data:` header.
        where: The path inside the sample, for errors.

    Returns:
        The decoded bytes.

    Raises:
        MediaError: If the text is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(
            f"'{shorten(text)}' is not base64 ({error}); expected the standard alphabet with "
            "padding and no spaces or line breaks, as base64.b64encode writes it",
            where=where,
        ) from error
