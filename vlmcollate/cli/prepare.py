"""`vlmcollate prepare`: encode a dataset ahead of time, under a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmcollate.cli.flags import in_flags
from vlmcollate.cli.interrupts import end_soon_after_interrupt
from vlmcollate.cli.loading import load_collator
from vlmcollate.cli.options import MediaRoot, Processor, TrustRemoteCode
from vlmcollate.cli.output import print_table
from vlmcollate.cli.prepare_progress import progress_bar
from vlmcollate.cli.settings import CollatorSettings, with_settings

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator
    from vlmcollate.data import Manifest

_Source = Annotated[
    list[str],
    typer.Argument(
        help="JSON Lines or Parquet files, folders or URLs, a saved dataset, or - for input."
    ),
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
    """Encode a dataset ahead of time, into a folder of Arrow shards."""
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
        read_input if source == ["-"] else source,
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
    source: Sequence[str | Path] | Callable[[], Iterator[Any]],
    output: Path,
    *,
    collator: BaseCollator,
    **options: Any,
) -> None:
    """Prepares a dataset under a progress bar, and prints a summary.

    Args:
        console: Where to print.
        source: The files or folders, or a function that returns a stream.
        output: The folder for the shards.
        collator: Encodes the samples.
        **options: Further options of `prepare_dataset`.
    """
    from vlmcollate.data import prepare_dataset

    kept = partial(_kept, output)
    with progress_bar(console) as bar:
        try:
            with end_soon_after_interrupt(lambda: bar.abandon(f"interrupted: {kept()}")):
                manifest = prepare_dataset(
                    source, output, collator=collator, on_progress=bar.show, **options
                )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(kept()) from None
    print_table(console, _summary(manifest))
    _print_first_errors(console, manifest)
    if manifest.dropped:
        number = sum(manifest.dropped.values())
        shown = f"{number:,} rejected rows with their reasons in {output / 'rejected.jsonl'}"
        console.print(Text(shown, "yellow"), soft_wrap=True)
    console.print(f"{manifest.rows} rows in {output}", highlight=False, soft_wrap=True)


def read_input() -> Iterator[Any]:
    """Reads the rows of JSON lines from the standard input."""
    from vlmcollate.data.json_rows import parse_line

    return (parse_line(line) for line in sys.stdin.buffer if line.strip())


def _kept(output: Path) -> str:
    """Describes what an interrupted run leaves."""
    shards = len([file for file in output.glob("*.arrow") if file.stem.isdecimal()])
    if not shards:
        return f"no shard is complete in '{output}'; the same command starts again"
    are = "shard is" if shards == 1 else "shards are"
    return f"{shards:,} {are} kept in '{output}'; the same command resumes after them"


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
    for name, message in manifest.examples.items():
        console.print(Text(f"{name}: {in_flags(message)}", "yellow"), soft_wrap=True)
