"""Splits a conversation into one for each assistant turn that trains."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import attrs
import torch

from vlmcollate.conversation import Conversation, MediaKind, Message
from vlmcollate.encode.answer_weights import last_turn_trains
from vlmcollate.encode.item_joins import ItemJoins
from vlmcollate.encode.media import with_only
from vlmcollate.encode.train_on import PartWeights, TrainOn, trained_messages
from vlmcollate.errors import CollateError, ConversationError, LabelError, SampleError
from vlmcollate.media import ProcessedMedia
from vlmcollate.prompt.reasoning import TAGGED, ReasoningForm
from vlmcollate.prompt.rendering import Rendering


def each_turn(
    conversation: Conversation, train_on: TrainOn, may_train: Callable[[Conversation], bool]
) -> list[Conversation]:
    """Returns, for each turn that trains, the conversation that ends with it and trains no other.

    Args:
        conversation: The conversation.
        train_on: The choice of what trains.
        may_train: A function that returns whether the last turn may have parts that train.

    Returns:
        The conversations in order; the whole one if none or a plain text trains.
    """
    messages = conversation.messages
    answers = [k for k, m in enumerate(messages) if m.is_assistant and not m.is_prefix]
    trained = trained_messages(conversation, answers, train_on)
    if conversation.is_plain_text or not trained:
        return [conversation]
    untrained = tuple(m.untrained() if k in trained else m for k, m in enumerate(messages))
    ends = {k: attrs.evolve(conversation, messages=(*untrained[:k], messages[k])) for k in trained}
    kept = {k: turn for k, turn in ends.items() if may_train(turn)}
    earlier = tuple(attrs.evolve(m, trains_apart=k in kept) for k, m in enumerate(untrained))
    turns = [attrs.evolve(turn, messages=(*earlier[:k], messages[k])) for k, turn in kept.items()]
    return turns or [conversation]


def may_end(
    render: Callable[[Conversation], Rendering], conversation: Conversation, k: int
) -> bool:
    """Returns whether a turn can be trained in a chat that ends with it.

    Args:
        render: The stage that writes a prompt.
        conversation: The conversation.
        k: The message of the turn.
    """
    messages = conversation.messages
    earlier = (m.untrained() if m.is_assistant else m for m in messages[:k])
    ended = attrs.evolve(conversation, messages=(*earlier, messages[k]))
    try:
        return render(ended).turn_error is None
    except SampleError:
        return False


def may_train(
    conversation: Conversation,
    render: Callable[[Conversation], Rendering],
    weights: PartWeights | None,
    forms: Callable[[], Sequence[ReasoningForm]],
    *,
    masks_empty_reasoning: bool,
    finds_turns: bool,
) -> bool:
    """Returns whether the last turn of a conversation may have a token that trains.

    Args:
        conversation: The conversation.
        render: The stage that writes its prompt.
        weights: The weights of the parts of answers; `None` if all are 1.
        forms: A function that returns how reasoning may be written.
        masks_empty_reasoning: Whether blocks without reasoning do not train.
        finds_turns: Whether a prompt has all turns that the template does not leave empty.
    """
    last = len(conversation.messages) - 1
    weights = weights or PartWeights()
    text = conversation.messages[last].text
    if weights.are_positive and text.strip() and not TAGGED.match(text):
        return True  # a template writes words; if one does not, the sample names the turn
    try:
        rendering = render(conversation)
        if rendering.turn_error is not None:
            return True  # its sample names the reason
        if finds_turns and all(turn.message != last for turn in rendering.turns):
            return False
        return weights.are_positive or last_turn_trains(
            rendering, weights, forms(), masks_empty_reasoning=masks_empty_reasoning
        )
    except SampleError:  # which its sample will raise
        return _may_write(conversation.messages[last], weights)


def _may_write(answer: Message, weights: PartWeights) -> bool:
    """Returns whether a template may write a part of an answer that has a weight."""
    needs_calls = not any(weights.of(k) for k in ("text", "reasoning", "reasoning_end"))
    return not needs_calls or bool(answer.extra.get("tool_calls"))


@contextmanager
def naming_turn(turn: Conversation, whole: Conversation) -> Iterator[None]:
    """Names the message of a turn in errors that concern all of its sample.

    Args:
        turn: The conversation of the sample.
        whole: The conversation of which it is the beginning.
    """
    try:
        yield
    except (ConversationError, LabelError) as error:
        last = len(turn.messages) - 1
        if error.where is not None or len(turn.messages) == len(whole.messages):
            raise
        raise type(error)(
            f"{error.problem.rstrip('.')}; split_turns makes a sample that ends with "
            f"messages[{last}]: set the weight of that message to 0, or remove split_turns"
        ) from error.__cause__


def without_earlier_omissions(rendering: Rendering, conversation: Conversation) -> Rendering:
    """Returns a rendering that names no omissions in answers that have a sample of their own.

    What a template omits of them, such as their reasoning, trains in that sample.
    """
    last = len(conversation.messages) - 1

    def is_own(path: str) -> bool:
        found = re.match(r"messages\[(\d+)\]", path)
        k = int(found[1]) if found else last
        return not conversation.messages[k].trains_apart

    return attrs.evolve(
        rendering,
        dropped=tuple(filter(is_own, rendering.dropped)),
        altered=tuple(filter(is_own, rendering.altered)),
    )


@attrs.define(kw_only=True)
class SharedMedia:
    """Processes the media that several conversations share, as far as possible once.

    Equal lists of items are processed once. If joins make the processor's output for several items
    of those for each, each item is processed once; otherwise, each list is processed by itself.

    Args:
        process: The stage that calls the processor.
        item_joins: A function that returns what joins single items of some kinds, or `None`.
        items: The items of the conversation with the most media.
        prompt: A prompt of a placeholder for each of them.
    """

    process: Callable[[Rendering, Sequence[Any]], ProcessedMedia]
    item_joins: Callable[[Sequence[MediaKind], Sequence[Any]], ItemJoins | None]
    items: Sequence[Any]
    prompt: Rendering
    _known: dict[tuple[int, ...], tuple[Sequence[Any], ProcessedMedia]] = attrs.field(
        factory=dict, init=False
    )

    def __call__(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """Returns the processor's output for some items; see `Stages.process_media`."""
        key = tuple(map(id, media))
        if key not in self._known:  # the items stay, so that none has the place of another
            found = self._joined(rendering, media) if self._is_shared(media) else None
            self._known[key] = media, self.process(rendering, media) if found is None else found
        return self._known[key][1]

    def _is_shared(self, media: Sequence[Any]) -> bool:
        """Returns whether another list has some of several items."""
        is_part = len(media) > 1 and {*map(id, media)} <= {*map(id, self.items)}
        is_shorter = len(media) < len(self.items)
        return is_part and (is_shorter or any((id(item),) in self._known for item in media))

    def _joined(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia | None:
        """Returns what joins make of each item's output; `None` if it is not that for all."""
        kinds = [span.kind for span in rendering.media]
        join = self.item_joins(kinds, media) if len(kinds) == len(media) else None
        if join is None:
            return None
        is_first_part = len(media) < len(self.items) and all(map(is_, media, self.items))
        whole = self._whole() if is_first_part else None
        try:
            outputs = [self(with_only(rendering, [k]), [item]) for k, item in enumerate(media)]
        except (MemoryError, torch.OutOfMemoryError, OSError):  # which may pass
            raise
        except Exception:  # noqa: BLE001  # the call for all items raises it, or serves
            return None
        try:
            return join(outputs, whole)
        except (CollateError, KeyError):  # unlike the probe items; the call for all items serves
            return None

    def _whole(self) -> ProcessedMedia | None:
        """Returns the joined output for all items, of which that for the first is a part."""
        key = tuple(map(id, self.items))
        if key not in self._known:
            found = self._joined(self.prompt, self.items)
            if found is None:
                return None
            self._known[key] = self.items, found
        return self._known[key][1]
