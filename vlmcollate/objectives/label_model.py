"""Compares labels with the configuration of the model that is trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.errors import ConfigError
from vlmcollate.objectives.labels import ProblemType


def check_model_loss(config: Any, problem_type: ProblemType, outputs: int) -> None:
    """Refuses a model that computes the loss of another kind of label.

    Args:
        config: The configuration of the model.
        problem_type: The kind of label.
        outputs: The number of the model's outputs.

    Raises:
        ConfigError: It does, or takes the labels for those of another kind.
    """
    stated = getattr(config, "problem_type", None)
    computed = stated or _inferred(problem_type, outputs)
    if computed != problem_type:
        raise ConfigError(
            f"the model computes the loss of a {computed}, but the labels are those of a "
            f"{problem_type}: its config has problem_type={stated!r}; set the same problem_type "
            "in both"
        )


def _inferred(problem_type: ProblemType, outputs: int) -> str:
    """Returns what a model takes labels for without a `problem_type`.

    Source: `ForSequenceClassificationLoss` of transformers, which sees their dtype alone.
    """
    if outputs == 1:
        return "regression"
    is_class = problem_type == "single_label_classification"
    return "single_label_classification" if is_class else "multi_label_classification"


def check_model_names(config: Any, label2id: Mapping[str, int]) -> None:
    """Refuses a model whose outputs stand for other classes.

    Args:
        config: The configuration of the model.
        label2id: The number of each class by its name.

    Raises:
        ConfigError: A class has another number there.
    """
    there = getattr(config, "label2id", None) or {}
    for name in label2id:
        if name in there and there[name] != label2id[name]:
            raise ConfigError(
                f"label2id differs from that of the model: found {label2id[name]} for {name!r}, "
                f"expected {there[name]}; pass label2id=model.config.label2id"
            )
