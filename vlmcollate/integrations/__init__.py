"""What trainers of others need beside a collator."""

from vlmcollate.integrations.generation import EvaluationCollator, GenerationMixin
from vlmcollate.integrations.hf_trainer import WeightedLossMixin
from vlmcollate.integrations.weighted_loss import sum_of_weights, weighted_loss

__all__ = [
    "EvaluationCollator",
    "GenerationMixin",
    "WeightedLossMixin",
    "sum_of_weights",
    "weighted_loss",
]
