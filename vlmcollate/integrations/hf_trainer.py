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
        self.compute_loss_func: Any = None
        super().__init__(*args, **options)
        self._refuse_other_losses()
        if self.args.n_gpu > 1:
            raise ConfigError(
                f"one process trains on {self.args.n_gpu} GPUs with DataParallel; start one "
                "process per GPU, such as with torchrun"
            )
        self.compute_loss_func = self._loss_of_outputs
        self._loss_weights: Tensor | None = None

    def _refuse_other_losses(self) -> None:
        """Refuses options that the weighted loss would replace in silence."""
        own: Any = self
        loss_type = getattr(self.args, "loss_type", None)
        if loss_type == "chunked_nll":  # the default of TRL 1.7 to 1.14
            raise ConfigError(
                "loss_type='chunked_nll' returns no logits, which the weighted loss needs; set "
                "loss_type='nll'"
            )
        for name, is_set in (
            ("compute_loss_func", self.compute_loss_func is not None),
            ("label_smoothing_factor", getattr(own, "label_smoother", None) is not None),
            (f"loss_type={loss_type!r}", loss_type not in (None, "nll")),
            ("shift_labels of the collator", _shifts_labels(own.data_collator)),
        ):
            if is_set:
                raise ConfigError(
                    f"{name} and the weighted loss exclude each other; remove it, or the mixin"
                )

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
        if getattr(outputs, "aux_loss", None) is not None:
            raise ConfigError(
                "the model has an auxiliary loss, which the weighted loss leaves out; set "
                "output_router_logits=False, or write the loss yourself with weighted_loss"
            )
        logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs[0]
        if logits is None:
            raise ConfigError(
                "the model returned no logits, which the weighted loss needs; turn off fused losses"
            )
        return weighted_loss(logits, labels, self._loss_weights, total=num_items_in_batch)


def _shifts_labels(collate: Any) -> bool:
    """Returns whether a collator shifts labels, or one inside it, such as of completions."""
    while collate is not None:
        collate = getattr(collate, "__self__", collate)  # `collator.stack`, for packs
        if getattr(collate, "shift_labels", False):
            return True
        collate = getattr(collate, "collator", None)
    return False
