"""Collators that ignore what an example holds, each in one way."""

from __future__ import annotations

import warnings
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, Part, TextPart
from vlmcollate.errors import UnreadKeyWarning
from vlmcollate.formats import read_example
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator


@attrs.frozen(kw_only=True, eq=False)
class AllowsUnreadColumns(Qwen2_5_VLCollator):
    """Reads without the policy of the collator."""

    def read(self, example: Any) -> Conversation:
        return read_example(example, self.format, on_unread="allow")


@attrs.frozen(kw_only=True, eq=False)
class DropsTheSystemColumn(Qwen2_5_VLCollator):
    """Takes the messages of a row, and no system prompt beside them."""

    def read(self, example: Any) -> Conversation:
        if isinstance(example, dict):
            example = {key: value for key, value in example.items() if key != "system"}
        return super().read(example)


@attrs.frozen(kw_only=True, eq=False)
class ReadsRolesAndContents(Qwen2_5_VLCollator):
    """Takes the role and the content of a message, and no other field."""

    def read(self, example: Any) -> Conversation:
        found = super().read(example)
        return attrs.evolve(
            found, messages=tuple(attrs.evolve(m, extra={}) for m in found.messages)
        )


@attrs.frozen(kw_only=True, eq=False)
class SilencesWarnings(Qwen2_5_VLCollator):
    """Silences what the reading reports."""

    def read(self, example: Any) -> Conversation:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnreadKeyWarning)
            return super().read(example)


@attrs.frozen(kw_only=True, eq=False)
class IgnoresFlags(Qwen2_5_VLCollator):
    """Knows one spelling of a weight."""

    def read(self, example: Any) -> Conversation:
        messages = example["messages"] if isinstance(example, dict) else example
        if isinstance(messages, list):
            unread = {"train", "training", "trainable", "loss", "loss_mask", "loss_scale"}
            messages = [{k: v for k, v in m.items() if k not in unread} for m in messages]
        more = {**example, "messages": messages} if isinstance(example, dict) else messages
        return super().read(more)


@attrs.frozen(kw_only=True, eq=False)
class IgnoresFlagsOfParts(Qwen2_5_VLCollator):
    """Trains the parts of an answer alike."""

    def read(self, example: Any) -> Conversation:
        found = super().read(example)
        messages = [
            attrs.evolve(m, content=tuple(_without_weight(part) for part in m.content))
            for m in found.messages
        ]
        return attrs.evolve(found, messages=tuple(messages))


def _without_weight(part: Part) -> Part:
    return attrs.evolve(part, weight=None) if isinstance(part, TextPart) else part


@attrs.frozen(kw_only=True, eq=False)
class TakesZeroForAbsent(Qwen2_5_VLCollator):
    """Tests whether a weight is true instead of whether it is there."""

    def read(self, example: Any) -> Conversation:
        found = super().read(example)
        kept = [attrs.evolve(m, weight=m.weight or 1.0) for m in found.messages]
        return attrs.evolve(found, messages=tuple(kept))


CAUGHT_BY: dict[type[Any], str] = {
    AllowsUnreadColumns: "check_no_word_is_ignored",
    DropsTheSystemColumn: "check_no_word_is_ignored",
    ReadsRolesAndContents: "check_no_word_is_ignored",
    SilencesWarnings: "check_no_word_is_ignored",
    IgnoresFlagsOfParts: "check_no_flag_is_ignored",
    IgnoresFlags: "check_no_flag_is_ignored",
    TakesZeroForAbsent: "check_no_flag_is_ignored",
}
