"""The declaration of a model family, its processor and its model, as one value.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
from torch import Tensor

from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.errors import ConfigError
from vlmcollate.media import Join, MediaRequest, ProcessedMedia, process_together
from vlmcollate.packing.layout_rules import refusal
from vlmcollate.packing.token_mixing import TokenMixing, token_mixing, with_image_blocks
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import EncodedSample

UnclosedTurns = Literal["error", "append_eos", "content_only"]
TOKEN_TYPES: dict[MediaKind, int] = {"image": 1, "video": 2, "audio": 3}
"""The token type of each kind of media; text has 0."""


def _named(value: object) -> str:
    """Shows a function by its name, which is the same in every process."""
    if value is None or attrs.has(type(value)):
        return repr(value)
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _sorted(value: frozenset[str] | None) -> str:
    return repr(value and sorted(value))


def _of_joins(_: object, __: object, value: Mapping[str, Join]) -> None:
    for key, join in value.items():
        if not isinstance(join, Join):
            raise ConfigError(
                f'joins[{key!r}] must be a Join, such as Concatenate(rows="image"), called with '
                f"its options; found {join!r:.80}"
            )


@attrs.frozen
class TokenTypes:
    """The token types that a model takes: 0 text, 1 image, 2 video, 3 audio.

    Attributes:
        key: The key of the batch.
        token_type_from: The source of a media token's type: the `"token"`, or the `"item"` if a
            video consists of image tokens with the type of a video.
    """

    key: str
    token_type_from: Literal["token", "item"] = attrs.field(default="token", kw_only=True)


@attrs.frozen(kw_only=True)
class Packable:
    """The rules by which packs keep their documents apart in the family's models.

    Attributes:
        positions: A function from the sample and the processor to the positions of a document's
            tokens, (L,) or (L, axes) int64; 0 to L - 1 by default.
        bidirectional_images: Whether the tokens of an image attend to each other bidirectionally.
        token_mixing: The token mixing of the models, if it is the same for all models of the
            processor; otherwise `model_config` decides.
    """

    positions: Callable[[EncodedSample, Any], Tensor] | None = attrs.field(
        default=None, repr=_named
    )
    bidirectional_images: bool = False
    token_mixing: TokenMixing | None = None


@attrs.frozen
class NotPackable:
    """The reason why samples of the family cannot be packed."""

    reason: str


@attrs.frozen(kw_only=True)
class Family:
    """The declaration of a model family; the class attribute `family` of a collator.

    Attributes:
        joins: The joining rule of each media key that the processor returns.
        stop_tokens: The tokens that end a turn in the family's templates, besides the tokenizer's
            eos token.
        token_types: The token types that the model takes, if any.
        exact_token_counts: The kinds of media whose number of tokens follows from their sizes.
        packing: The rules for packs, or the reason why samples cannot be packed.
        last_turn_end: The stop token after the last turn, if the template leaves it open.
        unclosed_turns: What is done if no token of the template ends an answer; see the option of
            the collator.
        prompt_prefix: A function from the tokenizer to the text that the processor adds before a
            prompt, if the template does not write it.
        string_content_with_media: Whether content that is passed as one string includes the
            placeholders.
        needs_chat_template: Whether the prompt is written by the processor's chat template.
        kinds: The kinds of media that the model takes, if its processor has parts for more.
        placeholders: The placeholder of each kind, if the processor does not name it.
        sampling_rate: The model's audio sampling rate in Hz, if the processor does not name it.
        process: The function that processes the media of one sample.
        render: The function that writes the prompt from the conversation, the processor and the
            placeholders; the chat template by default.
        postprocess: The function that changes a labelled sample, given the processor.
        takes_pixel_bytes: Whether the functions and the subclasses of a family outside this library
            take pixels as bytes; see `EncodedSample.pixel_tables`.
        frame_tokens: The minimum and maximum number of tokens of a frame, for videos with options
            of their own; those of the processor by default.
        count_tokens: The function that counts the tokens of one item, from the processor, its kind
            and its size, (height, width) or (frames, height, width); the processor's by default.
    """

    joins: Mapping[str, Join] = attrs.field(factory=dict, validator=_of_joins)
    stop_tokens: tuple[str, ...] = ()
    token_types: TokenTypes | None = None
    exact_token_counts: frozenset[str] = attrs.field(default=frozenset(), repr=_sorted)
    packing: Packable | NotPackable = attrs.field(factory=Packable)
    last_turn_end: str = ""
    unclosed_turns: UnclosedTurns = "error"
    prompt_prefix: Callable[[Any], str] | None = attrs.field(default=None, repr=_named)
    string_content_with_media: bool = False
    needs_chat_template: bool = True
    kinds: frozenset[MediaKind] | None = attrs.field(default=None, repr=_sorted)
    placeholders: Mapping[MediaKind, str] | None = None
    sampling_rate: int | None = None
    process: Callable[[MediaRequest], ProcessedMedia] = attrs.field(
        default=process_together, repr=_named
    )
    render: Callable[[Conversation, Any, Mapping[MediaKind, str]], Rendering] | None = attrs.field(
        default=None, repr=_named
    )
    postprocess: Callable[[EncodedSample, Any], EncodedSample] | None = attrs.field(
        default=None, repr=_named
    )
    takes_pixel_bytes: bool = False
    frame_tokens: tuple[int, int] | None = None
    count_tokens: Callable[[Any, MediaKind, tuple[int, ...]], int] | None = attrs.field(
        default=None, repr=_named
    )

    def mixing(self, model_config: Any) -> TokenMixing | None:
        """Returns the token mixing of a model of the family.

        Args:
            model_config: The model's configuration, or `None`.

        Returns:
            The mixing, or `None` if it depends on a `model_config` that is not given.
        """
        packing = self.packing if isinstance(self.packing, Packable) else Packable()
        found = packing.token_mixing if model_config is None else token_mixing(model_config)
        if found is not None and packing.bidirectional_images:
            return with_image_blocks(found)
        return found

    def packing_refusal(self, model_config: Any, processor: Any) -> str:
        """Returns why samples cannot be packed, or an empty string.

        Args:
            model_config: The model's configuration, or `None`.
            processor: The processor, for the message.
        """
        if isinstance(self.packing, NotPackable):
            return self.packing.reason
        mixing = self.mixing(model_config)
        if mixing is None:
            return (
                f"{type(processor).__name__} serves models with different layers, on which "
                "the right layout depends; set model_config to the configuration of the model to "
                "train, such as model.config"
            )
        return refusal(mixing)
