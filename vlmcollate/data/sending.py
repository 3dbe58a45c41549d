"""Sending objects to encoding processes, with errors that name what cannot be sent."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

import attrs
from PIL import Image, ImageFile

from vlmcollate.data.encoder import PieceEncoder
from vlmcollate.data.sources import Piece, row_label
from vlmcollate.errors import ConfigError
from vlmcollate.media.loading.images import FRAMES
from vlmcollate.media.loading.orientation import (
    has_own_exif,
    read_orientation,
    restore_orientation,
)


def pickle_encoder(encoder: PieceEncoder) -> Any:
    """Pickles an encoder.

    Raises:
        ConfigError: An option of its collator, or its dataset, cannot be pickled.
    """
    try:
        return _pickled(encoder, _Pickler)
    except Exception as error:
        raise _encoder_error(encoder, _checked(error)) from error


def pickle_task(piece: Piece, file: Any) -> Any:
    """Pickles a task as a pipe does.

    Raises:
        ConfigError: A row of its piece cannot be pickled.
    """
    try:
        return _pickled((piece, file), _PipePickler)
    except Exception as error:
        for offset, row in enumerate(piece.examples):
            if (problem := _problem_of(row)) is not None:
                raise _row_error(row_label(piece, offset), problem) from problem
        raise _row_error(f"a row of '{piece.source}'", _checked(error)) from error


def receive(pipe: Any) -> Any:
    """Receives an object in an encoding process.

    Raises:
        ConfigError: It cannot be loaded there.
    """
    data = pipe.recv_bytes()
    try:
        return pickle.loads(data)  # noqa: S301  # the parent pickled it
    except Exception as error:
        raise ConfigError(
            f"an encoding process cannot load what was sent to it: {_shown(_checked(error))}; "
            "define functions and classes at the top level of a module that a new process can "
            "import, or set num_proc=1"
        ) from error


class _Pickler(pickle.Pickler):
    """Keeps what Pillow's own pickles lose.

    That is the number of frames of an image, an orientation that was set on it, and broken files.
    """

    def reducer_override(self, value: Any) -> Any:
        """Reduces images; every other object as usual."""
        if not isinstance(value, Image.Image):
            return NotImplemented
        frames = 1
        if isinstance(value, ImageFile.ImageFile):
            if (data := _broken_file(value)) is not None:
                return _opened, (data,)
            frames = _frames_of(value)
        orientation = read_orientation(value) if has_own_exif(value) else None
        if frames == 1 and orientation is None:
            return NotImplemented
        make, arguments, state, *_ = cast("tuple[Any, ...]", value.__reduce_ex__(4))
        return _restored, (make, arguments, state, frames, orientation)


class _PipePickler(_Pickler, ForkingPickler):
    """Pickles as a pipe does, which shares the memory of tensors."""


def _restored(
    make: Callable[..., Any], arguments: Any, state: Any, frames: int, orientation: int | None
) -> Any:
    image = make(*arguments)
    image.__setstate__(state)
    if frames != 1:
        image.info[FRAMES] = frames
    if orientation is not None:
        restore_orientation(image, orientation)
    return image


def _broken_file(image: ImageFile.ImageFile) -> bytes | None:
    """Returns the file of an image that cannot be decoded, or `None`."""
    try:
        image.load()
    except (OSError, SyntaxError, ValueError):  # as Pillow's decoders raise
        if image.fp is not None:
            with suppress(OSError, ValueError):  # it is closed
                image.fp.seek(0)
                return image.fp.read()
    return None


def _opened(data: bytes) -> Image.Image:
    """Opens the file of an image, which is refused when it is decoded."""
    return Image.open(io.BytesIO(data))


def _frames_of(image: Any) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except (OSError, SyntaxError, ValueError):  # its file is broken or closed
        return 0


def _pickled(value: object, pickler: type[_Pickler]) -> Any:
    buffer = io.BytesIO()
    pickler(buffer, pickle.DEFAULT_PROTOCOL).dump(value)
    return buffer.getbuffer()


def _encoder_error(encoder: PieceEncoder, error: Exception) -> ConfigError:
    """Names the option, the row or the dataset that cannot be pickled."""
    collator, rows = encoder.collator, encoder.dataset
    for field in attrs.fields(type(collator)):
        value = getattr(collator, field.name)
        if (problem := _problem_of(value)) is not None:
            return ConfigError(
                f"the collator's {field.name} cannot be sent to an encoding process: found "
                f"{value!r:.80} ({_shown(problem)}), expected what pickle supports; define it with "
                "def or class at the top level of a module, or set num_proc=1"
            )
    if type(rows) is list:
        for number, row in enumerate(rows):
            if (problem := _problem_of(row)) is not None:
                return _row_error(f"dataset, row {number}", problem)
    what = "the collator" if _problem_of(collator) else f"the dataset, a {type(rows).__name__},"
    return ConfigError(
        f"{what} cannot be sent to an encoding process: {_shown(error)}; remove what pickle does "
        "not support, or set num_proc=1"
    )


def _row_error(row: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{row} cannot be sent to an encoding process: {_shown(error)}; remove that object from "
        "the row, or set num_proc=1"
    )


def _problem_of(value: object) -> Exception | None:
    """Returns the error of pickling a value, or `None`."""
    try:
        _pickled(value, _PipePickler)
    except Exception as error:  # noqa: BLE001  # a class of another author may raise anything
        return _checked(error)
    return None


def _checked(error: Exception) -> Exception:
    if isinstance(error, MemoryError):
        raise error
    return error


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
