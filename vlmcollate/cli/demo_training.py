"""Training the tiny model of `vlmcollate demo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

_LEARNING_RATE = 3e-3


def train(model: Any, batch: Mapping[str, Tensor], *, steps: int, console: Console) -> list[float]:
    """Trains a model on one batch.

    Args:
        model: A `transformers` model in training mode.
        batch: The output of a collator.
        steps: The number of steps.
        console: Where to show the progress.

    Returns:
        The loss of every step.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    losses: list[float] = []
    columns = (
        TextColumn("Training a tiny model"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps, loss="-")
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            progress.update(task, advance=1, loss=f"{losses[-1]:.3f}")
    return losses
