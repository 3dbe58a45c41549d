"""Automodel's wrapper that tokenizes ahead of the collate function.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch.utils.data import Dataset

from vlmcollate.automodel.conventions import TOKEN_KEYS, conversations_of
from vlmcollate.automodel.encoding import Hook, hooked
from vlmcollate.automodel.fake_image import _conversation_has_media
from vlmcollate.automodel.given import read
from vlmcollate.automodel.labelling import media_ids_of
from vlmcollate.automodel.retrying import first_good, make_robust_collate, read_sample
from vlmcollate.batch.stacking import fill_values, with_spare_token
from vlmcollate.collator import BaseCollator
from vlmcollate.encode.dummy_media import DummyMediaPolicy
from vlmcollate.errors import ConfigError, SampleError, SampleTooLongError
from vlmcollate.models import collator_for
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import an_instance_of, at_least_one


@attrs.define(eq=False)
class PreTokenizedDatasetWrapper(Dataset[Any]):
    """Encodes one sample when it is asked for, in the worker that asks.

    A sample that the dataset cannot give, that is at fault or too long is replaced by another, the
    same one on every rank, with a warning in the log. A bug or an error of the configuration is
    raised.

    Args:
        dataset: A map-style dataset of `{"conversation": [...]}`.
        processor: The processor.
        max_length: The maximum number of tokens of a sample; no limit by default.
        max_retries: How many samples are tried, the one asked for included.
        truncate: Whether longer samples are truncated, never inside media, instead of replaced.
        post_tokenize_hook: Changes a tokenized sample, as a batch of one, before it is labelled;
            see `default_collate_fn`.
        inject_fake_images: Whether a conversation without images and videos gets a small white
            image behind its text, with attention 0 and no label, so that every rank runs the
            vision encoder (and silence, if the model takes audio).
        template_kwargs: Chat template variables, such as `{"enable_thinking": False}`.
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
    faking: BaseCollator = attrs.field(init=False, repr=False)

    @collator.default
    def _collator(self) -> BaseCollator:
        return self._made(self.max_length, "never")

    @faking.default
    def _faking(self) -> BaseCollator:
        # one token less, since one more stands behind the fake image
        room = None if self.max_length is None else self.max_length - 1
        return self._made(room, "sample")

    def _made(self, max_length: int | None, fake: DummyMediaPolicy) -> BaseCollator:
        options: dict[str, Any] = dict(self.collator_options or {})
        if max_length is not None and self.post_tokenize_hook is None:  # the hook comes first
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
        """The sample, or the one drawn in its place, in this library's form."""
        return first_good(len(self), index, self.max_retries, self._encoded)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample's tensors, (L,) and its media, labels not shifted, for `pad_collate_fn`.

        With media, `n_images` and so on are the numbers of items.

        Raises:
            RuntimeError: All samples that were tried are at fault.
        """
        sample = self.encode(index)
        return {**sample.tokens, **sample.media, **item_counts(sample)}

    def robust_collate(self, collate_fn: Callable[[list[Any]], Any]) -> Callable[..., Any]:
        """Has a batch that fails drawn again; see `make_robust_collate`."""
        return make_robust_collate(self, collate_fn, self.max_retries)

    def _encoded(self, index: int) -> EncodedSample:
        example = read_sample(self.dataset, index)
        (conversation,) = conversations_of([example])
        if example.get("_injected_fake"):
            raise ConfigError(
                "the dataset has put fake images into its conversations: found _injected_fake, "
                "expected conversations as they are; set preload_media=False on the inner wrapper"
            )
        is_faked = self._fakes(conversation)
        collator = self.faking if is_faked else self.collator
        try:
            sample = collator.encode(conversation)
            if self.post_tokenize_hook is not None:
                sample = self._changed(sample, conversation, self.post_tokenize_hook)
        except SampleError as error:
            raise error.at(index=index) from error.__cause__
        is_last = bool(sample.media_ids[-1] >= 0)  # unknown of what a hook has changed
        if is_last or (is_faked and sample.media and not sample.tokens["attention_mask"][-1]):
            return with_spare_token(sample, fill_values(self.processor.tokenizer))
        return sample

    def _fakes(self, conversation: Any) -> bool:
        is_read = isinstance(conversation, list | tuple)
        return self.inject_fake_images and not (is_read and _conversation_has_media(conversation))

    def measure(self, index: int) -> tuple[int, int]:
        """How many tokens and media items a sample will have, without decoding it if possible.

        Returns:
            The tokens, -1 if another sample is drawn for it, and the items.
        """
        try:
            if self.post_tokenize_hook is not None:  # only it knows the length
                sample = self._encoded(index)
                return len(sample), sum(sample.media_counts.values())
            (conversation,) = conversations_of([read_sample(self.dataset, index)])
            is_faked = self._fakes(conversation)
            collator = self.faking if is_faked else self.collator
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

    def _changed(self, sample: EncodedSample, conversation: Any, hook: Hook) -> EncodedSample:
        """The sample as the hook leaves it, labelled, and cut if it is too long."""
        batch = {key: value[None] for key, value in sample.tokens.items()}
        found = hooked(
            {**batch, **sample.media}, [conversation], self.processor, hook, self.template_kwargs
        )
        row = {k: v[0] if k in TOKEN_KEYS else v for k, v in found.items()}
        changed = read(
            {**row, **item_counts(sample)}, "the hook's batch", self.collator.family.joins
        ).sample
        return changed if self.max_length is None else self._fitted(changed, self.max_length)

    def _fitted(self, sample: EncodedSample, limit: int) -> EncodedSample:
        if len(sample) <= limit:
            return sample
        lost = torch.isin(
            sample.input_ids[limit:], torch.tensor(media_ids_of(self.collator), dtype=torch.long)
        )
        if not self.truncate or lost.any():
            cut = ", and the cut would take media tokens away" if self.truncate else ""
            raise SampleTooLongError(
                f"{len(sample)} tokens behind the hook, longer than max_length={limit}{cut}; raise "
                "it"
            )
        return attrs.evolve(
            sample,
            tokens={key: value[:limit] for key, value in sample.tokens.items()},
            message_ids=sample.message_ids[:limit],
            media_ids=sample.media_ids[:limit],
        )


def item_counts(sample: EncodedSample) -> dict[str, int]:
    """How many media items of each kind a sample has: `n_images` and so on."""
    return {f"n_{kind}s": count for kind, count in sample.media_counts.items()}


@attrs.define(kw_only=True)
class PreTokenizedDatasetWrapperConfig:
    """The options of a `PreTokenizedDatasetWrapper`, before there is a dataset.

    Args:
        max_length: See there, as for the others.
        max_retries: See there.
        truncate: See there.
        inject_fake_images: See there.
        post_tokenize_hook: See there.
        template_kwargs: See there.
        collator_options: See there.
    """

    max_length: int | None = None
    max_retries: int = 10
    truncate: bool = False
    inject_fake_images: bool = True
    post_tokenize_hook: Hook | None = None
    template_kwargs: Mapping[str, Any] | None = None
    collator_options: Mapping[str, Any] | None = None

    def build(self, *, dataset: Any, processor: Any) -> PreTokenizedDatasetWrapper:
        """Wraps a dataset."""
        return PreTokenizedDatasetWrapper(
            dataset=dataset,
            processor=processor,
            **attrs.asdict(self, recurse=False),
        )
