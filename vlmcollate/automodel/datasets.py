"""Automodel's wrapper that tokenizes samples before the collate function.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch.utils.data import Dataset

from vlmcollate.automodel.conventions import TOKEN_KEYS, conversations_of
from vlmcollate.automodel.encoding import Hook, apply_hook
from vlmcollate.automodel.fake_image import _conversation_has_media
from vlmcollate.automodel.labelling import media_ids_of
from vlmcollate.automodel.retrying import make_robust_collate, read_sample, take_first_valid
from vlmcollate.automodel.tokenized import read_tokenized
from vlmcollate.batch.media import with_float_pixels
from vlmcollate.batch.stacking import fill_values, with_spare_token
from vlmcollate.collator import BaseCollator
from vlmcollate.encode.dummy_media import DummyMediaPolicy
from vlmcollate.errors import ConfigError, SampleError, SampleTooLongError
from vlmcollate.models import collator_for
from vlmcollate.pixels import dtype_of
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import an_instance_of, at_least_one


@attrs.define(eq=False)
class PreTokenizedDatasetWrapper(Dataset[Any]):
    """Encodes a sample on access, in the worker that accesses it.

    A sample that the dataset cannot read, that is invalid or too long is replaced by another, the
    same one on every rank, with a warning in the log. Bugs and configuration errors are raised.

    Args:
        dataset: A map-style dataset of `{"conversation": [...]}`.
        processor: The processor.
        max_length: The maximum number of tokens of a sample, unlimited by default.
        max_retries: The maximum number of samples that are read, including the first one.
        truncate: Whether longer samples are truncated, but never inside media, or replaced.
        post_tokenize_hook: A function that changes a tokenized sample, as a batch of one, before it
            is labelled; see `default_collate_fn`.
        inject_fake_images: Whether a small white image is added after the text of a conversation
            without images and videos, with attention 0 and no label, so that every rank runs the
            vision encoder. If the model accepts audio, silence is added as well.
        template_kwargs: The variables of the chat template, such as `{"enable_thinking": False}`.
        collator_options: Further options of the collator.
    """

    dataset: Any
    processor: Any
    max_length: int | None = None
    max_retries: int = attrs.field(default=10, validator=at_least_one)
    truncate: bool = attrs.field(default=False, validator=an_instance_of(bool))
    post_tokenize_hook: Hook | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.is_callable())
    )
    inject_fake_images: bool = attrs.field(default=True, validator=an_instance_of(bool))
    template_kwargs: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    collator_options: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    preload_media: bool = attrs.field(default=False, init=False)
    collator: BaseCollator = attrs.field(init=False, repr=False)
    faking_collator: BaseCollator = attrs.field(init=False, repr=False)

    @collator.default
    def _collator(self) -> BaseCollator:
        return self._build_collator(self.max_length, "never")

    @faking_collator.default
    def _faking_collator(self) -> BaseCollator:
        # leaves space for the token after the fake image
        max_length = None if self.max_length is None else self.max_length - 1
        return self._build_collator(max_length, "sample")

    def _build_collator(self, max_length: int | None, fake: DummyMediaPolicy) -> BaseCollator:
        options: dict[str, Any] = dict(self.collator_options or {})
        if (
            max_length is not None and self.post_tokenize_hook is None
        ):  # the hook precedes truncation
            options["max_length"] = max_length
            options["on_overlong"] = "truncate" if self.truncate else "raise"
        return collator_for(
            self.processor,
            dummy_media=fake,
            template_kwargs=dict(self.template_kwargs or {}),
            **options,
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def encode(self, index: int) -> EncodedSample:
        """Encodes the sample, or its replacement."""
        return take_first_valid(len(self), index, self.max_retries, self._encode)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns the sample, or its replacement, for `pad_collate_fn`.

        Returns:
            The token tensors (L,), labels not shifted, the media, and the numbers of media items,
            such as `n_images`.

        Raises:
            RuntimeError: All samples that were read are invalid.
        """
        sample = self.encode(index)
        return {**sample.tokens, **sample.media, **count_items(sample)}

    def robust_collate(self, collate_fn: Callable[[list[Any]], Any]) -> Callable[..., Any]:
        """Wraps a collate function by `make_robust_collate`."""
        return make_robust_collate(self, collate_fn, self.max_retries)

    def _encode(self, index: int) -> EncodedSample:
        example = read_sample(self.dataset, index)
        (conversation,) = conversations_of([example])
        if example.get("_injected_fake"):
            raise ConfigError(
                "the dataset adds fake images itself: found the key _injected_fake, expected "
                "conversations without them; set preload_media=False on the inner wrapper"
            )
        is_faked = self._needs_fake_image(conversation)
        collator = self.faking_collator if is_faked else self.collator
        try:
            sample = with_float_pixels(collator.encode(conversation), dtype_of(collator.pixels))
            if self.post_tokenize_hook is not None:
                sample = self._apply_hook(sample, conversation, self.post_tokenize_hook)
        except SampleError as error:
            raise error.at(index=index) from error.__cause__
        is_last = bool(sample.media_ids[-1] >= 0)  # -1 after a hook
        if is_last or (is_faked and sample.media and not sample.tokens["attention_mask"][-1]):
            return with_spare_token(sample, fill_values(self.processor.tokenizer))
        return sample

    def _needs_fake_image(self, conversation: Any) -> bool:
        is_list = isinstance(conversation, list | tuple)
        return self.inject_fake_images and not (is_list and _conversation_has_media(conversation))

    def measure(self, index: int) -> tuple[int, int]:
        """Counts tokens and media items, if possible without decoding media.

        Returns:
            The number of tokens, -1 if the sample will be replaced, and the number of media items.
        """
        try:
            if self.post_tokenize_hook is not None:  # the length is known only after the hook
                sample = self._encode(index)
                return len(sample), sum(sample.media_counts.values())
            (conversation,) = conversations_of([read_sample(self.dataset, index)])
            is_faked = self._needs_fake_image(conversation)
            collator = self.faking_collator if is_faked else self.collator
            whole = attrs.evolve(collator, max_length=None, on_overlong="raise")
            count = whole.token_count(conversation)
            length = len(whole.encode(conversation)) if count is None else count
            items = len(list(whole.read(conversation).media))
        except SampleError:
            return -1, 0
        length += int(is_faked and bool(whole.dummies.pieces))
        if self.max_length is None or length <= self.max_length:
            return length, items
        return (self.max_length if self.truncate else -1), items

    def _apply_hook(self, sample: EncodedSample, conversation: Any, hook: Hook) -> EncodedSample:
        """Applies the hook to a sample, labels the result, and truncates it."""
        batch = {key: value[None] for key, value in sample.tokens.items()}
        found = apply_hook(
            {**batch, **sample.media}, [conversation], self.processor, hook, self.template_kwargs
        )
        row = {k: v[0] if k in TOKEN_KEYS else v for k, v in found.items()}
        changed = read_tokenized(
            {**row, **count_items(sample)}, "the hook's batch", self.collator.family.joins
        ).sample
        return changed if self.max_length is None else self._truncate(changed, self.max_length)

    def _truncate(self, sample: EncodedSample, limit: int) -> EncodedSample:
        """Truncates a sample after the hook, unless it would lose media."""
        if len(sample) <= limit:
            return sample
        lost = torch.isin(
            sample.input_ids[limit:], torch.tensor(media_ids_of(self.collator), dtype=torch.long)
        )
        if not self.truncate or lost.any():
            loss = ", and truncation would remove media tokens" if self.truncate else ""
            raise SampleTooLongError(
                f"{len(sample)} tokens after the hook, longer than max_length={limit}{loss}; raise "
                "it"
            )
        return attrs.evolve(
            sample,
            tokens={key: value[:limit] for key, value in sample.tokens.items()},
            message_ids=sample.message_ids[:limit],
            media_ids=sample.media_ids[:limit],
        )


def count_items(sample: EncodedSample) -> dict[str, int]:
    """Counts the media items by kind, under keys such as `n_images`."""
    return {f"n_{kind}s": count for kind, count in sample.media_counts.items()}


@attrs.define(kw_only=True)
class PreTokenizedDatasetWrapperConfig:
    """The options of a `PreTokenizedDatasetWrapper`, without the dataset.

    Args:
        max_length: See `PreTokenizedDatasetWrapper`.
        max_retries: See `PreTokenizedDatasetWrapper`.
        truncate: See `PreTokenizedDatasetWrapper`.
        inject_fake_images: See `PreTokenizedDatasetWrapper`.
        post_tokenize_hook: See `PreTokenizedDatasetWrapper`.
        template_kwargs: See `PreTokenizedDatasetWrapper`.
        collator_options: See `PreTokenizedDatasetWrapper`.
    """

    max_length: int | None = None
    max_retries: int = 10
    truncate: bool = False
    inject_fake_images: bool = True
    post_tokenize_hook: Hook | None = None
    template_kwargs: Mapping[str, Any] | None = None
    collator_options: Mapping[str, Any] | None = None

    def build(self, *, dataset: Any, processor: Any) -> PreTokenizedDatasetWrapper:
        """Wraps a dataset; see `PreTokenizedDatasetWrapper` for the arguments."""
        return PreTokenizedDatasetWrapper(
            dataset=dataset,
            processor=processor,
            **attrs.asdict(self, recurse=False),
        )
