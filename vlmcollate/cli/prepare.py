"""What `vlmcollate prepare` shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from vlmcollate.collator import BaseCollator
from vlmcollate.data.manifest import Manifest
from vlmcollate.data.preparing import Progress, prepare_dataset


def run(
    console: Console,
    source: Sequence[Path],
    output: Path,
    *,
    collator: BaseCollator,
    **options: Any,
) -> None:
    """Prepares a dataset under a progress bar, and sums up what came of it.

    Args:
        console: Where to write.
        source: The files or folders.
        output: The folder of the shards.
        collator: Encodes the samples.
        **options: Those of `prepare_dataset`.
    """
    columns = (
        TextColumn("samples"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}, {task.fields[dropped]} dropped"),
        TimeRemainingColumn(),
    )
    looking, bar = console.status("Reading the source ..."), Bar(*columns, console=console)
    task = bar.add_task("", total=None, rate="starting", dropped=0)

    def show(progress: Progress) -> None:
        looking.stop()
        bar.start()
        bar.update(task, total=progress.total, completed=progress.done)
        elapsed = bar.tasks[0].elapsed or 0.0
        here = progress.done - progress.resumed
        rate = f"{here / elapsed:.0f} samples/s" if here and elapsed else "starting"
        bar.update(task, rate=rate, dropped=progress.dropped)

    looking.start()
    try:
        manifest = prepare_dataset(source, output, collator=collator, on_progress=show, **options)
    finally:
        looking.stop()
        bar.stop()
    console.print(_summary(manifest))
    first = {n: m for shard in reversed(manifest.shards) for n, m in shard.examples.items()}
    for name, message in first.items():
        console.print(Text(f"{name}: {message}", "yellow"), soft_wrap=True)
    console.print(f"{manifest.rows} rows in {output}", highlight=False, soft_wrap=True)


def _summary(manifest: Manifest) -> Table:
    table = Table(box=None, show_header=False)
    share = manifest.trained_tokens / max(manifest.tokens, 1)
    table.add_row("samples", f"{manifest.samples:,}")
    table.add_row("tokens", f"{manifest.tokens:,}, of which {share:.1%} are trained")
    for bound, count in manifest.lengths.items():
        table.add_row(f"up to {bound:,} tokens", f"{count:,}")
    for name, count in manifest.dropped.items():
        table.add_row(f"dropped: {name}", f"{count:,}")
    return table
