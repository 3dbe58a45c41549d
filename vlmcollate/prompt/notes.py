"""What is unusual about the assistant turns of a rendering, with the options that change it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import attrs

NoteKind = Literal[
    "off_prompt", "other_header", "no_prompt", "in_parts", "switch", "moved", "empty_reasoning"
]
_TOPICS: dict[NoteKind, str] = {
    "off_prompt": "turns off their prompt",
    "other_header": "headers of the turns",
    "no_prompt": "prompt of the turns",
    "in_parts": "place of the answers",
    "switch": "prompt of the turns",
    "moved": "place of the system message",
    "empty_reasoning": "empty reasoning",
}
_MOST_NAMED = 3
_REFUSAL = '; off_prompt="error" refuses such chats'


@attrs.frozen
class TurnNote:
    """One unusual thing about assistant turns.

    Attributes:
        kind: `"off_prompt"` if turns lack the end of their generation prompt, `"other_header"` if
            they have another header, `"in_parts"` if a part of them follows later messages,
            `"switch"` if turns agree with their prompt only with a template variable, `"moved"` if
            the template writes system messages or tools behind turns, `"empty_reasoning"` if turns
            without reasoning train an empty block for it.
        detail: The missing text or header, the variable with its value, or the empty block.
        messages: The turns.
        has_last: Whether one of them is the last turn of its chat, which no question follows.
        instead: The text that turns off their prompt have in place of the missing one.
        is_dropped: Whether `empty_reasoning="drop"` removed the missing text.
        splits: Whether each of the turns may end a chat, as `split_turns` makes one of it.
        doubled: The key for the reasoning that the text of the turns holds behind an empty block;
            empty if the template reads none, `None` if the text holds none.
    """

    kind: NoteKind
    detail: str = ""
    messages: tuple[int, ...] = ()
    has_last: bool = False
    instead: str = ""
    is_dropped: bool = False
    splits: bool = True
    doubled: str | None = None

    def among(self, trained: Collection[int]) -> TurnNote | None:
        """Returns the note on those of the turns that train; `None` if none of them does."""
        if not self.messages:  # earlier turns, of whichever chat has several
            return self if len(trained) > 1 else None
        left = tuple(k for k in self.messages if k in trained)
        has_last = self.has_last and self.messages[-1] in trained
        return attrs.evolve(self, messages=left, has_last=has_last) if left else None

    @property
    def remedy(self) -> str:
        """The options that change it, as an imperative sentence."""
        if self.kind == "switch":
            return f"set {self.detail} for generation, too"
        if self.kind == "empty_reasoning":
            given = f"give the reasoning as {self.doubled!r}, or " if self.doubled else ""
            block = "it" if self.doubled is None else "the block"
            mask = f'set empty_reasoning="mask" to exclude {block} from the loss'
            return f'{given}{mask}, or "drop" to remove it'
        if self.kind == "no_prompt":
            return f"write {self.detail!r} at the end of a prompt to generate"
        if self.kind == "in_parts":
            return "write text and tool calls as messages of their own to train them in their order"
        if self.is_dropped:
            return (
                'set empty_reasoning="mask" to keep it, and to exclude the block from the loss'
                + (_REFUSAL * self.has_last)
            )
        if self.has_last:
            return "generate without it, or use a chat template whose turns and prompt agree" + (
                _REFUSAL if self.kind == "off_prompt" else ""
            )
        only_last = 'set train_on="last_turn" to train only the last turn, or '
        if not self.splits:
            return f"{only_last}the weight of the others to 0"
        aim = "the system message" if self.kind == "moved" else "its own prompt"
        return f"{only_last}split_turns=True to train each turn after {aim}"

    @property
    def concerns_earlier_turns(self) -> bool:
        """Whether it would not concern the turns if each ended a chat."""
        kinds = "off_prompt", "other_header", "moved"
        return self.kind in kinds and not (self.has_last or self.is_dropped)

    @property
    def topic(self) -> str:
        """The subject in a few words."""
        return _TOPICS[self.kind]

    @property
    def summary(self) -> str:
        """What is unusual, without the numbers of the turns."""
        if self.kind == "empty_reasoning":
            which = "without reasoning" if self.doubled is None else "with reasoning in their text"
            return self._fact(f"answers {which} are")
        is_whole = self.has_last or self.kind in ("switch", "in_parts", "no_prompt")
        return self._fact("answers are" if is_whole else "earlier answers are")

    def _fact(self, subject: str) -> str:
        if self.kind == "moved":
            return (
                "the template writes the system message or the tools before the last user message, "
                "so earlier turns are trained without them"
            )
        if self.kind == "switch":
            return f"{subject} trained after the generation prompt with {self.detail}"
        if self.kind == "empty_reasoning":
            place = (
                "in place of reasoning"
                if self.doubled is None
                else "before the reasoning in the text"
            )
            return f"{subject} trained to write the empty block {self.detail} {place}"
        if self.kind == "no_prompt":
            header = repr(self.detail)
            return f"{subject} trained behind {header}, as the template has no generation prompt"
        if self.kind == "in_parts":
            return f"{subject} written in parts, of which some follow later messages"
        if self.kind == "other_header":
            return f"{subject} trained after another header than their generation prompt, or none"
        if self.instead:
            place = f"where every generation prompt goes on with {self.detail!r}"
            return f"{subject} written with {self.instead!r} {place}"
        return f"{subject} trained without {self.detail!r}, which ends every generation prompt"

    def __str__(self) -> str:
        return f"{self._fact(_subject(self.messages))}; {self.remedy}"


def _subject(messages: Iterable[int]) -> str:
    """Returns the paths of messages with their verb; many are only counted."""
    paths = [f"messages[{k}]" for k in messages]
    named, more = ", ".join(paths[:_MOST_NAMED]), len(paths) - _MOST_NAMED
    return f"{named}{f' and {more} more' if more > 0 else ''} {'is' if len(paths) == 1 else 'are'}"


def merged(notes: Mapping[int, TurnNote], last: int) -> tuple[TurnNote, ...]:
    """Returns one note for all turns that have the same.

    Args:
        notes: The note of each message; -1 for the whole chat.
        last: The last turn of the chat; -1 if a question follows it.
    """
    turns: dict[TurnNote, list[int]] = {}
    for message, note in notes.items():
        turns.setdefault(note, []).append(message)
    return tuple(
        attrs.evolve(note, messages=tuple(k for k in messages if k >= 0), has_last=last in messages)
        for note, messages in turns.items()
    )
