"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Processor = Annotated[
    str, typer.Argument(help="Folder of a processor, or its name on the Hugging Face hub.")
]
Data = Annotated[
    str,
    typer.Argument(
        help="JSON Lines or Parquet file or URL, saved dataset, or YAML file of a mixture."
    ),
]
Rows = Annotated[str, typer.Option(help="Row or range of rows, such as 3, 0:10 or -5:.")]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Maximum tokens of a sample.")]
MediaRoot = Annotated[
    Path | None, typer.Option(help="Folder from which relative media paths start.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the processor.")
]
