"""Preparing a dataset on many machines with Ray, as an extra: `pip install 'vlmcollate[ray]'`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.data.encoder import Encoder
from vlmcollate.data.manifest import Manifest
from vlmcollate.data.preparing import running
from vlmcollate.data.sources import Piece
from vlmcollate.errors import ConfigError


class _Worker:
    """An actor that encodes pieces."""

    def __init__(self, encoder: Encoder, folder: str) -> None:
        import torch

        torch.set_num_threads(1)
        self._encoder, self._folder = encoder, Path(folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for piece, name in zip(batch["piece"], batch["file"], strict=True):
            self._encoder.write(Piece(**piece), self._folder / name)
        return {"file": batch["file"]}


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
    """Does what `vlmcollate.data.prepare_dataset` does, with a pool of Ray actors.

    The files are the same, byte for byte. Every machine of the cluster has to see the source, its
    media and the folder under the same paths.

    Args:
        source: As for `vlmcollate.data.prepare_dataset`.
        output_dir: The folder, on storage that all machines share.
        collator: Encodes the samples.
        num_actors: How many actors encode, each on one CPU.
        max_length: The most tokens of a sample or a pack.
        packing: Whether to join the samples of a shard into packs.
        on_error: Whether a sample at fault stops the run, or is left out and counted.
        resume: Whether to keep the shards of an earlier run.
        rows_per_shard: The most rows of the source in a shard, which one actor does in one go.

    Returns:
        The manifest.

    Raises:
        ConfigError: Ray is not installed, or as `vlmcollate.data.prepare_dataset`.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("Ray is not installed; run pip install 'vlmcollate[ray]'") from error
    with running(
        source,
        output_dir,
        collator=collator,
        max_length=max_length,
        packing=packing,
        on_error=on_error,
        resume=resume,
        rows_per_shard=rows_per_shard,
    ) as run:
        run.finished()  # refuses a damaged shard before the work
        left = run.left()
        if left:
            rows = [{"piece": attrs.asdict(piece), "file": file.name} for piece, file in left]
            ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Worker,
                fn_constructor_args=(run.encoder, str(run.folder.resolve())),
                batch_size=1,
                batch_format="default",
                compute=ray.data.ActorPoolStrategy(size=num_actors),
                num_cpus=1,
            ).materialize()
        return run.finish()
