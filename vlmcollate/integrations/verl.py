"""A dataset for the SFT trainer of verl, which pads and packs itself.

Written for verl 0.9, none of which it imports.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from transformers import AutoConfig

from vlmcollate.errors import ConfigError, ConversationError, SampleError
from vlmcollate.models import collator_for
from vlmcollate.padding import FlattenedDocuments
from vlmcollate.plain_values import show_all
from vlmcollate.sample import EncodedSample

_ON_OVERLONG = {"error": "raise", "right": "truncate"}
"""The policy of a collator for each `truncation` that it has."""
_UNUSED = ("attention_mask", "mm_token_type_ids")
"""Tensors along the tokens that a model does without, given positions."""
_COLUMNS = {
    "messages_key": "messages",
    "image_key": "images",
    "video_key": "videos",
    "tools_key": "tools",
}
"""The names of columns in the configuration of verl, and those of rows."""
_FIXED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "padding": ((), "since verl pads and packs"),
    "shift_labels": ((False,), "since verl shifts the loss_mask"),
    "split_turns": ((False,), "since a row is one sample; choose turns with train_on"),
    "on_overlong": (("raise", "truncate", "drop_turns"), "since verl cannot skip a row"),
    "dummy_media": (("never", "sample"), "since a sample does not know its batch"),
}
"""The values that options of a collator may have, and why no others."""


class CollatorDataset(Dataset[dict[str, Any]]):
    """Encodes the rows of Parquet files with the collator of the model's processor.

    Args:
        parquet_files: The file, or the files.
        tokenizer: The tokenizer, whose folder holds the configuration of the model.
        config: The section `data` of the configuration of verl: its `max_length`, `truncation`,
            `messages_key`, `image_key`, `video_key`, `tools_key`, `enable_thinking_key`,
            `apply_chat_template_kwargs`, `shuffle` and `seed`, and in `vlmcollate` the options of
            `collator_for`.
        processor: The processor.
        max_samples: The maximum number of rows; -1 for all.

    Raises:
        ConfigError: An option does not suit, or the model cannot be trained on packs.

    Example:
        `data.custom_cls.path=pkg://vlmcollate.integrations.verl` and
        `data.custom_cls.name=CollatorDataset`
    """

    def __init__(
        self,
        parquet_files: str | Sequence[str],
        tokenizer: Any,
        config: Mapping[str, Any],
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        from pyarrow import parquet  # verl requires it

        if processor is None:
            raise ConfigError(
                f"the processor is missing: found the tokenizer {type(tokenizer).__name__} alone, "
                "expected a processor; use verl's own dataset for a text model"
            )
        _check(config, "pad_mode", "no_padding", ("no_padding",))
        truncation = _check(config, "truncation", "error", tuple(_ON_OVERLONG))
        given = _options(config.get("vlmcollate") or {})
        options = {
            "max_length": config.get("max_length", 1024),
            "on_overlong": _ON_OVERLONG[truncation],
            "model_config": AutoConfig.from_pretrained(tokenizer.name_or_path),
            "padding": FlattenedDocuments(),
            "counts": False,
            **given,
            "template_kwargs": {
                **(config.get("apply_chat_template_kwargs") or {}),
                **given.get("template_kwargs", {}),
            },
        }
        self.collator = collator_for(processor, **options)
        self.thinking_key = config.get("enable_thinking_key", "enable_thinking")
        named = {config.get(key) or name: name for key, name in _COLUMNS.items()}
        self.columns = {key: name for key, name in named.items() if key != name}
        files = [parquet_files] if isinstance(parquet_files, str) else list(parquet_files)
        self.tables = [parquet.read_table(file) for file in files]
        starts = np.cumsum([0, *(len(table) for table in self.tables)])
        self.starts, self.rows = starts, _chosen(int(starts[-1]), max_samples, config)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a sample in verl's form.

        Returns:
            `input_ids` (L,) int64; `loss_mask` (L,) float32, the weights of the tokens;
            `position_ids`, (L,) or (4, L) int64; and `multi_modal_inputs`, the media tensors.

        Raises:
            SampleError: The row is at fault; the error holds its number in all files.
        """
        row = int(self.rows[index])
        at = int(np.searchsorted(self.starts, row, side="right")) - 1
        (example,) = self.tables[at].slice(row - int(self.starts[at]), 1).to_pylist()
        try:
            return self.in_form(self.collator.encode(self._renamed(example)))
        except SampleError as error:
            raise error.at(index=row) from error.__cause__

    def _renamed(self, row: dict[str, Any]) -> dict[str, Any]:
        """Returns a row with the names of columns that a collator knows."""
        row = {key: value for key, value in row.items() if value is not None}
        for key, name in self.columns.items():
            if key in row and name in row:
                raise ConversationError(f"has the columns {key!r} and {name!r}; keep one")
            if key not in row and name == "messages":
                raise ConversationError(
                    f"has no messages: found the columns {show_all(row)}, expected {key!r}; "
                    "correct data.messages_key"
                )
        row = {self.columns.get(key, key): value for key, value in row.items()}
        thinking = row.pop(self.thinking_key, None)
        if thinking is not None:
            given = row.get("chat_template_kwargs") or {}
            row["chat_template_kwargs"] = {**given, "enable_thinking": thinking}
        return row

    def in_form(self, sample: EncodedSample) -> dict[str, Any]:
        """Returns an encoded sample in verl's form.

        Raises:
            ConfigError: The model takes tensors along the tokens that verl does not pass.
        """
        unknown = {*sample.tokens} - {"input_ids", "labels", "loss_weights", *_UNUSED}
        if unknown:
            raise ConfigError(
                f"verl does not pass {sorted(unknown)} to the model, which needs it; train this "
                "model in another trainer"
            )
        batch = self.collator.stack([sample])
        is_trained = (batch["labels"][0] != -100).float()
        return {
            "input_ids": batch["input_ids"][0],
            "loss_mask": batch["loss_weights"][0] if "loss_weights" in batch else is_trained,
            "position_ids": batch["position_ids"][..., 0, :],
            "multi_modal_inputs": {key: batch[key] for key in sample.media},
        }


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Refuses options of a collator that verl cannot have."""
    for name, (known, why) in _FIXED.items():
        if name in given and given[name] not in known:
            expected = " or ".join(map(repr, known))
            remedy = f"expected {expected}, {why}" if known else why
            raise ConfigError(
                f"{name} does not suit the dataset: found {given[name]!r:.60}, {remedy}; remove "
                f"data.vlmcollate.{name}"
            )
    return dict(given)


def _check(config: Mapping[str, Any], name: str, default: str, known: tuple[str, ...]) -> str:
    found: str = config.get(name, default)
    if found not in known:
        raise ConfigError(
            f"{name} does not suit the dataset: found {found!r}, expected "
            f"{' or '.join(map(repr, known))}; set data.{name}={known[0]}"
        )
    return found


def _chosen(number: int, max_samples: int, config: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Returns the rows that verl would choose."""
    if not 0 < max_samples < number:
        return np.arange(number)
    if not config.get("shuffle", False):
        return np.arange(max_samples)
    return np.random.default_rng(config.get("seed")).choice(number, max_samples, replace=False)
