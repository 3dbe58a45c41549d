"""The collator: the stages that one sample goes through, and the two halves of a batch.

Shapes: B samples, L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, final

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.stacking import (
    fill_values,
    joined_media,
    media_counts,
    shifted,
    token_rows,
    with_spare_token,
)
from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.encode.dummy_media import DummyMedia
from vlmcollate.encode.hooks import run_hook
from vlmcollate.encode.sample_encoder import SampleEncoder
from vlmcollate.encode.token_count import TokenCounter
from vlmcollate.encode.trace import Trace, untraced
from vlmcollate.errors import (
    ConfigError,
    EmptyBatchError,
    SampleError,
    SampleTooLongError,
    StrategyError,
)
from vlmcollate.explain import Explanation
from vlmcollate.labels import LabelContext, LabelStrategy, RenderedSpanLabels
from vlmcollate.media import (
    FrameSampling,
    Join,
    LocalMedia,
    MediaStrategy,
    process_one_by_one,
    processor_inputs,
)
from vlmcollate.media.processing.inputs import sampling_of
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.packing.documents import joined_documents, with_blocks
from vlmcollate.packing.layout_rules import check_layout, refusal
from vlmcollate.packing.token_mixing import TokenMixing, token_mixing, with_image_blocks
from vlmcollate.padding import PaddingStrategy, PadToLongest
from vlmcollate.prompt.chat import ChatRenderer, Rendering
from vlmcollate.prompt.encoder import EncodedPrompt, PromptEncoder, SpecialTokensPolicy, Turn
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.tokens.vocabulary import Vocabulary
from vlmcollate.validators import a_model_config, an_instance_of, as_strings, one_of, token_strings
from vlmcollate.validators import max_length as valid_max_length

OverlongPolicy = Literal["raise", "drop", "truncate", "drop_turns"]
OmissionPolicy = Literal["warn", "raise", "allow"]
TrainedTurns = Literal["all_turns", "last_turn"]
DummyMediaPolicy = Literal["never", "batch", "sample"]

_SUBPROCESSORS: dict[MediaKind, tuple[str, ...]] = {
    "image": ("image_processor",),
    "video": ("video_processor",),
    "audio": ("feature_extractor", "audio_processor"),
}
_SILENT: set[type] = set()
"""The processor classes that do not tell what a placeholder stands for."""


@attrs.frozen(kw_only=True, eq=False)
class BaseCollator(ABC):  # noqa: B024  # a subclass declares its media keys, or that it has none
    """Turns conversations into a training batch with an exact label mask.

    A collator is a value: frozen, picklable, without state. `encode` does everything that depends
    on the model, for one sample; `stack` does everything that depends on the batch; calling the
    collator does both. These three are final. A subclass declares its media keys and overrides
    stages, in the order in which they run:

    1. `read` turns an example into a `Conversation`.
    2. `load` decodes its media.
    3. `render` writes the prompt.
    4. `process_media` calls the processor for the media, and `tokenize` encodes the prompt.
    5. `label` finds the assistant turns.
    6. `postprocess` changes the labelled sample.

    A subclass needs the decorator `@attrs.frozen(kw_only=True, eq=False)`, as every attrs class.

    Args:
        processor: A `transformers` processor, whose tokenizer is a fast one or one around
            `tiktoken`.
        max_length: The most tokens a sample may have, or `None` for no limit.
        on_overlong: What happens to a longer one: `"raise"`; `"drop"` it; `"truncate"` its end,
            never inside media; `"drop_turns"`, the oldest user-assistant exchanges first.
        shift_labels: Whether to emit labels shifted by one, for models that do not shift them.
        labels: How the trained tokens are found.
        media: How media is loaded, with its limits.
        padding: How rows are brought to one length.
        train_on: The assistant turns that train: `"all_turns"` or the `"last_turn"`.
        special_tokens_in_text: The policy for text that spells a special token: `"literal"`
            encodes it as plain text, `"error"` refuses the sample.
        on_template_omission: The policy for parts of the conversation that the chat template
            omits: `"warn"`, `"raise"` or `"allow"`.
        allowed_special_tokens: Added tokens that the text of every message may write, and not that
            of answers alone, such as `"<|box_start|>"`: none that the chat template writes.
        stop_tokens: The tokens that end an assistant turn, where the tokenizer does not say.
        template_kwargs: Chat template variables for every sample.
        require_labels: Whether a sample of which nothing is trained is an error.
        dummy_media: Where to add media that nobody looks at, so that the model's towers run
            on every rank, as FSDP and ZeRO-3 need: `"never"`; `"batch"`, to one sample of a batch
            that leaves a tower idle; `"sample"`, to every sample that does. It is a white image or
            a silence at the sample's end, with attention 0 and no label.
        model_config: The configuration of the model to train, such as `model.config`, for packs:
            which layouts keep documents apart depends on the model's layers. It is needed where
            the processor serves models with different ones.
    """

    media_joins: ClassVar[Mapping[str, Join]] = {}
    """How each media key that the processor returns becomes one tensor of the batch."""
    token_type_key: ClassVar[str | None] = None
    """The key of the token types (0 text, 1 image, 2 video, 3 audio), if the model takes them."""
    types_by_item: ClassVar[bool] = False
    """Whether a video made of image tokens has the type of a video."""
    default_stop_tokens: ClassVar[tuple[str, ...]] = ()
    """The tokens that end a turn in this family's templates, beside the tokenizer's eos token."""
    closing: ClassVar[str] = ""
    """What ends the last turn where the template leaves it open; one of the stop tokens."""
    append_stop_token: ClassVar[bool] = False
    """Whether the first of `turn_ends` is written behind every answer that the template leaves
    open, as the model was trained."""
    string_content_with_media: ClassVar[bool] = False
    """Whether a template that takes strings gets the placeholders in a message's text."""
    needs_chat_template: ClassVar[bool] = True
    """Whether `render` uses the processor's chat template."""
    bidirectional_images: ClassVar[bool] = False
    """Whether the tokens of a picture see each other both ways."""
    exact_token_counts: ClassVar[Collection[str]] = ()
    """The kinds of media whose tokens `num_media_tokens` knows."""
    no_packs_because: ClassVar[str] = ""
    """Why samples cannot be packed for this model, if so."""
    token_mixing: ClassVar[TokenMixing | None] = None
    """What mixes tokens in the family's models, where all that its processor serves are alike."""

    processor: Any = attrs.field(repr=lambda processor: type(processor).__name__)
    max_length: int | None = attrs.field(default=None, validator=valid_max_length)
    on_overlong: OverlongPolicy = attrs.field(
        default="raise", validator=one_of("raise", "drop", "truncate", "drop_turns")
    )
    shift_labels: bool = attrs.field(default=False, validator=an_instance_of(bool))
    labels: LabelStrategy = attrs.field(
        factory=RenderedSpanLabels, validator=an_instance_of(LabelStrategy)
    )
    media: MediaStrategy = attrs.field(factory=LocalMedia, validator=an_instance_of(MediaStrategy))
    padding: PaddingStrategy = attrs.field(
        factory=PadToLongest, validator=an_instance_of(PaddingStrategy)
    )
    train_on: TrainedTurns = attrs.field(
        default="all_turns", validator=one_of("all_turns", "last_turn")
    )
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
    template_kwargs: Mapping[str, Any] = attrs.field(
        factory=dict, validator=an_instance_of(Mapping)
    )
    require_labels: bool = attrs.field(default=True, validator=an_instance_of(bool))
    dummy_media: DummyMediaPolicy = attrs.field(
        default="never", validator=one_of("never", "batch", "sample")
    )
    model_config: Any = attrs.field(
        default=None,
        validator=attrs.validators.optional(a_model_config),
        repr=lambda config: repr(config and type(config).__name__),
    )

    def __attrs_post_init__(self) -> None:
        """Refuses options that contradict each other or that the processor cannot serve."""
        if type(self) is BaseCollator:
            raise ConfigError("BaseCollator is abstract; use collator_for(processor) or a subclass")
        if self.max_length is None and self.on_overlong != "raise":
            raise ConfigError(f"on_overlong={self.on_overlong!r} has no effect without max_length")
        vocabulary = Vocabulary.of(self._tokenizer)
        unknown = [t for t in self.stop_tokens if vocabulary.id_of(t) is None]
        if unknown:
            raise ConfigError(f"stop_tokens {unknown} are not tokens of the tokenizer")
        if self.allowed_special_tokens:
            self._check_allowed(vocabulary)
        if self.padding.separates_by is not None:
            self._check_packs()

    # ---------------------------------------------------------------- the two halves

    @final
    def __call__(self, examples: Sequence[object]) -> dict[str, Tensor]:
        """Collates examples into a batch.

        Args:
            examples: What the dataset yields; see `Conversation.from_example`.

        Returns:
            See `stack`.

        Raises:
            SampleError: An example is at fault; it knows its index.
            StrategyError: A strategy has a bug; it knows the index, too.
            EmptyBatchError: There is no example, or all were dropped.
        """
        return self.collate(examples)

    @final
    def collate(
        self,
        examples: Sequence[object],
        *,
        on_error: Callable[[SampleError], EncodedSample | None] | None = None,
    ) -> dict[str, Tensor]:
        """Collates examples into a batch, with a policy for each example that fails.

        Args:
            examples: What the dataset yields.
            on_error: Called with each `SampleError`, which knows its index. It returns a sample to
                use instead, or `None` to skip the example, or raises. By default the error is
                raised.

        Returns:
            See `stack`.

        Raises:
            EmptyBatchError: There is no example, or none is left.
        """
        Vocabulary.of(self._tokenizer)  # tokens may have been added since the last call
        samples = []
        for index, example in enumerate(examples):
            try:
                with untraced():
                    sample: EncodedSample | None = self._sample_encoder(example)
            except SampleError as error:
                if isinstance(error, SampleTooLongError) and self.on_overlong == "drop":
                    continue
                located = error.at(index=index)
                located.__cause__ = error.__cause__
                if on_error is None:
                    raise located from error.__cause__
                sample = on_error(located)
            except StrategyError as error:
                raise error.at(index=index) from error.__cause__
            except Exception as error:
                if hasattr(error, "add_note"):  # from Python 3.11 on
                    error.add_note(f"while collating sample {index} of the batch")
                raise
            if sample is not None:
                samples.append(sample)
        if examples and not samples:
            raise EmptyBatchError(
                f"none of the {len(examples)} examples is left: all failed, or are longer than "
                f"max_length={self.max_length} and were dropped"
            )
        return self.stack(samples)

    @final
    def encode(self, example: object) -> EncodedSample:
        """Encodes one example.

        Args:
            example: A conversation in any form that `Conversation.from_example` reads.

        Returns:
            The labelled sample, of at most `max_length` tokens.

        Raises:
            SampleError: The example is at fault. With `on_overlong="drop"`, too, a sample that is
                too long raises `SampleTooLongError` here; calling the collator drops it.
        """
        Vocabulary.of(self._tokenizer)
        with untraced():  # what a stage of an explained sample encodes is no part of it
            return self._sample_encoder(example)

    @final
    def token_count(self, example: object) -> int | None:
        """How many tokens an example has, without decoding its media.

        Pictures are known by the size in their header, videos by that and the times of their
        frames.

        Args:
            example: A conversation in any form that `Conversation.from_example` reads.

        Returns:
            The length of what `encode` gives without a `max_length`, or `None` where the family
            does not tell it by sizes.

        Raises:
            SampleError: The example is at fault, as far as that shows.
        """
        Vocabulary.of(self._tokenizer)
        return self._token_counter(example)

    @final
    def explain(self, example: object) -> Explanation:
        """Encodes one example and keeps the why: where each token came from, and what trains.

        Args:
            example: A conversation in any form that `Conversation.from_example` reads.

        Returns:
            What `encode` gives, with the tokens, media, times and warnings to look at.

        Raises:
            SampleError: As in `encode`.
        """
        with Trace() as watch:
            sample = self._sample_encoder(example)
        return Explanation.of(
            sample,
            watch,
            processor=self.processor,
            stop_ids=self.stop_ids,
            collator=type(self).__name__,
        )

    @final
    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:
        """Makes a batch of encoded samples.

        Args:
            samples: What `encode` gave, at least one.

        Returns:
            A plain dict of contiguous tensors: `input_ids`, `attention_mask` and `labels`, (B, T)
            int64, the family's token types, `loss_weights` (B, T) float32 where messages carry
            weights other than 0 and 1, the joined media tensors, and `n_images_per_sample` and its
            kind, (B,) int64, where there is such media.

        Raises:
            EmptyBatchError: There is no sample.
            MediaMismatchError: The media of two samples cannot be joined.
        """
        if not samples:
            raise EmptyBatchError("no example to collate; the batch is empty")
        if self.dummy_media == "batch" and not any(s.documents for s in samples):
            shortest = min(range(len(samples)), key=lambda i: len(samples[i]))
            filled = self._sample_encoder.placeholders.added(samples[shortest], samples)
            samples = [*samples[:shortest], filled, *samples[shortest + 1 :]]
        if self.padding.separates_by is not None:
            samples = [s if s.documents else self.pack([s]) for s in samples]
        elif any(sample.documents for sample in samples):
            raise ConfigError(
                f"these samples are packs, whose documents {type(self.padding).__name__} would let "
                "see each other; set padding to a layout that keeps them apart, such as "
                "BlockCausalMask() or FlattenedDocuments()"
            )
        fill = fill_values(self._tokenizer)
        if self.shift_labels:
            samples = [with_spare_token(s, fill) if s.media_ids[-1] >= 0 else s for s in samples]
        rows, is_packed = token_rows(samples), self.padding.separates_by is not None
        if self.shift_labels and is_packed:  # a mask has more token axes than one
            rows = [shifted(row, axis=0) for row in rows]
        batch = run_hook(self.padding, rows, fill, strategy=self.padding, is_of_batch=True)
        if self.shift_labels and not is_packed:
            batch = shifted(batch, axis=1)
        return {**batch, **joined_media(samples, self.media_joins), **media_counts(samples)}

    @final
    def pack(self, samples: Sequence[EncodedSample], *, multiple_of: int = 1) -> EncodedSample:
        """Joins encoded samples into one pack, whose documents they are.

        Stack packs with a `padding` that keeps documents apart.

        Args:
            samples: What `encode` gave, at least one.
            multiple_of: Every document is padded to a multiple of this many tokens, as context
                parallel ranks need it (2 x ranks).

        Returns:
            The samples one behind the other, with two more token keys: `document_ids` (L,), from 1
            on and 0 for padding and placeholder media, and `position_ids`, which start over with
            each document. The first token of each document has no label, since none stands before
            it. `unpack` takes a pack apart.

        Raises:
            EmptyBatchError: There is no sample.
            ConfigError: The model cannot be trained on packs, or a sample is a pack already.
        """
        if not samples:
            raise EmptyBatchError("no sample to pack")
        self._check_packs()
        if any(sample.documents for sample in samples):
            raise ConfigError("one of the samples is a pack already; unpack it first")
        positions = [self.position_ids(sample) for sample in samples]
        if self.bidirectional_images and self.token_type_key is not None:
            samples = [with_blocks(sample, self.token_type_key) for sample in samples]
        fill = fill_values(self._tokenizer)
        return joined_documents(samples, positions, self.media_joins, fill, multiple_of=multiple_of)

    # ---------------------------------------------------------------- the stages

    def read(self, example: object) -> Conversation:
        """Turns an example into a conversation."""
        return Conversation.from_example(example)

    def load(self, conversation: Conversation) -> list[Any]:
        """Decodes the conversation's media, in order."""
        return [self._sample_encoder.load(part) for _, part in conversation.media]

    def render(self, conversation: Conversation) -> Rendering:
        """Writes the prompt, knowing where each message went."""
        return self._renderer(conversation)

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """Calls the processor for one sample's media, where there is any.

        Args:
            rendering: The prompt, with a placeholder for each item.
            media: The decoded items in the same order.

        Returns:
            What each placeholder stands for, and all that the processor returned.
        """
        kinds = [span.kind for span in rendering.media]
        texts = [self.placeholders[kind] for kind in kinds]
        if type(self.processor) not in _SILENT:
            output = self.processor(
                text=["".join(texts)],
                **processor_inputs(kinds, media),
                add_special_tokens=False,
                return_text_replacement_offsets=True,
            )
            if "text_replacement_offsets" in output:
                (replaced,) = output["text_replacement_offsets"]
                return ProcessedMedia(
                    replacements=tuple(r["replacement"] for r in replaced), tensors=output
                )
            _SILENT.add(type(self.processor))
        return process_one_by_one(self.processor, texts, kinds, media, self.media_joins)

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> tuple[str, list[Turn]]:
        """Finds the assistant turns; returns them with the name of the strategy that served."""
        context = LabelContext(
            conversation=conversation,
            render=self._renderer,
            encode=self.prompt_encoder,
            stop_ids=self.stop_ids,
        )
        return run_hook(self.labels.serving, prompt, context, strategy=self.labels)

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        """Changes the labelled sample, such as by inserting tokens; by default not at all."""
        return sample

    def position_ids(self, sample: EncodedSample) -> Tensor:
        """The positions of a document's tokens in a pack, (L,) or (L, axes) int64."""
        return torch.arange(len(sample))

    def dummy_sample(self) -> EncodedSample:
        """What stands in for a bad sample, where a batch has to keep its rows.

        By default one token that is attended to, so that attention has something to look at, and
        that trains nothing.
        """
        ids = torch.tensor([fill_values(self._tokenizer)["input_ids"]])
        tokens = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": torch.full_like(ids, IGNORE_INDEX),
        }
        if self.token_type_key is not None:
            tokens[self.token_type_key] = torch.zeros_like(ids)
        nobody = torch.full_like(ids, -1)
        sample = self.postprocess(
            EncodedSample(tokens=tokens, message_ids=nobody, media_ids=nobody)
        )
        if self.dummy_media == "sample":
            sample = self._sample_encoder.placeholders.added(sample, [sample])
        return sample

    def supports(self, kind: MediaKind) -> bool:
        """Whether it takes media of a kind for which the processor has a placeholder."""
        return kind in self.placeholders

    # ---------------------------------------------------------------- lengths by size

    def counts_media(self, kinds: Sequence[MediaKind]) -> bool:
        """Whether the tokens of media of these kinds are known from their sizes."""
        tells = type(self).num_media_tokens is not BaseCollator.num_media_tokens or hasattr(
            self.processor, "_get_num_multimodal_tokens"
        )
        return not kinds or (tells and set(kinds) <= set(self.exact_token_counts))

    def num_media_tokens(self, kind: MediaKind, size: tuple[int, ...]) -> int:
        """The tokens that one item takes up.

        A number that is the same for all images, or for all videos of the same frames, need not be
        counted.

        Args:
            kind: `"image"` or `"video"`.
            size: (height, width), or (frames, height, width).
        """
        counts = self.processor._get_num_multimodal_tokens(**{f"{kind}_sizes": [size]})
        return int(counts[f"num_{kind}_tokens"][0])

    # ---------------------------------------------------------------- facts of the processor

    @cached_property
    def placeholders(self) -> dict[MediaKind, str]:
        """The text that the chat template writes for each kind of media."""
        return {
            kind: token
            for kind, parts in _SUBPROCESSORS.items()
            if any(getattr(self.processor, part, None) is not None for part in parts)
            and isinstance(token := getattr(self.processor, f"{kind}_token", None), str)
        }

    @cached_property
    def media_tokens(self) -> dict[MediaKind, tuple[str, ...]]:
        """For each kind, the tokens whose number is the number of the model's media features."""
        found: dict[MediaKind, tuple[str, ...]] = {}
        for kind, placeholder in self.placeholders.items():
            ids = getattr(self.processor, f"{kind}_token_ids", None) or [
                getattr(self.processor, f"{kind}_token_id", None)
            ]
            tokens = [self._tokenizer.convert_ids_to_tokens(i) for i in ids if i is not None]
            if not tokens and Vocabulary.known(self._tokenizer).id_of(placeholder) is not None:
                tokens = [placeholder]
            found[kind] = tuple(tokens)
        return found

    @cached_property
    def frame_sampling(self) -> FrameSampling:
        """Which frames of a video are taken, as the processor's video processor is set."""
        return sampling_of(getattr(self.processor, "video_processor", None))

    @cached_property
    def sampling_rate(self) -> int | None:
        """The samples a second in which the model hears; `None` where it does not."""
        parts = (getattr(self.processor, name, None) for name in _SUBPROCESSORS["audio"])
        rates = (getattr(part, "sampling_rate", None) for part in parts if part is not None)
        return next((rate for rate in rates if rate is not None), None)

    @property
    def turn_ends(self) -> tuple[str, ...]:
        """The tokens that may end an assistant turn: the user's, or the family's and eos."""
        vocabulary = Vocabulary.known(self._tokenizer)
        eos = self._tokenizer.eos_token
        declared = self.stop_tokens or (*self.default_stop_tokens, *([eos] if eos else []))
        return tuple(t for t in dict.fromkeys(declared) if vocabulary.id_of(t) is not None)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids of `turn_ends`."""
        vocabulary = Vocabulary.known(self._tokenizer)
        return tuple(i for t in self.turn_ends if (i := vocabulary.id_of(t)) is not None)

    @property
    def _tokenizer(self) -> Any:
        tokenizer = getattr(self.processor, "tokenizer", None)
        if tokenizer is None:
            raise ConfigError(f"{type(self.processor).__name__} has no tokenizer")
        return tokenizer

    # these two are not kept, since they hold the collator: a cycle would outlive its last use
    @property
    def _sample_encoder(self) -> SampleEncoder:
        return SampleEncoder(self)

    @property
    def _token_counter(self) -> TokenCounter:
        return TokenCounter(self._sample_encoder)

    @cached_property
    def idle_media(self) -> DummyMedia:
        """What stands in for media that a batch lacks."""
        return self._sample_encoder.make_placeholders()

    @cached_property
    def small_image(self) -> str:
        """What the placeholder of a small image becomes, from which others are counted."""
        return self._token_counter.small_image()

    @cached_property
    def _renderers(self) -> dict[Vocabulary, ChatRenderer]:
        """The renderer, for the tokens that the tokenizer has now."""
        return {}

    @property
    def _renderer(self) -> ChatRenderer:
        vocabulary = Vocabulary.known(self._tokenizer)
        renderer = self._renderers.get(vocabulary)
        if renderer is None:  # of what a thread may be using, nothing is changed
            renderer = self._new_renderer()
            self._renderers.clear()
            self._renderers[vocabulary] = renderer
        return renderer

    def _new_renderer(self) -> ChatRenderer:
        return ChatRenderer(
            processor=self.processor,
            placeholders=self.placeholders,
            stop_tokens=self.turn_ends,
            template_kwargs=self.template_kwargs,
            string_content_with_media=self.string_content_with_media,
            opening=self.opening,
            closing=self.closing,
            answer_end="".join(self.turn_ends[:1]) if self.append_stop_token else "",
            media_tokens=[token for tokens in self.media_tokens.values() for token in tokens],
        )

    @property
    def prompt_encoder(self) -> PromptEncoder:
        """What tokenizes a rendered prompt."""
        return PromptEncoder(
            processor=self.processor,
            media_tokens=self.media_tokens,
            structure=self._renderer.structure.tokens,
            allowed=frozenset(self.allowed_special_tokens),
            special_tokens_in_text=self.special_tokens_in_text,
        )

    def _check_allowed(self, vocabulary: Vocabulary) -> None:
        """Refuses names of tokens that no message's text may write, or that all may anyway."""
        structure = self._renderer.structure
        for reason, refused in (
            ("open or close turns or stand for media", structure.tokens),
            ("are written by the chat template, so only answers may write them", structure.written),
        ):
            found = [token for token in self.allowed_special_tokens if token in refused]
            if found:
                raise ConfigError(
                    f"allowed_special_tokens {found} {reason}; name added tokens that the template "
                    "does not write"
                )
        unknown = [t for t in self.allowed_special_tokens if t not in vocabulary.control_ids]
        if unknown:
            raise ConfigError(
                f"allowed_special_tokens {unknown} are not added tokens of the tokenizer; add them "
                "with tokenizer.add_tokens, or leave them out"
            )

    @cached_property
    def mixing(self) -> TokenMixing | None:
        """What mixes tokens in the model; `None` where `model_config` would have to say it."""
        mixing = self.token_mixing
        if self.model_config is not None:
            mixing = token_mixing(self.model_config)
        if mixing is not None and self.bidirectional_images:
            mixing = with_image_blocks(mixing)
        return mixing

    @property
    def packing_refusal(self) -> str:
        """Why `pack` would refuse every sample, or an empty string."""
        if self.no_packs_because:
            return self.no_packs_because
        if self.mixing is None:
            return (
                f"{type(self.processor).__name__} serves models with different layers, on which "
                "the right layout depends; set model_config to the configuration of the model to "
                "train, such as model.config"
            )
        return refusal(self.mixing)

    def _check_packs(self) -> None:
        """Refuses packs that the model, or the layout, would not keep apart."""
        if self.packing_refusal:
            raise ConfigError(f"{type(self).__name__} makes no packs: {self.packing_refusal}")
        if self.padding.separates_by is not None and self.mixing is not None:
            check_layout(self.padding, self.mixing)

    @property
    def opening(self) -> str:
        """What the processor puts before a prompt whose template does not write it."""
        return ""

    @property
    def soundtrack_sampling_rate(self) -> int | None:
        """The rate at which a video's own sound is loaded; `None` leaves it out."""
        return None
