"""Fractional loss weights in the trainers of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.errors import ConfigError
from vlmcollate.integrations.weighted_loss import sum_of_weights, weighted_loss


class WeightedLossMixin:
    """Makes a `Trainer` or `SFTTrainer` divide the loss by the weights of its batches.

    A `compute_loss_func` gets labels and outputs, but never the batch, and models ignore
    `loss_weights`. The mixin takes the weights out of the batch before the forward pass, and
    normalizes by the weights of all accumulated batches and, as `average_tokens_across_devices`
    says, of all ranks. A batch without the key weighs 1 per trained token.

    Raises:
        ConfigError: A `compute_loss_func` is given as well, or one process trains on several GPUs.

    Source:
        transformers, `Trainer.compute_loss` and `Trainer.get_batch_samples`.

    Example:
        >>> from transformers import Trainer
        >>> class WeightedTrainer(WeightedLossMixin, Trainer):
        ...     pass
    """

    args: Any
    accelerator: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        if options.get("compute_loss_func") is not None:
            raise ConfigError(
                "compute_loss_func would replace the weighted loss; remove it, or the mixin"
            )
        super().__init__(*args, **options)
        if self.args.n_gpu > 1:
            raise ConfigError(
                f"one process trains on {self.args.n_gpu} GPUs with DataParallel; start one "
                "process per GPU, such as with torchrun"
            )
        self.compute_loss_func = self._loss_of_outputs
        self._loss_weights: Tensor | None = None

    def _get_num_items_in_batch(
        self, batch_samples: Sequence[Mapping[str, Tensor]], device: torch.device
    ) -> Tensor | None:
        """Returns the weights of the accumulated batches instead of their trained tokens."""
        batches = [batch for batch in batch_samples if "labels" in batch]
        if not batches:
            return None
        total = torch.stack([sum_of_weights(batch).to(device) for batch in batches]).sum()
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        parallel = getattr(self.accelerator, "parallelism_config", None)
        return total / parallel.non_data_parallel_size if parallel else total

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], *args: Any, **options: Any
    ) -> Any:
        """See `Trainer.compute_loss`."""
        given = dict(inputs)
        self._loss_weights = given.pop("loss_weights", None)
        base: Any = super()
        return base.compute_loss(model, given, *args, **options)

    def _loss_of_outputs(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """Returns the loss of a batch whose weights were taken out."""
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        return weighted_loss(logits, labels, self._loss_weights, total=num_items_in_batch)
