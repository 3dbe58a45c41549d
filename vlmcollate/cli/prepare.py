"""`vlmcollate prepare`: encode a dataset ahead of time, under a progress bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from vlmcollate.cli.flags import in_flags
from vlmcollate.cli.loading import load_collator
from vlmcollate.cli.options import MediaRoot, Processor, TrustRemoteCode
from vlmcollate.cli.settings import CollatorSettings, with_settings

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator
    from vlmcollate.data import Manifest, Progress

_Source = Annotated[
    list[Path], typer.Argument(help="JSON Lines or Parquet files, folders, or a saved dataset.")
]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the shards.")]
_NumProc = Annotated[int, typer.Option(min=1, help="Number of processes that encode.")]
_MaxLength = Annotated[
    int | None, typer.Option(min=1, help="Maximum tokens of a sample or a pack.")
]
_OnOverlong = Annotated[
    str | None, typer.Option(help="Policy for longer samples: raise, drop, truncate or drop_turns.")
]
_OnError = Annotated[
    str, typer.Option(help="Policy for bad samples: raise, or skip and count them.")
]
_Packing = Annotated[
    bool, typer.Option("--packing", help="Join samples into packs of at most --max-length.")
]
_Resume = Annotated[bool, typer.Option(help="Resume an earlier run in the output folder.")]
_RowsPerShard = Annotated[int, typer.Option(min=1, help="Maximum source rows of a shard.")]


@with_settings
def command(
    processor: Processor,
    source: _Source,
    output: _Output,
    num_proc: _NumProc = 1,
    max_length: _MaxLength = None,
    on_overlong: _OnOverlong = None,
    on_error: _OnError = "raise",
    packing: _Packing = False,  # noqa: FBT002  # typer makes a flag of it
    resume: _Resume = True,  # noqa: FBT002  # likewise
    rows_per_shard: _RowsPerShard = 1000,
    media_root: MediaRoot = None,
    trust_remote_code: TrustRemoteCode = False,  # noqa: FBT002  # likewise
    *,
    settings: CollatorSettings,
) -> None:
    """Encode a dataset ahead of time, into a folder of Parquet shards."""
    console = Console()
    collator = load_collator(
        console,
        processor,
        settings,
        media_root=media_root,
        max_length=max_length,
        on_overlong=on_overlong,
        trust_remote_code=trust_remote_code,
        packs=packing,
    )
    run(
        console,
        source,
        output,
        collator=collator,
        num_proc=num_proc,
        max_length=collator.max_length,
        packing=packing,
        on_error=on_error,
        resume=resume,
        rows_per_shard=rows_per_shard,
    )


def run(
    console: Console,
    source: Sequence[Path],
    output: Path,
    *,
    collator: BaseCollator,
    **options: Any,
) -> None:
    """Prepares a dataset under a progress bar, and prints a summary.

    Args:
        console: Where to print.
        source: The files or folders.
        output: The folder for the shards.
        collator: Encodes the samples.
        **options: Further options of `prepare_dataset`.
    """
    from vlmcollate.data import prepare_dataset

    with _progress_bar(console) as bar:
        manifest = prepare_dataset(
            source, output, collator=collator, on_progress=bar.show, **options
        )
    console.print(_summary(manifest))
    _print_first_errors(console, manifest)
    if manifest.dropped:
        number = sum(manifest.dropped.values())
        shown = f"{number:,} rejected rows with their reasons in {output / 'rejected.jsonl'}"
        console.print(Text(shown, "yellow"), soft_wrap=True)
    console.print(f"{manifest.rows} rows in {output}", highlight=False, soft_wrap=True)


class _ProgressBar:
    """A status until the first progress arrives, then a bar."""

    def __init__(self, console: Console) -> None:
        self.status = console.status("Reading the source ...")
        self.bar = Bar(
            TextColumn("samples"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}, {task.fields[dropped]} dropped"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self.bar.add_task("", total=None, rate="starting", dropped=0)

    def show(self, progress: Progress) -> None:
        self.status.stop()
        self.bar.start()
        self.bar.update(self._task, total=progress.total, completed=progress.done)
        elapsed = self.bar.tasks[0].elapsed or 0.0
        here = progress.done - progress.resumed
        rate = f"{here / elapsed:.0f} samples/s" if here and elapsed else "starting"
        self.bar.update(self._task, rate=rate, dropped=progress.dropped)


@contextmanager
def _progress_bar(console: Console) -> Iterator[_ProgressBar]:
    bar = _ProgressBar(console)
    bar.status.start()
    try:
        yield bar
    finally:
        bar.status.stop()
        bar.bar.stop()


def _summary(manifest: Manifest) -> Table:
    table = Table(box=None, show_header=False)
    share = manifest.trained_tokens / max(manifest.tokens, 1)
    table.add_row("samples", f"{manifest.samples:,}")
    table.add_row("tokens", f"{manifest.tokens:,}, {share:.1%} of them trained")
    for bound, count in manifest.lengths.items():
        table.add_row(f"up to {bound:,} tokens", f"{count:,}")
    for name, count in manifest.dropped.items():
        table.add_row(f"dropped: {name}", f"{count:,}")
    return table


def _print_first_errors(console: Console, manifest: Manifest) -> None:
    """Prints the first message of each class of error that dropped samples."""
    first = {n: m for shard in reversed(manifest.shards) for n, m in shard.examples.items()}
    for name, message in first.items():
        console.print(Text(f"{name}: {in_flags(message)}", "yellow"), soft_wrap=True)
