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
    """Draws batches of samples of similar length, in an order fixed by the seed and the epoch.

    The samples are sorted by length, the longest first, and the batches shuffled; a smaller rest
    comes last, so that it breaks up no other batch. Ranks that hold different samples draw those
    of about the same length at the same time.

    Args:
        dataset: A map-style dataset of `{"conversation": [...]}`, or one of the wrappers around it.
        seed: Decides the order, with the epoch; the same on every rank.
        processor: Counts tokens as the model sees them, without decoding media. Without it, a
            sample's `_text_tokens`, or a third of its characters, and 500 tokens a media item are
            taken.
        max_length: Leaves out longer samples, with a warning in the log; without a processor, those
            that are longer by more than 512, since the lengths are estimates.
        batch_size: Samples a batch.

    Attributes:
        lengths: The tokens of every sample.
        text_lengths: Those that are of text.
        media_lengths: Those that are of media.
        sorted_indices: The samples that are drawn, the longest first.
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
        raw = _unwrapped(dataset)
        found = [_tokens(raw[index], processor) for index in range(len(raw))]
        self.text_lengths = [text for text, _ in found]
        self.media_lengths = [media for _, media in found]
        self.lengths = [text + media for text, media in found]
        kept = list(range(len(raw)))
        if max_length is not None:
            limit = max_length + (_HEADROOM if processor is None else 0)
            kept = [index for index in kept if self.lengths[index] <= limit]
            if len(kept) < len(raw):
                _LOG.warning(
                    "%d of %d samples are left out: longer than %d tokens",
                    len(raw) - len(kept),
                    len(raw),
                    limit,
                )
        self.sorted_indices = sorted(kept, key=lambda index: self.lengths[index], reverse=True)
        if max_length is not None and distributed.is_initialized():
            self._align()

    def _align(self) -> None:
        """Gives every rank as many samples as the rank that holds the fewest."""
        on_gpu = distributed.get_backend() == "nccl"
        count = torch.tensor(len(self.sorted_indices), device="cuda" if on_gpu else "cpu")
        distributed.all_reduce(count, op=distributed.ReduceOp.MIN)
        if int(count) < len(self.sorted_indices):
            _LOG.warning(
                "%d samples, the shortest, are left out: another rank holds %d",
                len(self.sorted_indices) - int(count),
                int(count),
            )
            del self.sorted_indices[int(count) :]

    def set_epoch(self, epoch: int) -> None:
        """Goes to an epoch."""
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


def _unwrapped(dataset: Any) -> Any:
    """The samples inside of wrappers that keep their order; a `Subset` is none of those."""
    while (
        isinstance(dataset, PreTokenizedDatasetWrapper | RobustDatasetWrapper)
        or type(dataset).__name__ in _WRAPPERS
    ):
        dataset = dataset.dataset
    return dataset


def _tokens(example: Any, processor: Any) -> tuple[int, int]:
    """A sample's tokens of text, and of media."""
    (conversation,) = conversations_of([example])
    text, items = _estimated(example, conversation)
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
    """The tokens of a conversation's prompt, in which each media item is a placeholder."""
    text = collator.render(collator.read(conversation)).text
    return len(collator.processor.tokenizer.encode(text, add_special_tokens=False))


def _estimated(example: Mapping[str, Any], conversation: Any) -> tuple[int, int]:
    """About how many tokens of text a sample has, and how many media items."""
    characters = items = 0
    for message in conversation:
        content = message.get("content") if isinstance(message, Mapping) else None
        characters += len(content) if isinstance(content, str) else 0
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            items += kind in ("image", "video")
            characters += len(part.get("text") or "") if kind == "text" else 0
    counted = example.get("_text_tokens")
    return (characters // 3 if counted is None else int(counted)), items
