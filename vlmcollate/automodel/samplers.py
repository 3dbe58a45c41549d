"""Automodel's sampler that groups samples of similar length."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import distributed
from torch.utils.data import Sampler

from vlmcollate.automodel.conventions import automodel_collator, conversations_of
from vlmcollate.automodel.datasets import PreTokenizedDatasetWrapper
from vlmcollate.automodel.retrying import RobustDatasetWrapper
from vlmcollate.errors import ConfigError, SampleError
from vlmcollate.validators import check_count

_LOG = logging.getLogger(__name__)
_HEADROOM = 512
_TOKENS_OF_MEDIA = 500
_WRAPPERS = ("PreTokenizedDatasetWrapper", "RobustDatasetWrapper")


class LengthGroupedSampler(Sampler[int]):
    """Draws batches of samples of similar length.

    The samples are sorted by length, the longest first, and the batches are shuffled. An incomplete
    batch comes last. Ranks with different samples draw batches of about the same length at the same
    time.

    Args:
        dataset: A map-style dataset of `{"conversation": [...]}`, or a wrapper around it.
        seed: The seed of the order, equal on all ranks.
        processor: The processor that counts the tokens, without decoding media. Without it, the
            lengths are estimates: `_text_tokens` of the example, or a third of its characters, plus
            500 tokens per media item.
        max_length: The maximum number of tokens. Longer samples are dropped with a warning in the
            log; without a processor, only those that are longer by more than 512.
        batch_size: The number of samples in a batch.

    Attributes:
        lengths: The number of tokens of every sample.
        text_lengths: The number of text tokens of every sample.
        media_lengths: The number of media tokens of every sample.
        sorted_indices: The indices of the samples that are drawn, the longest first.
    """

    def __init__(
        self,
        dataset: Any,
        seed: int = 42,
        processor: Any = None,
        max_length: int | None = None,
        batch_size: int = 1,
    ) -> None:
        check_count("batch_size", batch_size)
        self.dataset, self.seed, self.epoch = dataset, seed, 0
        self.max_length, self.batch_size = max_length, batch_size
        raw = _unwrap(dataset)
        found = [_count_tokens(raw[index], processor) for index in range(len(raw))]
        self.text_lengths = [text for text, _ in found]
        self.media_lengths = [media for _, media in found]
        self.lengths = [text + media for text, media in found]
        kept = list(range(len(raw)))
        if max_length is not None:
            limit = max_length + (_HEADROOM if processor is None else 0)
            kept = [index for index in kept if self.lengths[index] <= limit]
            if len(kept) < len(raw):
                _LOG.warning(
                    "%d of %d samples are dropped: longer than %d tokens",
                    len(raw) - len(kept),
                    len(raw),
                    limit,
                )
        self.sorted_indices = sorted(kept, key=lambda index: self.lengths[index], reverse=True)
        if max_length is not None and distributed.is_initialized():
            self._align()

    def _align(self) -> None:
        """Drops samples until all ranks have the same number."""
        on_gpu = distributed.get_backend() == "nccl"
        count = torch.tensor(len(self.sorted_indices), device="cuda" if on_gpu else "cpu")
        distributed.all_reduce(count, op=distributed.ReduceOp.MIN)
        if int(count) < len(self.sorted_indices):
            _LOG.warning(
                "the shortest %d samples are dropped: another rank has only %d",
                len(self.sorted_indices) - int(count),
                int(count),
            )
            del self.sorted_indices[int(count) :]

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which changes the order."""
        check_count("epoch", epoch, least=0)
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sorted_indices)

    def __iter__(self) -> Iterator[int]:
        order, size = self.sorted_indices, self.batch_size
        full = len(order) // size
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        for batch in torch.randperm(full, generator=generator).tolist():
            yield from order[batch * size : (batch + 1) * size]
        yield from order[full * size :]


def _unwrap(dataset: Any) -> Any:
    """Returns the dataset inside Automodel's wrappers, but not a `Subset`."""
    while (
        isinstance(dataset, PreTokenizedDatasetWrapper | RobustDatasetWrapper)
        or type(dataset).__name__ in _WRAPPERS
    ):
        dataset = dataset.dataset
    return dataset


def _count_tokens(example: Any, processor: Any) -> tuple[int, int]:
    """Counts the text tokens and the media tokens of a sample."""
    (conversation,) = conversations_of([example])
    text, items = _estimate(example, conversation)
    if processor is None:
        return text, items * _TOKENS_OF_MEDIA
    collator = automodel_collator(processor)
    try:
        total = collator.token_count(conversation)
        if total is None:
            total = len(collator.encode(conversation))
        media = total - _text_tokens(collator, conversation) if items else 0
    except ConfigError:
        raise
    except SampleError as error:
        _LOG.warning("the length of a sample is estimated: %s", error)
        return text, items * _TOKENS_OF_MEDIA
    return total - media, media


def _text_tokens(collator: Any, conversation: Any) -> int:
    """Counts the tokens of a prompt before placeholders are expanded."""
    text = collator.render(collator.read(conversation)).text
    return len(collator.processor.tokenizer.encode(text, add_special_tokens=False))


def _estimate(example: Mapping[str, Any], conversation: Any) -> tuple[int, int]:
    """Estimates the text tokens of a sample, and counts its media items."""
    characters = items = 0
    for message in conversation:
        content = message.get("content") if isinstance(message, Mapping) else None
        characters += len(content) if isinstance(content, str) else 0
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            items += kind in ("image", "video")
            characters += len(part.get("text") or "") if kind == "text" else 0
    text_tokens = example.get("_text_tokens")
    return (characters // 3 if text_tokens is None else int(text_tokens)), items
