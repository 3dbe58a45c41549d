"""Preparing a dataset on many machines with Ray; needs `pip install 'vlmcollate[ray]'`."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.data.encoder import PieceEncoder
from vlmcollate.data.manifest import Manifest
from vlmcollate.data.processes import Task, picklable
from vlmcollate.data.run import Run, open_run
from vlmcollate.data.sources import Piece
from vlmcollate.errors import ConfigError
from vlmcollate.validators import check_count


class _Worker:
    """Encodes pieces, as a Ray actor.

    Args:
        encoder: A reference to the `PieceEncoder`, which is too large to be sent with each task.
        folder: The folder for the shards.
    """

    def __init__(self, encoder: Any, folder: str) -> None:
        import ray
        import torch

        torch.set_num_threads(1)
        self._encoder: PieceEncoder = ray.get(encoder)
        self._folder = Path(folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(batch["piece"], batch["file"], strict=True)
        return {"failure": [self._write(Piece(**piece), name) for piece, name in pairs]}

    def _write(self, piece: Piece, name: str) -> str:
        """Writes a shard; returns the error and its traceback in hexadecimal pickle, or ""."""
        try:
            self._encoder.write(piece, self._folder / name)
        except Exception as error:  # noqa: BLE001  # Ray would lose its class
            return pickle.dumps(picklable(error)).hex()
        return ""


def prepare_dataset(
    source: object,
    output_dir: str | os.PathLike[str],
    *,
    collator: BaseCollator,
    num_actors: int = 1,
    max_length: int | None = None,
    packing: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    resume: bool = True,
    rows_per_shard: int = 1000,
) -> Manifest:
    """Encodes a dataset like `vlmcollate.data.prepare_dataset`, with a pool of Ray actors.

    The files are the same, byte for byte. The source, its media and the folder must have the same
    paths on every machine of the cluster.

    Args:
        source: As for `vlmcollate.data.prepare_dataset`, but no stream.
        output_dir: The folder, on storage that all machines share.
        collator: Encodes the samples.
        num_actors: The number of actors that encode, each on one CPU.
        max_length: The maximum tokens of a sample or a pack.
        packing: Whether to join the samples of a shard into packs.
        on_error: The policy for bad samples: `"raise"`, or `"skip"` and count them.
        resume: Whether to keep the shards of an earlier run.
        rows_per_shard: The maximum rows of the source in a shard, each the task of one actor.

    Returns:
        The manifest.

    Raises:
        ConfigError: Ray is not installed, or `vlmcollate.data.prepare_dataset` would raise it.
        SampleError: A sample is bad; the error names its file and row.
        SourceError: The dataset raised an error that every other row would raise, too, such as that
            of a full disk, or one that may pass, such as a timeout; the error names the row.
    """
    check_count("num_actors", num_actors)
    try:
        import ray  # noqa: F401  # as _write_shards does
    except ImportError as error:
        raise ConfigError("Ray is not installed; run pip install 'vlmcollate[ray]'") from error
    with open_run(
        source,
        output_dir,
        collator=collator,
        max_length=max_length,
        packing=packing,
        on_error=on_error,
        resume=resume,
        rows_per_shard=rows_per_shard,
    ) as run:
        if run.stream is not None:
            raise ConfigError(
                "a stream is read on one machine; prepare it without Ray, or pass files or a "
                "map-style dataset"
            )
        left = list(run.tasks())  # refuses a damaged shard before any work
        if left:
            _write_shards(run, left, num_actors)
        return run.finish()


def _write_shards(run: Run, tasks: Sequence[Task], num_actors: int) -> None:
    """Writes shards in actors; raises the first error of one as it was."""
    import ray

    encoder = ray.put(run.encoder)  # this reference keeps it until all actors have ended
    rows = [{"piece": attrs.asdict(piece), "file": file.name} for piece, file in tasks]
    written = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Worker,
        fn_constructor_args=(encoder, str(run.folder.resolve())),
        batch_size=1,
        batch_format="default",
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=1,
    )
    for row in written.iter_rows():
        if row["failure"]:
            error, its_traceback = pickle.loads(bytes.fromhex(row["failure"]))  # noqa: S301  # ours
            raise error from RuntimeError(its_traceback)
