"""The next-token loss with the weights of a batch.

Shapes: B rows, T tokens, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vlmcollate.errors import ConfigError
from vlmcollate.sample import IGNORE_INDEX


def weighted_loss(
    logits: Tensor,
    labels: Tensor,
    loss_weights: Tensor | None = None,
    *,
    total: Tensor | float | None = None,
    shift: bool = True,
) -> Tensor:
    """Returns the mean of the token losses by their weights.

    Args:
        logits: (B, T, V), the logits of a model.
        labels: (B, T) int64, -100 for tokens that do not train.
        loss_weights: (B, T) float, the weights of a batch. By default each trained token weighs 1,
            as in a batch without the key.
        total: The sum of the weights to divide by, such as that of all accumulated batches; by
            default that of these labels. See `sum_of_weights`.
        shift: Whether the logits of a token predict the next one, as in all models of
            transformers; `False` for a collator with `shift_labels=True`.

    Returns:
        A scalar in float32; 0 if no token trains.

    Raises:
        ConfigError: The shapes do not fit together, there are no labels, or a weight is negative or
            not finite.

    Example:
        >>> logits = torch.zeros(1, 3, 2)
        >>> labels, weights = torch.tensor([[-100, 0, 1]]), torch.tensor([[0.0, 1.0, 0.5]])
        >>> round(weighted_loss(logits, labels, weights).item(), 4)  # the logarithm of 2
        0.6931
    """
    weights = _weights(labels, loss_weights)
    if logits.shape[:-1] != labels.shape:
        raise ConfigError(
            f"logits of shape {tuple(logits.shape)} do not fit labels of shape "
            f"{tuple(labels.shape)}; keep the logits of all tokens"
        )
    if shift:
        logits, labels, weights = logits[..., :-1, :], labels[..., 1:], weights[..., 1:]
    losses = cross_entropy(
        logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    divisor = torch.as_tensor(weights.sum() if total is None else total, device=losses.device)
    smallest = torch.finfo(torch.float32).tiny
    return (losses * weights.flatten()).sum() / divisor.float().clamp(min=smallest)


def sum_of_weights(batch: Mapping[str, Tensor], *, shift: bool = True) -> Tensor:
    """Returns the sum of the weights of a batch, by which its loss is divided.

    Args:
        batch: A batch with `labels` and, if any weight is fractional, `loss_weights`.
        shift: Whether the logits of a token predict the next one.

    Returns:
        A scalar in float32.

    Raises:
        ConfigError: There are no labels, or a weight is wrong.
    """
    weights = _weights(batch.get("labels"), batch.get("loss_weights"))
    return (weights[..., 1:] if shift else weights).sum()


def _weights(labels: Tensor | None, loss_weights: Tensor | None) -> Tensor:
    """The weight of each label, 0 if it is ignored, in float32."""
    if not isinstance(labels, Tensor):
        raise ConfigError(
            f"labels are missing: found {labels!r:.60}, expected the tensor of the batch; keep the "
            "key 'labels' in the batch"
        )
    is_trained = (labels != IGNORE_INDEX).float()
    if loss_weights is None:
        return is_trained
    if loss_weights.shape != labels.shape:
        raise ConfigError(
            f"loss_weights of shape {tuple(loss_weights.shape)} do not fit labels of shape "
            f"{tuple(labels.shape)}; pass both from one batch"
        )
    weights = loss_weights.to(labels.device).float()
    is_wrong = ~((weights >= 0) & weights.isfinite())
    if is_wrong.any():
        wrong = weights[is_wrong][0].item()
        raise ConfigError(
            f"loss_weights are wrong: found {wrong}, expected finite weights of at least 0; "
            "correct the code that changed them"
        )
    return weights * is_trained
