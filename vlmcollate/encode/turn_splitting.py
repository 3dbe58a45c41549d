"""Splits a conversation into one for each assistant turn that trains."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

import attrs
import torch

from vlmcollate.batch.microbatches import split_microbatches
from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.encode.train_on import TrainOn, choose_messages
from vlmcollate.errors import ConfigError
from vlmcollate.media import Concatenate, Join, ProcessedMedia
from vlmcollate.media.processing.result import NOT_MEDIA, as_tensor
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
    chosen = choose_messages(conversation, answers, train_on)
    trained = [k for k in answers if chosen[k] and _trains(messages[k])]
    if conversation.is_plain_text or not trained:
        return [conversation]
    untrained = tuple(m.untrained() if m.is_assistant else m for m in messages)
    turns = [attrs.evolve(conversation, messages=(*untrained[:k], messages[k])) for k in trained]
    return list(filter(may_train, turns)) or [conversation]


def without_earlier_omissions(rendering: Rendering, conversation: Conversation) -> Rendering:
    """Returns a rendering that names no omissions in the answers before the last.

    What a template omits of them, such as their reasoning, trains in a sample of its own.
    """
    last = len(conversation.messages) - 1

    def is_own(path: str) -> bool:
        found = re.match(r"messages\[(\d+)\]", path)
        k = int(found[1]) if found else last
        return k == last or not conversation.messages[k].is_assistant

    return attrs.evolve(
        rendering,
        dropped=tuple(filter(is_own, rendering.dropped)),
        altered=tuple(filter(is_own, rendering.altered)),
    )


@attrs.define(kw_only=True)
class SharedMedia:
    """Processes the media that several conversations share, as far as possible once.

    Equal lists of items are processed once. The media before one turn are the first items of those
    before a later turn. If the processor's output is one run of rows for each item, they are cut
    from that of all items; otherwise, they are processed again, since padding and tiles may depend
    on the other items.

    Args:
        process: The stage that calls the processor.
        joins: The family's joins.
        items: The items of the conversation with the most media.
        render_all: A function that returns a prompt with these items.
    """

    process: Callable[[Rendering, Sequence[Any]], ProcessedMedia]
    joins: Mapping[str, Join]
    items: Sequence[Any]
    render_all: Callable[[], Rendering]
    _known: dict[tuple[int, ...], tuple[Sequence[Any], ProcessedMedia]] = attrs.field(
        factory=dict, init=False
    )

    def __call__(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """Returns the processor's output for some items; see `Stages.process_media`."""
        key = tuple(map(id, media))
        if key not in self._known:  # the items stay, so that none has the place of another
            self._known[key] = media, self._processed(rendering, media)
        return self._known[key][1]

    def _processed(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        is_first_part = len(media) < len(self.items) and all(map(is_, media, self.items))
        if not is_first_part or not self._may_be_cut:
            return self.process(rendering, media)
        everything = self.render_all()
        if len(everything.media) != len(self.items):
            return self.process(rendering, media)
        cut = self._cut(self(everything, self.items), everything, len(media))
        return self.process(rendering, media) if cut is None else cut

    @property
    def _may_be_cut(self) -> bool:
        return all(
            type(join) is Concatenate and join.rows and not join.rows.startswith("sample")
            for join in self.joins.values()
        )

    def _cut(
        self, whole: ProcessedMedia, rendering: Rendering, number: int
    ) -> ProcessedMedia | None:
        """Returns the output for the first items, or `None` if its rows are unknown."""
        given = {key: value for key, value in whole.tensors.items() if key not in NOT_MEDIA}
        if not given.keys() <= self.joins.keys():
            return None
        kinds = [span.kind for span in rendering.media]
        first, rest = Counter(kinds[:number]), Counter(kinds[number:])
        batch: dict[str, Any] = {key: as_tensor(value) for key, value in given.items()}
        batch["input_ids"] = torch.zeros(2, 1)
        batch |= {f"n_{k}s_per_sample": torch.tensor([first[k], rest[k]]) for k in set(kinds)}
        try:
            part = split_microbatches(batch, 2, items=self.joins)[0]
        except ConfigError:
            return None
        return ProcessedMedia(
            replacements=whole.replacements[:number],
            tensors={key: part[key] for key in given if key in part},
            pixel_tables={k: table for k, table in whole.pixel_tables.items() if k in part},
        )


def _trains(message: Message) -> bool:
    parts = (part.weight for part in message.content if isinstance(part, TextPart))
    return bool(message.weight) or any(parts)
