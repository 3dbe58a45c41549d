"""The EXIF orientation of images."""

from __future__ import annotations

from PIL import Image

from vlmcollate.media.loading.pillow_errors import BROKEN_IMAGE_ERRORS

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAP_SIDES = frozenset({5, 6, 7, 8})
_TAG = 0x0112
_INFO_KEYS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


def make_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turns an image as an orientation demands.

    Args:
        image: A loaded image.
        orientation: The orientation of `read_orientation`.

    Returns:
        The upright image, without info; the same object if it is upright already.
    """
    transpose = _TRANSPOSES.get(orientation)
    if transpose is None:
        return image
    upright = image.transpose(transpose)
    # the info still demands the turn, and its next reader would turn the image again
    upright.info = {}
    return upright


def has_own_exif(image: Image.Image) -> bool:
    """Whether the image object holds EXIF data, which may differ from that in its `info`."""
    return getattr(image, "_exif", None) is not None


def restore_orientation(image: Image.Image, orientation: int) -> None:
    """Sets the orientation of an image that was pickled, since Pillow's pickles hold only `info`.

    Args:
        image: The unpickled image.
        orientation: The orientation that `read_orientation` returned before.
    """
    if read_orientation(image) != orientation:
        image.getexif()[_TAG] = orientation


def swaps_sides(orientation: int) -> bool:
    """Whether turning an image upright swaps its width and its height."""
    return orientation in _SWAP_SIDES


def read_orientation(image: Image.Image) -> int:
    """Reads the orientation of an image, from its metadata or as it was set on the object.

    Returns:
        1 to 8 in the numbering of EXIF; 1, upright, if it is missing or unreadable.
    """
    # getexif() is slow and caches, so it is called only if there is something to read; Pillow turns
    # a TIFF as it loads it
    if not has_own_exif(image) and not any(key in image.info for key in _INFO_KEYS):
        return 1
    try:
        found = image.getexif().get(_TAG, 1)
    except BROKEN_IMAGE_ERRORS:
        # unreadable metadata is common in crawled data and does not affect the pixels
        return 1
    return found if isinstance(found, int) else 1
