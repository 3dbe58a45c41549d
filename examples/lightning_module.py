"""Lightning."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from examples.chats import chats
from vlmcollate import collator_for
from vlmcollate.testing import tiny_model, tiny_processor


class Tuner(lightning.LightningModule):  # type: ignore[misc]  # untyped
    """Trains a model on what the collator gives."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.losses = model, list[float]()

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """One step."""
        inputs = {key: value for key, value in batch.items() if not key.startswith("n_")}
        loss: Tensor = self.model(**inputs).loss
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(epochs: int = 8) -> list[float]:
    """Trains, and returns the loss of each step."""
    processor = tiny_processor()
    tuner = Tuner(tiny_model(processor))
    loader: DataLoader[Any] = DataLoader(chats(), batch_size=4, collate_fn=collator_for(processor))  # type: ignore[arg-type]  # a list is map-style
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(tuner, loader)
    return tuner.losses


if __name__ == "__main__":
    print(main())
