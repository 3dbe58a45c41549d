"""What the collators of preferences have in common: a collator of single conversations.

Shapes: B examples, T padded tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar, final, get_args

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.encode.each import encode_each, raise_error
from vlmcollate.encode.exchanges import first_that_fits, with_messages, without_oldest
from vlmcollate.encode.overlong import OverlongPolicy
from vlmcollate.errors import (
    ConfigError,
    EmptyBatchError,
    SampleError,
    SampleTooLongError,
)
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

E = TypeVar("E")
Place = Callable[[str | None], str | None]
COUNTS = frozenset(f"n_{kind}s_per_sample" for kind in get_args(MediaKind))


@attrs.frozen(kw_only=True, eq=False)
class Alike:
    """Encoded conversations with one prompt.

    Attributes:
        samples: The samples.
        conversations: The conversations, without the turns that were dropped from all.
        prompt_length: The number of messages of their prompt.
        encode: A function that encodes others with the same prompt, and shares its media.
    """

    samples: Sequence[EncodedSample]
    conversations: Sequence[Conversation]
    prompt_length: int
    encode: Callable[[Conversation], EncodedSample]


def _check_collator(instance: object, attribute: Any, value: Any) -> None:
    del instance, attribute
    if not isinstance(value, BaseCollator):
        raise ConfigError(
            f"collator is wrong: found {value!r:.60}, expected a collator; pass "
            "collator_for(processor)"
        )


@attrs.frozen(eq=False)
class PreferenceBase(ABC, Generic[E]):
    """Encodes examples that hold more than one conversation with a collator of conversations.

    Args:
        collator: The collator of single conversations, whose options hold for each.
    """

    collator: BaseCollator = attrs.field(validator=_check_collator)

    def __attrs_post_init__(self) -> None:
        """Refuses options of the collator that have no meaning here."""
        name = type(self).__name__
        if self.collator.split_turns:
            raise ConfigError(
                f"{name} takes whole conversations, which split_turns would take apart; remove it, "
                "and choose turns with train_on"
            )

    @abstractmethod
    def encode(self, example: object) -> E:
        """Encodes one example."""

    @abstractmethod
    def stack(self, encoded: Sequence[E]) -> dict[str, Any]:
        """Makes a batch of encoded examples."""

    @final
    def __call__(self, examples: Sequence[object]) -> dict[str, Any]:
        """Collates examples into a batch; see `collate`."""
        return self.collate(examples)

    @final
    def collate(
        self,
        examples: Sequence[object],
        *,
        on_error: Callable[[SampleError], Sequence[E]] | None = None,
    ) -> dict[str, Any]:
        """Collates examples into a batch, with a policy for each example that fails.

        Args:
            examples: The dataset's rows.
            on_error: Called with each `SampleError`, which holds its index. It returns encoded
                examples to use instead, none of them to skip the example, or raises. By default
                the error is raised.

        Raises:
            EmptyBatchError: There is no example, or none is left.
        """
        encoded = encode_each(examples, self._encode_kept, on_error or raise_error)
        if not encoded:
            raise EmptyBatchError(
                f"none of the {len(examples)} examples is left: all failed, or are longer than "
                f"max_length={self.collator.max_length} and were dropped"
                if examples
                else "no example to collate; the batch is empty"
            )
        return self.stack(encoded)

    def _encode_kept(self, example: object) -> list[E]:
        """Encodes one example, and drops one that is too long if that is the policy."""
        try:
            return [self.encode(example)]
        except SampleTooLongError:
            if self.collator.on_overlong != "drop":
                raise
        return []

    def encode_all(self, example: object) -> list[E]:
        """Encodes one example, as a list, as `BaseCollator.encode_all` does.

        Args:
            example: The row.

        Raises:
            SampleError: As in `encode`.
        """
        return [self.encode(example)]

    def encode_alike(
        self,
        conversations: Sequence[Conversation],
        prompt_length: int,
        *,
        places: Sequence[Place],
    ) -> Alike:
        """Encodes conversations with one prompt, and shortens them alike.

        Args:
            conversations: The conversations; their common media is decoded and processed once.
            prompt_length: The number of messages of the prompt.
            places: For each conversation a function from a path in it to the path in the example.

        Raises:
            SampleError: One of them cannot be encoded, or is too long.
        """
        drops_turns = self.collator.on_overlong == "drop_turns"
        collator = self._strict if drops_turns else self.collator
        encode = collator.sharing(conversations)
        too_long: list[SampleTooLongError] = []

        def attempt(kept: Sequence[int]) -> Alike | None:
            shorter = [
                with_messages(c, (*kept, *range(prompt_length, len(c.messages))))
                for c in conversations
            ]
            try:
                samples = [
                    _encode_at(place, encode, conversation)
                    for place, conversation in zip(places, shorter, strict=True)
                ]
            except SampleTooLongError as error:
                too_long.append(error)
                return None
            return Alike(
                samples=samples, conversations=shorter, prompt_length=len(kept), encode=encode
            )

        prompt = with_messages(conversations[0], range(prompt_length))
        choices = [tuple(range(prompt_length))]
        if drops_turns:
            choices += without_oldest(prompt.messages)
        holders = {i for i, _ in prompt.media}
        found = first_that_fits(choices, attempt, holders.intersection)
        if found is None:
            raise too_long[0]
        return found

    @cached_property
    def _strict(self) -> BaseCollator:
        """The collator, which refuses what is too long."""
        return self.with_policy("raise")

    def with_policy(self, on_overlong: OverlongPolicy) -> BaseCollator:
        """Returns the collator with another policy for what is too long."""
        changed: BaseCollator = attrs.evolve(self.collator, on_overlong=on_overlong)
        return changed


def _encode_at(
    place: Place, encode: Callable[[Conversation], EncodedSample], conversation: Conversation
) -> EncodedSample:
    """Encodes a conversation, whose errors have their path in the example."""
    try:
        return encode(conversation)
    except SampleError as error:
        raise type(error)(error.problem, where=place(error.where)) from error.__cause__


def refuse_for_trl(collator: BaseCollator, name: str) -> None:
    """Refuses options of a collator that the batches of TRL's trainers cannot express.

    Raises:
        ConfigError: An option shifts labels, or makes packs.
    """
    if collator.shift_labels:
        raise ConfigError(
            f"{name} makes a completion_mask, which a trainer shifts itself; remove shift_labels"
        )
    if collator.padding.separates_by is not None:
        raise ConfigError(
            f"{name} makes a row for each answer, found padding="
            f"{type(collator.padding).__name__}, which lays out packs; choose PadToLongest()"
        )


def refuse_for_shared_prefix(collator: BaseCollator) -> None:
    """Refuses options of a collator that one row with several answers cannot express.

    Raises:
        ConfigError: Dummy media is wanted, or the padding makes no mask that keeps answers apart.
    """
    if collator.dummy_media != "never":
        raise ConfigError(
            f'layout="shared_prefix" has no place for dummy_media="{collator.dummy_media}"; choose '
            "another layout"
        )
    if not getattr(collator.padding, "takes_branches", False):
        raise ConfigError(
            'layout="shared_prefix" needs a mask that keeps the answers apart: found padding='
            f"{type(collator.padding).__name__}; choose BlockCausalMask() or FlexBlockMask()"
        )


def completions(collator: BaseCollator, samples: Sequence[EncodedSample]) -> dict[str, Any]:
    """Stacks samples with a mask of their answers, as TRL's trainers take them.

    Args:
        collator: The collator.
        samples: The samples.

    Returns:
        The batch of `stack` with `completion_mask` (B, T) int64, 1 for the tokens that train, and
        without `labels` and the numbers of media items, which are no inputs of a model there.

    Raises:
        ConfigError: A sample has fractional weights.
    """
    if any("loss_weights" in sample.tokens for sample in samples):
        raise ConfigError(
            "an answer has a weight other than 0 and 1, which a completion_mask cannot hold; "
            "remove the weight"
        )
    batch = collator.stack(samples)
    mask = (batch.pop("labels") != IGNORE_INDEX).long()
    kept = {key: value for key, value in batch.items() if key not in COUNTS}
    return {**kept, "completion_mask": mask}
