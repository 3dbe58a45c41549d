"""What trains of a conversation: its turns, and the parts of each answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from vlmcollate.conversation import Conversation, Message
from vlmcollate.encode.hooks import breach, run_hook
from vlmcollate.errors import ConfigError
from vlmcollate.prompt.answer_parts import PartKind
from vlmcollate.validators import an_instance_of

TurnChoice = Literal["all_turns", "last_turn", "tool_calls"]
_NAMES = ("all_turns", "last_turn", "tool_calls")
_KINDS: tuple[PartKind, ...] = ("text", "reasoning", "reasoning_end", "tool_calls")


def _a_weight(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:  # type: ignore[operator]  # a number
        raise ConfigError(
            f"{attribute.name} must be a finite weight of at least 0, not {value!r:.80}"
        )


@attrs.frozen(kw_only=True)
class PartWeights:
    """The weights in the loss of the parts of an answer, by which those of messages are multiplied.

    The reasoning includes the token that opens it, if the model generates it; a tool call includes
    all that the template writes around it. A stop token has the weight of the tool calls if its
    turn has any, otherwise that of the part before it. A token that several parts touch has the
    weight of the last one of which it holds more than whitespace.

    Args:
        text: The weight of the text.
        reasoning: The weight of the reasoning.
        reasoning_end: The weight of what closes the reasoning, such as `</think>`; `None` is that
            of the reasoning.
        tool_calls: The weight of the tool calls.

    Raises:
        ConfigError: A weight is negative, infinite or no number.

    Example:
        >>> PartWeights(reasoning=0.5, tool_calls=2)
        PartWeights(text=1.0, reasoning=0.5, reasoning_end=None, tool_calls=2)
    """

    text: float = attrs.field(default=1.0, validator=_a_weight)
    reasoning: float = attrs.field(default=1.0, validator=_a_weight)
    reasoning_end: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(_a_weight)
    )
    tool_calls: float = attrs.field(default=1.0, validator=_a_weight)

    def of(self, kind: PartKind) -> float:
        """Returns the weight of one kind of part."""
        if kind == "reasoning_end":
            return self.reasoning if self.reasoning_end is None else self.reasoning_end
        return float(getattr(self, kind))

    @property
    def are_positive(self) -> bool:
        """Whether every kind of part trains."""
        return all(map(self.of, _KINDS))


@attrs.frozen
class Reasoning:
    """Whether the reasoning of answers trains.

    Args:
        train: Whether the reasoning trains.
        train_end: Whether what closes it trains, such as `</think>`, so that the model learns where
            the answer starts; `None` is the same as `train`.

    Example:
        >>> Reasoning(train=False, train_end=True)
        Reasoning(train=False, train_end=True)
    """

    train: bool = attrs.field(default=True, validator=an_instance_of(bool))
    train_end: bool | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(an_instance_of(bool))
    )

    @property
    def weights(self) -> PartWeights:
        """The weights of the parts."""
        end = None if self.train_end is None else float(self.train_end)
        return PartWeights(reasoning=float(self.train), reasoning_end=end)


Choice: TypeAlias = "TurnChoice | PartWeights | Reasoning | Callable[[Message], bool | float]"
TrainOn: TypeAlias = "Choice | Sequence[Choice]"

_ONLY_CALLS = PartWeights(text=0, reasoning=0)


def choices_of(train_on: TrainOn) -> tuple[Choice, ...]:
    """Returns the choices, all of which a token has to pass."""
    found: Any = train_on
    return tuple(found) if isinstance(found, list | tuple) else (found,)


def a_train_on(_: object, __: object, value: Any) -> None:
    """Refuses a value that chooses nothing."""
    for choice in choices_of(value) or (value,):
        if choice in _NAMES if isinstance(choice, str) else _is_choice(choice):
            continue
        raise ConfigError(
            f"train_on must be one of {_NAMES}, a function of a message, Reasoning(...), "
            f"PartWeights(...) or a tuple of these, not {choice!r:.80}"
        )


def _is_choice(choice: object) -> bool:
    is_value = isinstance(choice, PartWeights | Reasoning)
    return is_value or (callable(choice) and not isinstance(choice, type))


def choose_messages(
    conversation: Conversation, answers: Sequence[int], train_on: TrainOn
) -> dict[int, float]:
    """Returns the weight by which that of each message is multiplied.

    Args:
        conversation: The conversation.
        answers: The indices of the messages that the assistant writes, in order.
        train_on: The choices.

    Raises:
        StrategyError: A function fails, or returns neither a bool nor a weight.
    """
    found = dict.fromkeys(answers, 1.0)
    for choice in choices_of(train_on):
        if choice == "last_turn":
            found |= dict.fromkeys(list(found)[:-1], 0.0)
        elif callable(choice):
            messages = conversation.messages
            found = {k: w * _asked(choice, messages[k], k) for k, w in found.items()}
    return found


def trained_messages(
    conversation: Conversation, answers: Sequence[int], train_on: TrainOn
) -> list[int]:
    """Returns those of some answers of which a part has a weight.

    Args:
        conversation: The conversation.
        answers: The indices of the messages that the assistant writes, in order.
        train_on: The choices.
    """
    chosen = choose_messages(conversation, answers, train_on)
    return [k for k in answers if chosen[k] and _has_weight(conversation.messages[k])]


def _has_weight(message: Message) -> bool:
    return bool(message.weight) or any(part.weight for part in message.content)


def _asked(choice: Callable[[Message], bool | float], message: Message, index: int) -> float:
    place = f"messages[{index}]"
    found = run_hook(choice, message, strategy=choice, place=place)
    is_number = isinstance(found, bool | int | float)
    if not is_number or not 0 <= found < math.inf:
        raise breach(found, "a bool, or a weight of at least 0", choice, place)
    return float(found)


def part_weights(train_on: TrainOn) -> PartWeights | None:
    """Returns the weights of the parts of answers, or `None` if all are 1."""
    found = PartWeights()
    for choice in choices_of(train_on):
        other = _ONLY_CALLS if choice == "tool_calls" else choice
        if isinstance(other, Reasoning):
            other = other.weights
        if isinstance(other, PartWeights):
            found = PartWeights(
                text=found.text * other.text,
                reasoning=found.reasoning * other.reasoning,
                reasoning_end=found.of("reasoning_end") * other.of("reasoning_end"),
                tool_calls=found.tool_calls * other.tool_calls,
            )
    return None if {found.of(kind) for kind in _KINDS} == {1.0} else found
