"""What `vlmcollate demo` prints of its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from torch import Tensor

from vlmcollate.cli import terminal
from vlmcollate.explain.mask_text import trained_texts, visible
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

_BARS = "▁▂▃▄▅▆▇█"


def print_masks(console: Console, samples: Mapping[str, EncodedSample], processor: Any) -> None:
    """Prints the label masks of samples, with a legend of the colours.

    Args:
        console: Where to print.
        samples: Labelled samples by title.
        processor: The processor that encoded them.
    """
    brackets = console.color_system is None
    for title, sample in samples.items():
        mask = terminal.mask_of(sample, processor, brackets=brackets)
        console.print(Panel(mask, title=title, title_align="left", border_style="dim"))
    console.print(terminal.key(brackets=brackets))
    console.print()


def trained_table(samples: Mapping[str, EncodedSample], processor: Any) -> Table:
    """Builds a table of the tokens and the text that train, one row per sample.

    Args:
        samples: Labelled samples by title.
        processor: The processor that encoded them.
    """
    table = Table(title="What is trained", title_justify="left", show_lines=True)
    table.add_column("sample")
    for name in ("tokens", "of images", "trained", "share"):
        table.add_column(name, justify="right")
    table.add_column("trained text", ratio=1, overflow="fold")
    for title, sample in samples.items():
        trained = int((sample.labels != IGNORE_INDEX).sum())
        texts = trained_texts(sample, processor)
        table.add_row(
            title,
            str(len(sample)),
            str(int((sample.media_ids >= 0).sum())),
            str(trained),
            f"{trained / len(sample):.0%}",
            Text("\n").join(Text(visible(text), "green") for text in texts),
        )
    return table


def batch_shapes(batch: Mapping[str, Tensor]) -> Text:
    """Returns the key and the shape of every tensor of a batch."""
    shapes = (f"{key} {tuple(value.shape)}" for key, value in batch.items())
    return Text("The batch: " + ", ".join(shapes), "dim")


def outcome(losses: Sequence[float]) -> Text:
    """Returns the first and the last loss, with a sparkline of all."""
    return Text.assemble(
        "Loss ",
        (f"{losses[0]:.3f}", "bold"),
        f" at the first step, {losses[-1]:.3f} at the last  ",
        (sparkline(losses), "green"),
    )


def sparkline(values: Sequence[float], *, width: int = 30) -> str:
    """Draws values as a row of bars.

    Args:
        values: At least one number.
        width: The maximum number of bars; longer rows are thinned out.

    Returns:
        One character per bar.

    Example:
        >>> sparkline([3, 2, 1, 0])
        '█▅▃▁'
    """
    count = min(width, len(values))
    shown = [values[i * (len(values) - 1) // max(count - 1, 1)] for i in range(count)]
    low, high = min(shown), max(shown)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0
    return "".join(_BARS[int((value - low) * scale)] for value in shown)
