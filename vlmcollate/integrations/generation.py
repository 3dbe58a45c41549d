"""Evaluation by generation in the trainers of Hugging Face.

Shapes: B examples, R tokens of the longest reference, N generated tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlmcollate.collator import BaseCollator
from vlmcollate.encode.each import encode_each
from vlmcollate.encode.rollouts import Prompt
from vlmcollate.errors import (
    ConfigError,
    ConversationError,
    EmptyBatchError,
    LabelError,
    SampleTooLongError,
)
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.validators import an_instance_of

_PROMPTS, _REFERENCES = "prompts", "references"


@attrs.frozen
class EvaluationCollator:
    """Collates examples for an evaluation by generation.

    Args:
        collator: The collator of the examples.
    """

    collator: BaseCollator = attrs.field(validator=an_instance_of(BaseCollator))

    def __call__(self, examples: Sequence[object]) -> dict[str, Any]:
        """Collates examples with their prompts and references.

        Args:
            examples: The dataset's items, each with a last answer.

        Returns:
            The batch of the collator, from which the loss comes; `prompts`, the batch of
            `collator.prompts`; and `references`, (B, R) int64, the tokens of the last answers,
            padded with -100.

        Raises:
            SampleError: An example is at fault.
            EmptyBatchError: There is no example, or all were dropped.
        """
        encoded = encode_each(examples, self._encode)
        if not encoded:
            raise EmptyBatchError("no example to evaluate; the batch is empty")
        samples, prompts, answers = zip(*encoded, strict=True)
        return {
            **self.collator.stack(samples),
            _PROMPTS: self.collator.stack_prompts(prompts),
            _REFERENCES: pad_sequence(list(answers), batch_first=True, padding_value=IGNORE_INDEX),
        }

    def _encode(self, example: object) -> list[tuple[EncodedSample, Prompt, Tensor]]:
        try:
            prompt = self.collator.prompt(example)
            if prompt.reference is None:
                raise ConversationError("has no last answer, which an evaluation compares; add it")
            sample = self._whole.encode(example)
        except SampleTooLongError:
            if self.collator.on_overlong != "drop":
                raise
            return []
        return [(sample, prompt, _last_answer(sample))]

    @cached_property
    def _whole(self) -> BaseCollator:
        """The collator, which cuts no answer and splits no turns."""
        changes: dict[str, Any] = {}
        if self.collator.on_overlong == "truncate":
            changes["on_overlong"] = "raise"
        if self.collator.split_turns:
            changes["split_turns"] = False
        whole: BaseCollator = attrs.evolve(self.collator, **changes) if changes else self.collator
        return whole


def _last_answer(sample: EncodedSample) -> Tensor:
    """Returns the tokens of the last answer.

    Raises:
        LabelError: It does not train.
    """
    is_last = sample.message_ids == sample.message_ids.max()
    found = sample.labels[is_last & (sample.labels != IGNORE_INDEX)]
    if not len(found):
        raise LabelError(
            "its last answer does not train, so it is no reference; give it the weight 1, and let "
            "train_on choose it"
        )
    return found


class GenerationMixin:
    """Makes a `Trainer` generate in `evaluate` and `predict`, and pass references to the metrics.

    The loss comes from the whole examples, and the tokens from their prompts, padded on the left.
    `compute_metrics` gets `predictions`, (B, N), the new tokens alone, and `label_ids`, (B, R), the
    tokens of the last answers, both padded with -100.

    Attributes:
        generation_kwargs: The arguments of `model.generate`, such as `{"max_new_tokens": 64}`.

    Raises:
        ConfigError: The `data_collator` is no collator of this library, or `generation_kwargs`
            asks for several answers, or for more than tokens.

    Example:
        >>> from transformers import Trainer
        >>> class GeneratingTrainer(GenerationMixin, Trainer):
        ...     generation_kwargs = {"max_new_tokens": 64}
    """

    generation_kwargs: Mapping[str, Any] = {}

    args: Any
    data_collator: Any
    model: Any

    def get_eval_dataloader(self, *args: Any, **options: Any) -> Any:
        """See `Trainer.get_eval_dataloader`."""
        base: Any = super()
        return self._with_prompts(base.get_eval_dataloader, *args, **options)

    def get_test_dataloader(self, *args: Any, **options: Any) -> Any:
        """See `Trainer.get_test_dataloader`."""
        base: Any = super()
        return self._with_prompts(base.get_test_dataloader, *args, **options)

    def _with_prompts(self, make: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Makes a data loader whose batches hold prompts and references."""
        collate = self.data_collator
        if not isinstance(collate, BaseCollator):
            raise ConfigError(
                f"an evaluation by generation needs prompts: found the data_collator "
                f"{type(collate).__name__}, expected a collator; pass collator_for(processor)"
            )
        self.data_collator = EvaluationCollator(collate)
        try:
            return make(*args, **options)
        finally:
            self.data_collator = collate

    def prediction_step(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        prediction_loss_only: bool,  # noqa: FBT001  # the trainer's signature
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """See `Trainer.prediction_step`."""
        base: Any = super()
        if _PROMPTS not in inputs:
            found: tuple[Any, Any, Any] = base.prediction_step(
                model, inputs, prediction_loss_only, ignore_keys
            )
            return found
        given = dict(base._prepare_inputs(inputs))
        prompts, references = given.pop(_PROMPTS), given.pop(_REFERENCES)
        own: Any = self
        with torch.no_grad(), own.compute_loss_context_manager():
            loss = own.compute_loss(model, given).detach().mean()
        if prediction_loss_only:
            return loss, None, None
        return loss, self._generated(prompts), references

    def _generated(self, prompts: Mapping[str, Any]) -> Tensor:
        """Returns the new tokens, (B, N), with -100 behind the end of each."""
        with torch.no_grad(), _whole(self.model):
            options = {"synced_gpus": _are_synced(self.model), **self.generation_kwargs}
            _check_options(options)
            found: Tensor = self.model.generate(**prompts, **options)
        given = options.get("generation_config") or self.model.generation_config
        ends = options.get("eos_token_id", given.eos_token_id)
        if not self.model.config.is_encoder_decoder:
            found = found[:, prompts["input_ids"].shape[1] :]
        return _without_padding(found, ends)


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuses arguments of `generate` that return anything but one answer to each prompt.

    Raises:
        ConfigError: There is one.
    """
    config = options.get("generation_config")
    for name, known in (("num_return_sequences", 1), ("return_dict_in_generate", False)):
        found = options.get(name, getattr(config, name, None))
        if found not in (None, known):
            raise ConfigError(
                f"{name} does not suit an evaluation: found {found!r}, expected {known!r}; remove "
                "it from generation_kwargs"
            )


def _without_padding(tokens: Tensor, ends: Any) -> Tensor:
    """Returns generated tokens with -100 in place of what follows the first eos token."""
    if ends is None:
        return tokens
    ends = torch.as_tensor(ends, device=tokens.device).reshape(-1)
    is_end = torch.isin(tokens, ends).long()
    is_behind = is_end.cumsum(1) - is_end > 0
    return tokens.masked_fill(is_behind, IGNORE_INDEX)


def _are_synced(model: Any) -> bool:
    """Returns whether all ranks have to run as many steps as the slowest."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
    from transformers.integrations.fsdp import is_fsdp_managed_module

    return bool(is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model))


def _whole(model: Any) -> Any:
    """Returns a context in which a model that FSDP 1 shards has its whole weights."""
    from contextlib import nullcontext

    from torch.distributed.fsdp import FullyShardedDataParallel

    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model)
    return nullcontext()
