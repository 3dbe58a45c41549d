"""The options of every collator, checked at construction."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, TypedDict

import attrs

from vlmcollate.encode.dummy_media import DummyMediaPolicy
from vlmcollate.encode.omissions import OmissionPolicy
from vlmcollate.encode.overlong import OverlongPolicy
from vlmcollate.encode.thinking_prefix import ThinkingPrefix
from vlmcollate.encode.train_on import TrainOn, a_train_on
from vlmcollate.family import UnclosedTurns
from vlmcollate.formats import DatasetFormat, UnreadPolicy, format_of
from vlmcollate.labels import LabelStrategy, RenderedSpanLabels
from vlmcollate.media import LocalMedia, MediaStrategy
from vlmcollate.padding import PaddingStrategy, PadToLongest
from vlmcollate.pixels import PIXEL_FORMATS, PixelFormat
from vlmcollate.prompt.answer_parts import EmptyReasoningPolicy
from vlmcollate.prompt.encoder import SpecialTokensPolicy
from vlmcollate.prompt.off_prompt import OffPromptPolicy
from vlmcollate.validators import (
    WithOptions,
    a_model_config,
    an_instance_of,
    as_strings,
    one_of,
    token_strings,
)
from vlmcollate.validators import max_length as valid_max_length


def _a_format(_: object, __: object, value: Any) -> None:
    format_of(value)


@attrs.frozen(kw_only=True, eq=False)
class CollatorOptions(WithOptions, ABC):  # the base of all collators
    """The options of every collator.

    Args:
        processor: A `transformers` processor, whose tokenizer is a fast one or based on
            `tiktoken` or `sentencepiece`.
        max_length: The maximum number of tokens of a sample, or `None` for no limit.
        on_overlong: The policy for samples longer than `max_length`: `"raise"`; `"drop"` them;
            `"truncate"` their end, never inside media; `"drop_turns"`, the oldest user-assistant
            exchanges first.
        format: The format of the examples: a `DatasetFormat`, its name, or `"auto"` for the one
            that fits an example.
        on_unread: The policy for keys of an example, a message or a part that nothing reads, and
            for unknown roles: `"auto"` refuses media, messages, tools, system prompts, masks and
            roles, and warns of other keys; `"raise"`, `"warn"` or `"allow"`.
        shift_labels: Whether to shift labels by one, for models that do not shift them.
        labels: The strategy that finds the trained tokens.
        media: The strategy that loads media, with its limits.
        padding: The strategy that pads rows to one length.
        train_on: What trains: `"all_turns"` of the assistant, the `"last_turn"`, `"tool_calls"`
            alone, a function of a `Message` that returns a bool or a weight, `Reasoning(...)`,
            `PartWeights(...)`, or a tuple of these, whose weights are multiplied.
        split_turns: Whether each assistant turn that trains becomes a sample of its own, rendered
            as the model is prompted for it, without the messages behind it.
        empty_reasoning: The policy for blocks without reasoning, such as `<think></think>`, that an
            answer begins with: `"train"`; `"mask"` does not train them; `"drop"` removes them from
            the prompt as well.
        off_prompt: The policy for a last turn that trains, but lacks the end of its generation
            prompt with every value of the template's switch, such as an answer without the
            `<think>` that ends the prompt: `"train"` trains the turn, which `explain` reports,
            although generation never starts there; `"error"` refuses the sample.
        special_tokens_in_text: The policy for text that spells a special token: `"literal"`
            encodes it as plain text, `"error"` refuses the sample.
        on_template_omission: The policy for parts of the conversation that the chat template
            omits: `"warn"`, `"raise"` or `"allow"`.
        allowed_special_tokens: The added tokens that any message may spell, such as
            `"<|box_start|>"`, instead of only answers; none that the chat template writes.
        stop_tokens: The tokens that end an assistant turn; the family's and the tokenizer's eos
            token by default.
        unclosed_turns: The policy for chat templates that end answers with no token, such as those
            that write `USER:` behind them: `"error"`; `"append_eos"` writes and trains the first of
            `stop_tokens`, or the tokenizer's eos token, behind each answer; `"content_only"` trains
            the answers alone. `None` takes what the model family declares, `"error"` for most.
        template_kwargs: Chat template variables for every sample.
        require_labels: Whether a sample without a trained token is an error.
        dummy_media: The policy for adding dummy media, masked from attention and without labels,
            so that every rank runs every encoder, as FSDP and ZeRO-3 need: `"never"`; `"batch"`, to
            one sample of a batch that leaves an encoder idle; `"sample"`, to every such sample.
            Dummy media is a white image or silence at the sample's end.
        pixels: What the pixels of a batch are: `"float32"`, the processor's own values and dtype;
            `"bfloat16"`; or `"uint8"`, bytes that a model takes once `finish_pixels(model)` was
            called, or that `normalize_pixels(batch, device)` converts.
        counts: Whether batches hold the numbers of media items of each sample, such as
            `n_images_per_sample`, by which `split_microbatches` cuts them. Set it to `False` for a
            model that refuses unknown arguments.
        model_config: The configuration of the model to train, such as `model.config`, for packs:
            which layouts keep documents apart depends on the model's layers. It is required if the
            processor serves models with different layers.
    """

    processor: Any = attrs.field(repr=lambda processor: type(processor).__name__)
    max_length: int | None = attrs.field(default=None, validator=valid_max_length)
    on_overlong: OverlongPolicy = attrs.field(
        default="raise", validator=one_of("raise", "drop", "truncate", "drop_turns")
    )
    format: str | DatasetFormat = attrs.field(default="auto", validator=_a_format)
    on_unread: UnreadPolicy = attrs.field(
        default="auto", validator=one_of("auto", "raise", "warn", "allow")
    )
    shift_labels: bool = attrs.field(default=False, validator=an_instance_of(bool))
    labels: LabelStrategy = attrs.field(
        factory=RenderedSpanLabels, validator=an_instance_of(LabelStrategy)
    )
    media: MediaStrategy = attrs.field(factory=LocalMedia, validator=an_instance_of(MediaStrategy))
    padding: PaddingStrategy = attrs.field(
        factory=PadToLongest, validator=an_instance_of(PaddingStrategy)
    )
    train_on: TrainOn = attrs.field(default="all_turns", validator=a_train_on)
    split_turns: bool = attrs.field(default=False, validator=an_instance_of(bool))
    empty_reasoning: EmptyReasoningPolicy = attrs.field(
        default="train", validator=one_of("train", "mask", "drop")
    )
    off_prompt: OffPromptPolicy = attrs.field(default="train", validator=one_of("train", "error"))
    special_tokens_in_text: SpecialTokensPolicy = attrs.field(
        default="literal", validator=one_of("literal", "error")
    )
    on_template_omission: OmissionPolicy = attrs.field(
        default="warn", validator=one_of("warn", "raise", "allow")
    )
    allowed_special_tokens: tuple[str, ...] = attrs.field(
        default=(), converter=as_strings, validator=token_strings
    )
    stop_tokens: tuple[str, ...] = attrs.field(
        default=(), converter=as_strings, validator=token_strings
    )
    unclosed_turns: UnclosedTurns | None = attrs.field(
        default=None, validator=one_of(None, "error", "append_eos", "content_only")
    )
    template_kwargs: Mapping[str, Any] = attrs.field(
        factory=dict, validator=an_instance_of(Mapping)
    )
    require_labels: bool = attrs.field(default=True, validator=an_instance_of(bool))
    dummy_media: DummyMediaPolicy = attrs.field(
        default="never", validator=one_of("never", "batch", "sample")
    )
    pixels: PixelFormat = attrs.field(default="float32", validator=one_of(*PIXEL_FORMATS))
    counts: bool = attrs.field(default=True, validator=an_instance_of(bool))
    model_config: Any = attrs.field(
        default=None,
        validator=attrs.validators.optional(a_model_config),
        repr=lambda config: repr(config and type(config).__name__),
    )


class CollatorOptionsDict(TypedDict, total=False):
    """The options of all built-in collators, as keyword arguments of `collator_for`."""

    max_length: int | None
    on_overlong: OverlongPolicy
    format: str | DatasetFormat
    on_unread: UnreadPolicy
    shift_labels: bool
    labels: LabelStrategy
    media: MediaStrategy
    padding: PaddingStrategy
    train_on: TrainOn
    split_turns: bool
    empty_reasoning: EmptyReasoningPolicy
    off_prompt: OffPromptPolicy
    special_tokens_in_text: SpecialTokensPolicy
    on_template_omission: OmissionPolicy
    allowed_special_tokens: str | tuple[str, ...] | list[str]
    stop_tokens: str | tuple[str, ...] | list[str]
    unclosed_turns: UnclosedTurns | None
    template_kwargs: Mapping[str, Any]
    require_labels: bool
    dummy_media: DummyMediaPolicy
    pixels: PixelFormat
    counts: bool
    model_config: Any
    # options that only some built-in collators have
    thinking_prefix: ThinkingPrefix | None
    use_audio_in_video: bool
    tokens_per_second: int
    task_prompt: str
    decoder_start_token: str | None
