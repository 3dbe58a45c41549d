"""Finds the starts of turns that do not begin with their generation prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs

from vlmcollate.conversation import Message, TextPart
from vlmcollate.errors import LabelError, SampleError
from vlmcollate.prompt.misplaced import misplacement
from vlmcollate.prompt.notes import TurnNote
from vlmcollate.prompt.turn_headers import OffPromptError
from vlmcollate.prompt.usual_headers import UsualHeaders

OffPromptPolicy = Literal["error", "train"]
StartWith = Callable[[Mapping[str, Any]], int]
"""Returns the start of a turn with further template variables."""


@attrs.frozen(kw_only=True, eq=False)
class OffPromptStarts(UsualHeaders):
    """The starts of turns unlike their generation prompt; see `TurnHeaders` for its attributes."""

    def _start_off_prompt(self, k: int, header: str, written: str, error: LabelError) -> int:
        """Returns the start of a turn whose prompt agrees only up to its role."""
        self.apart.add(k)
        messages = self.conversation.messages
        same, asked = self._aligned(written, header)
        is_earlier = any(message.is_assistant for message in messages[k + 1 :])
        differs_in_a_word = header[asked : asked + 1].isalnum() and written[same:][:1].isalnum()
        is_opened = self._has_own_marker(header[:asked]) and not differs_in_a_word
        if is_earlier and is_opened and not self._opens_again(written[same:]):
            self._note_off_prompt(k, header[asked:])
            return same
        if self._goes_on(written[same:], header[asked:], error):
            self.notes[k] = TurnNote("other_header")
            return same
        forced = self.vocabulary.pattern.findall(header[asked:])
        is_words = self.structure.tokens.isdisjoint(forced) and not written[same:].strip()
        if not is_words or not is_opened:
            raise error
        self._note_off_prompt(k, header[asked:])
        return same

    def _switched(self, k: int, start_with: StartWith, *, agreeing: bool = False) -> int | None:
        """Returns the start of turn `k` with the first variable that leaves the chat the same.

        Args:
            k: The turn.
            start_with: A function that returns its start with further template variables.
            agreeing: Whether the turn must agree with its prompt then. If it may not, and lacks the
                end of the prompt with each variable, a note says so.
        """
        found: tuple[int, TurnNote] | None = None
        for variables in self.switches():
            self.notes.pop(k, None)
            try:
                start = start_with(variables)
            except SampleError:
                continue
            lacks_end = self._is_off_prompt(k)
            if (lacks_end and (agreeing or found)) or not self._keeps_chat(k, variables):
                continue
            if lacks_end:
                found = start, self.notes[k]
                continue
            ((name, value),) = variables.items()
            self.notes[k] = TurnNote("switch", f"{name}={value!r}")
            return start
        self.notes.pop(k, None)
        if found is None:
            return None
        start, self.notes[k] = found
        return start

    def _keeps_chat(self, k: int, variables: Mapping[str, Any]) -> bool:
        """Returns whether the chat of turn `k` is rendered the same with further variables."""
        self.apart.add(k)
        key = tuple(variables.items())
        if key not in self.keeps:
            try:
                text = self._render_with(variables, self.conversation, None)
            except SampleError:
                text = ""
            self.keeps[key] = text == self.trace.text
        return self.keeps[key]

    def _note_off_prompt(self, k: int, rest: str) -> None:
        if rest.strip():
            self.notes[k] = TurnNote("off_prompt", rest.strip()[:40])

    def _is_off_prompt(self, k: int) -> bool:
        """Returns whether turn `k` was found to lack the end of its generation prompt."""
        return k in self.notes and self.notes[k].kind == "off_prompt"

    def _goes_on(self, written: str, rest: str, error: LabelError) -> bool:
        """Returns whether a turn goes on without the header that its prompt has.

        Args:
            written: What the template writes before the turn's words, unlike its prompt.
            rest: What the prompt holds instead.
            error: What to raise if the usual header is unknown.
        """
        usual = self._usual_header(error, {})[1]
        is_missing = rest.lstrip() == usual and self._opens_again(usual)
        return is_missing and not self._opens_again(written)

    def _start_without_header(self, k: int, at: int, first: int, error: LabelError) -> int:
        """Returns the start of a turn before which the template writes neither prompt nor header.

        Args:
            k: The turn, such as a greeting, if the header stands at the end of a question.
            at: The end of the words before it.
            first: The start of its words.
            error: What to raise if the template may write the turn as one of another role.
        """
        written = self.trace.text[at:first]
        ended = self._end_of_stop(written)
        is_apart = self.trace.of(k) and (ended or not at)
        if not is_apart or self._opens_again(written[ended:]) or self._begins_question(written):
            raise error
        self.notes[k] = TurnNote("other_header")
        tokens = self.vocabulary.pattern.finditer(written, ended)
        own = (m.start() for m in tokens if m.group() in self.structure.written)
        start = next(own, None)
        return at + start if start is not None else first - self._kept_whitespace(k)

    def _begins_question(self, written: str) -> bool:
        """Returns whether the template writes a text before the first words of a question."""
        words = Message(role="user", content=(TextPart("wombat"),))
        asking = attrs.evolve(self.conversation, messages=(words,), tools=None)
        try:
            before = self.render(asking, None).partition("wombat")[0]
        except SampleError:
            return True
        return bool(before.strip()) and written.rstrip().endswith(before.rstrip())

    def _has_own_marker(self, header: str) -> bool:
        """Returns whether a header opens a turn as those of no other role do."""
        found = list(self.vocabulary.pattern.finditer(header))
        openers = [m.start() for m in found if m.group() in self.structure.openers]
        # where no token opens turns, the one that ends a question stands before an answer alone
        ends = [m.start() for m in found if m.group() in self.structure.tokens]
        if not openers and not ends:
            return False
        opener = max(openers or ends)
        end, others = 0, []
        for slot in self.trace.slots:
            before, end = self.trace.text[end : slot.start], slot.end
            if slot.message >= 0 and not self.conversation.messages[slot.message].is_assistant:
                others.append(before)
        return bool(others) and not any(header[opener:] in before for before in others)

    def _start_unlike(self, k: int, header: str, written: str, where: str) -> int:
        """Returns the start of turn `k` if it differs from its generation prompt."""
        same, asked = self._aligned(written, header)
        rest = header[asked:]
        if not rest or self._ends_every_chat(k, header, rest):
            return same
        spaced = len(written) - len(written[same:].lstrip())
        if rest.isspace() or same > len(written.rstrip()):
            kept = self._kept_whitespace(k)
            if rest.isspace() and self._is_words(written[spaced:]):
                return spaced - kept  # the same header, with other whitespace
            if rest.isspace() and header[:asked].endswith(tuple(self.structure.openers)):
                return same
            same = min(same, spaced - kept)
        if not self._is_forced(rest) or not header[:asked].strip():
            raise self._unlike(header, written, where)
        self._note_off_prompt(k, rest)
        return same

    def _ends_every_chat(self, k: int, header: str, rest: str) -> bool:
        """Returns whether a prompt's rest, but not the prompt, stands behind the last turn, too.

        Args:
            k: The turn.
            header: The text from the words before the turn to the end of its prompt.
            rest: The end of the header.
        """
        end = max((slot.end for slot in self.trace.slots), default=0)
        behind = self.trace.text[end:].rstrip()
        if not rest.strip() or not behind.endswith(rest.strip()):
            return False
        self.apart.add(k)
        return not behind.endswith(header.strip())

    def _aligned(self, written: str, header: str) -> tuple[int, int]:
        """Returns how far a turn and its prompt agree, except for whitespace."""
        i = j = 0
        while True:
            same = self._shared(header[j:], written[i:])
            i, j = i + same, j + same
            # whitespace is ignored only if both texts agree after it
            a, b = _behind_space(written, i), _behind_space(header, j)
            if (a, b) == (i, j) or not self._shared(header[b:], written[a:]):
                return i, j
            i, j = a, b

    def _shared(self, header: str, written: str) -> int:
        """Returns how far two texts agree, without splitting a control token."""
        same = _common_length(header, written)
        tokens = self.vocabulary.pattern.finditer(header)
        return next((t.start() for t in tokens if t.start() < same < t.end()), same)

    def _is_forced(self, rest: str) -> bool:
        """Returns whether a prompt's rest is optional, such as a think block."""
        tokens = self.vocabulary.pattern.findall(rest)
        begins = self.vocabulary.pattern.match(rest.lstrip()) is not None
        return begins and not self.structure.tokens.intersection(tokens)

    def _opens_again(self, text: str) -> bool:
        """Returns whether the template opens a turn in text that would be trained."""
        return not self.structure.openers.isdisjoint(self.vocabulary.pattern.findall(text))

    def _opens_turn(self, header: str) -> bool:
        """Returns whether a generation prompt opens a turn behind the end of the one before."""
        return self._opens_again(header[self._end_of_stop(header) :])

    def _unlike(self, header: str, written: str, where: str) -> LabelError:
        hint = (
            "set the template's variables, such as template_kwargs={'enable_thinking': False}"
            if "think" in header + written
            else misplacement(self.trace) or "check whether roles are swapped"
        )
        return OffPromptError(
            f"this turn does not begin with the generation prompt: found {written[:80]!r}, "
            f"expected {header!r}; {hint}",
            where=where,
        )

    def _is_words(self, rest: str) -> bool:
        """Returns whether a message's words, or an empty turn's end, come next."""
        return not rest or rest.startswith(tuple(self.stop_tokens))


def _common_length(a: str, b: str) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _behind_space(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())
