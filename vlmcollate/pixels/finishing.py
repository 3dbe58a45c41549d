"""Makes floats of the pixels of a batch, on the device of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vlmcollate.errors import ConfigError
from vlmcollate.pixels.batched import PixelBytes

_FEATURES = ("get_image_features", "get_video_features")
_COVERED = ("__call__", "forward", "generate", *_FEATURES)
"""`__call__` precedes hooks, and serves a `forward` that an instance has of its own."""


def normalize_pixels(
    batch: Mapping[str, Any],
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Moves a batch to a device, and makes floats of its pixels there.

    Args:
        batch: The result of a collator.
        device: The device of the result; by default that of each tensor.
        dtype: The dtype of pixels that are bytes; the processor's by default.

    Returns:
        The batch that the collator makes with `pixels="float32"`, on the device. Pixels that are
        floats keep their dtype.

    Raises:
        ConfigError: The batch is not a mapping.
    """
    if not isinstance(batch, Mapping):
        raise ConfigError(
            f"a batch is wrong: found {type(batch).__name__}, expected a mapping of tensors; pass "
            "the batches of a list one by one"
        )
    return {key: _moved(value, device, dtype) for key, value in batch.items()}


def _moved(value: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Any:
    if isinstance(value, PixelBytes):
        return value.finished(device, dtype)
    if isinstance(value, Mapping):  # a mask for each kind of attention layer
        return {key: _moved(part, device, dtype) for key, part in value.items()}
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def finish_pixels(*models: nn.Module) -> None:
    """Makes models take batches of a collator with `pixels="uint8"`.

    Bytes become floats on the model's device, at the call of `forward`, `generate`,
    `get_image_features` or `get_video_features`. The models' classes are replaced by subclasses
    of the same name, which copies and pickles of a model have, too.

    Args:
        models: Each model that sees a batch, the reference model as well. A model may be wrapped,
            by PEFT for example, before or after.

    Raises:
        ConfigError: A model is not a module.
    """
    for model in models:
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"a model is wrong: found {type(model).__name__}, expected a torch.nn.Module; pass "
                "the model to train"
            )
        for part in model.modules():
            takes_pixels = part is model or any(hasattr(part, name) for name in _FEATURES)
            if takes_pixels and not isinstance(part, FinishesPixels):
                part.__class__ = _finishing(type(part))


class FinishesPixels(nn.Module):
    """The base of the classes that `finish_pixels` gives to models."""

    own_class: ClassVar[type[nn.Module]]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickles the model by its own class, from which this one is made."""
        reduced: Any = super().__reduce_ex__(protocol)
        make, arguments, *state = reduced
        own = (self.own_class if x is type(self) else x for x in (make, *arguments))
        return _restored, tuple(own), *state


def _restored(make: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
    model = make(*arguments)
    if not isinstance(model, FinishesPixels):
        model.__class__ = _finishing(type(model))
    return model


_MADE: dict[type[nn.Module], type[nn.Module]] = {}


def _finishing(kind: type[nn.Module]) -> type[nn.Module]:
    """Returns the subclass of a model's class that takes pixels as bytes."""
    if kind not in _MADE:
        body: dict[str, Any] = {
            name: _covered(getattr(kind, name)) for name in _COVERED if hasattr(kind, name)
        }
        body |= {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        _MADE[kind] = type(kind.__name__, (FinishesPixels, kind), {**body, "own_class": kind})
    return _MADE[kind]


def _covered(method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method whose arguments may be pixels as bytes."""

    @wraps(method)
    def call(self: nn.Module, *args: Any, **options: Any) -> Any:
        if any(isinstance(value, PixelBytes) for value in (*args, *options.values())):
            device = _accelerator_of(self)
            args = tuple(_finished(value, device) for value in args)
            options = {key: _finished(value, device) for key, value in options.items()}
        return method(self, *args, **options)

    return call


def _accelerator_of(model: nn.Module) -> torch.device | None:
    """Returns the device of a model; `None` if its parameters wait in memory or on a disk.

    They may be offloaded, so that the device of the bytes is the better one.
    """
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type not in ("cpu", "meta")), None)


def _finished(value: Any, device: torch.device | None) -> Any:
    return value.finished(device) if isinstance(value, PixelBytes) else value
