"""`vlmcollate demo`: the label mask of a few conversations, and a tiny model that trains on them.

The command downloads nothing: the processor and the model come from `vlmcollate.testing`, and the
images are drawn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from vlmcollate.cli.loading import importing

_Steps = Annotated[int, typer.Option(min=0, help="Number of training steps of the tiny model.")]
_Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Seed of the images and the model's weights.")
]


def command(steps: _Steps = 60, seed: _Seed = 0) -> None:
    """Collate a few conversations, show what is trained, and train a tiny model on them."""
    run(Console(), steps=steps, seed=seed)


def run(console: Console, *, steps: int = 60, seed: int = 0) -> list[float]:
    """Runs the demo.

    Args:
        console: Where to print.
        steps: The number of training steps of the tiny model.
        seed: The seed of the images and the model's weights.

    Returns:
        The loss of every step.
    """
    with importing(console):
        from vlmcollate.cli.demo_conversations import conversations
        from vlmcollate.cli.demo_output import batch_shapes, outcome, print_masks, trained_table
        from vlmcollate.cli.demo_training import train
        from vlmcollate.models import collator_for
        from vlmcollate.testing import tiny_model, tiny_processor
    with _quiet():
        with console.status("Making a processor, drawing images and collating ..."):
            processor = tiny_processor("qwen2_5_vl")
            collate = collator_for(processor)
            samples = {
                title: collate.encode(example) for title, example in conversations(seed).items()
            }
            batch = collate.stack(list(samples.values()))
            model = tiny_model(processor, seed=seed)
        console.print(
            f"[bold]{type(collate).__name__}[/] for a real {type(processor).__name__}, "
            f"with a tokenizer of {len(processor.tokenizer)} tokens made just now\n"
        )
        print_masks(console, samples, processor)
        console.print(trained_table(samples, processor))
        console.print(batch_shapes(batch))
        console.print()
        losses = train(model, batch, steps=steps, console=console)
    if losses:
        console.print(outcome(losses))
    return losses


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the log messages of transformers for as long as the context lasts."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
