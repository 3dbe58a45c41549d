"""Reading media that is passed as tensors."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

from vlmcollate.errors import MediaError


def array_of(tensor: torch.Tensor, kind: str, where: str) -> npt.NDArray[Any]:
    """Returns the values of a tensor as an array, which may share its memory.

    Args:
        tensor: Any tensor, also one that requires gradients or is on another device.
        kind: The kind of media with its article, for errors.
        where: The path inside the sample, for errors.

    Raises:
        MediaError: If it is sparse, quantized or has no values, or NumPy lacks its dtype.
    """
    problem = _problem(tensor)
    if problem is not None:
        raise MediaError(f"{kind} tensor {problem}", where=where)
    return tensor.detach().cpu().resolve_conj().resolve_neg().numpy()


def _problem(tensor: torch.Tensor) -> str | None:
    """Why a tensor has no array, and the remedy."""
    if tensor.is_meta:
        return "is on the device 'meta' and has no values; load the values, or drop the sample"
    if tensor.layout != torch.strided:
        return f"has layout {tensor.layout}, expected a dense one; pass tensor.to_dense()"
    if tensor.is_quantized:
        return f"is quantized ({tensor.dtype}); pass tensor.dequantize()"
    try:
        torch.empty(0, dtype=tensor.dtype).numpy()
    except TypeError:
        return f"has dtype {tensor.dtype}, which NumPy lacks; pass tensor.float()"
    return None
