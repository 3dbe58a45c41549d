"""The error of pixels that are used as a tensor while they are bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from vlmcollate.errors import UnfinishedPixelsError

_BINARY = "add sub mul truediv floordiv mod divmod pow matmul lshift rshift and or xor"
_OTHERS = (
    "lt le gt ge neg pos invert abs round bool int float complex index getitem setitem delitem "
    "array dlpack dlpack_device"
)
_REFUSED = (*_OTHERS.split(), *(side + use for use in _BINARY.split() for side in ("", "r")))
"""The methods that raise. `__iter__` and `__contains__` are not among them, since trainers search
whatever has an `__iter__` for the size of a batch; iteration and `in` raise by `__getitem__`."""


class NoTensor:
    """The base of pixels that raise wherever they are used as a tensor."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        """Returns `True` for the object itself, by which containers find it."""
        return self is other or self._refuse("__eq__")

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse(name)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: object, args: object = (), kwargs: object = None
    ) -> NoReturn:
        """Refuses every operation of torch."""
        cls._refuse(getattr(function, "__name__", repr(function)))

    @classmethod
    def _refuse(cls, use: str) -> NoReturn:
        raise UnfinishedPixelsError(
            f"the pixels of this batch are still bytes: found {use} used on them, expected "
            "pixels as floats; call finish_pixels(model) once before training, or "
            "normalize_pixels(batch, device) in a loop of your own"
        )


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: NoTensor, *args: object, **options: object) -> NoReturn:
        self._refuse(name)

    return refuse


for _name in (f"__{use}__" for use in _REFUSED):
    setattr(NoTensor, _name, _refusing(_name))
