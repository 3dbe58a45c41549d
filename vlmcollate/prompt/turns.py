"""Finds the start and end of each assistant turn in a rendering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

import attrs

from vlmcollate.errors import LabelError
from vlmcollate.prompt.marks import Slot, Span
from vlmcollate.prompt.notes import TurnNote
from vlmcollate.prompt.off_prompt import OffPromptStarts, StartWith
from vlmcollate.prompt.turn_headers import (
    Kind,
    NoPromptError,
    OffPromptError,
    space_at_end,
    space_at_start,
    unwritten,
)
from vlmcollate.tokens.vocabulary import token_pattern


@attrs.frozen(kw_only=True, eq=False)
class TurnFinder(OffPromptStarts):
    """Finds the assistant turns of one traced rendering; see `TurnHeaders` for its attributes."""

    def __call__(self) -> Iterator[Span]:
        """Yields the turns in order, each including its stop token.

        A turn that cannot be located with certainty is `uncertain`, and holds its words at least.

        Raises:
            LabelError: Not even the words of a turn can be located.
        """
        done = 0
        for k, message in enumerate(self.conversation.messages):
            if not message.is_assistant or message.is_prefix or self.trace.is_left_out(k):
                continue
            try:
                spans = self._spans(k, done)
            except LabelError as error:
                self.uncertain[k] = error
                spans = [self._words_at_least(k, done, error)]
            yield from spans
            done = spans[-1].end

    def _spans(self, k: int, done: int) -> list[Span]:
        """Returns turn `k`, and any parts of it behind later messages.

        Args:
            k: The turn.
            done: The end of the turn before it.
        """
        start = self._start(k, f"messages[{k}]")
        if start < done:
            raise LabelError(
                "this turn cannot be distinguished from an earlier one, since no text "
                "separates them; remove turns without text",
                where=f"messages[{k}]",
            )
        end = self._end(k, start)
        return [Span(start, end, k), *self._moved(k, end)]

    def _words_at_least(self, k: int, done: int, error: LabelError) -> Span:
        """Returns a turn that begins or ends at an unknown place, for samples that train others.

        Args:
            k: The turn.
            done: The end of the turn before it.
            error: What to raise if its words are not in one place behind that.
        """
        self.notes.pop(k, None)
        own = self._first_slots(k)
        if not own or own[0].start < done or any(map(self._is_late, own)):
            raise error
        start = self._shared_start(k, own[0].start)
        try:
            return Span(start, self._end(k, start), k)
        except LabelError:
            return Span(start, own[-1].end, k)

    def _end(self, k: int, start: int) -> int:
        """Returns the place behind the stop token of turn `k`, or behind its words."""
        text, later = self.trace.text, self.trace.first_after(k)
        in_place = [slot for slot in self._first_slots(k) if not self._is_late(slot)]
        if self.trace.of(k) and not in_place:
            raise self._is_moved_error(k)
        last = max([start, *(slot.end for slot in in_place)])
        limit = later.start if later else len(text)
        found = token_pattern(self.stop_tokens).finditer(text, last, limit)
        # a message's own text ends no turn, such as a call's key that is written twice
        closed = next((m for m in found if not self.trace.is_given(*m.span())), None)
        if closed is None and self.ends_with_words:
            return last
        silent = (later.message if later else len(self.conversation.messages)) > k + 1
        if closed is None or (silent and not self._is_own(k, last, closed.start())):
            raise LabelError(
                f"this turn has no stop token: found {text[last : last + 40]!r}, expected one of "
                f"{list(self.stop_tokens)}; name the token that ends a turn with "
                "stop_tokens=[...], or, if words end it, set unclosed_turns to "
                '"append_eos" or "content_only"',
                where=f"messages[{k}]",
            )
        return closed.end()

    def _moved(self, k: int, done: int) -> Iterator[Span]:
        """Yields the parts of turn `k` that the template writes behind later messages.

        Args:
            k: The turn.
            done: The end of its words in place.
        """
        late = {slot.number for slot in self._first_slots(k) if self._is_late(slot)}
        slots = self.trace.slots if late else []
        for is_late, run in groupby(enumerate(slots), lambda item: item[1].number in late):
            found = list(run)
            if not is_late:
                continue
            (_, first), (i, last) = found[0], found[-1]
            limit = slots[i + 1].start if i + 1 < len(slots) else len(self.trace.text)
            behind = self.trace.text[last.end : limit]
            is_apart = self._ends_apart(first.start) and self._begins_apart(behind)
            if first.start < done or not is_apart:
                raise self._is_moved_error(k)
            stop = token_pattern(self.stop_tokens).match(behind.lstrip())
            space = len(behind) - len(behind.lstrip())
            self.notes.setdefault(k, TurnNote("in_parts"))
            yield Span(first.start, last.end + (space + stop.end() if stop else 0), k)

    def _begins_apart(self, text: str) -> bool:
        """Returns whether a text begins with a control token or a space."""
        return text[:1].isspace() or self.vocabulary.pattern.match(text) is not None

    def _ends_apart(self, end: int) -> bool:
        """Returns whether a control token or a space stands before a place of the prompt."""
        tokens = list(self.vocabulary.pattern.finditer(self.trace.text, 0, end))
        return self.trace.text[:end][-1:].isspace() or bool(tokens and tokens[-1].end() == end)

    def _is_moved_error(self, k: int) -> LabelError:
        later = self.trace.first_after(k)
        return LabelError(
            "the template moves a part of this message behind "
            f"messages[{later.message if later else k}]; remove that part, or put it into a "
            "message of its own",
            where=f"messages[{k}]",
        )

    def _is_own(self, k: int, last: int, stop: int) -> bool:
        """Returns whether a stop token ends turn `k`, not a wordless later one."""
        between = self.vocabulary.pattern.findall(self.trace.text, last, stop)
        if not any(self.vocabulary.is_special(token) for token in between):
            return True
        messages = self.conversation.messages[: k + 1]
        own = self._read(attrs.evolve(self.conversation, messages=messages))
        at = next((slot for slot in self.trace.slots if slot.end == last), None)
        found = own.find(at.number) if own and at else None
        if own is None or found is None:
            return False
        return stop <= last + self._shared(own.text[found.end :], self.trace.text[last:])

    def _start(self, k: int, where: str) -> int:
        """Returns the first character that the model must write in turn `k`."""
        trace = self.trace
        first = next((slot.start for slot in trace.of(k)), len(trace.text))
        anchor = self._anchor(k, first)
        at = anchor.end if anchor else 0
        if anchor is not None and self._is_continued(anchor, trace.text[at:first]):
            return at
        kind, written = self._kind(k), trace.text[at:first]
        if not self.known.headers.get(kind, "unknown").strip():
            # nothing but its message shows whose the whitespace around it is
            kind = (*kind, space_at_end(self.conversation.messages[k - 1].text) if k else "")
        rest = written.lstrip()  # behind the whitespace of the words before
        known = self._known_start(k, kind, self._shapes(k, kind, written, first))
        if known is None:
            start = self._start_of_named(k, at, first, where)
            if start is None:
                start = self._start_behind(k, kind, anchor, first, where)
                start = self._behind_usual_header(k, start, self._until_words(k, start))
            if trace.of(k):  # without words, what was written goes on to the end of the chat
                shapes = self._shapes(k, kind, written, first)  # its header is known now
                shape = shapes[0 if start > first - len(rest) else -1]
                if k in self.apart:
                    found = first - start, self.notes.get(k)
                    self.starts[k == self.last_turn, kind, shape] = found
                else:
                    self.known.keep(kind, shape, first - start, self.notes.get(k))
            return start
        length, note = known
        if note is not None:
            self.notes[k] = note
        return first - length

    def _known_start(
        self, k: int, kind: Kind, shapes: Sequence[Kind]
    ) -> tuple[int, TurnNote | None] | None:
        """Returns what is known of the start of a turn like turn `k`."""
        if not self._is_repeated(k):
            return None
        is_last = k == self.last_turn
        of_chat = (self.starts.get((is_last, kind, shape)) for shape in shapes)
        of_others = (self.known.starts.get((kind, shape)) for shape in shapes)
        return next(filter(None, chain(of_chat, of_others)), None)

    def _shapes(self, k: int, kind: Kind, written: str, first: int) -> list[Kind]:
        """Returns what `KnownStarts` knows a turn by: without whitespace at first, and with it."""
        rest = written.lstrip()
        more = {unwritten(header.lstrip(), rest) for header in self.known.headers_of(kind)}
        # an answer's own words may begin as a generation prompt ends
        begins = frozenset(
            text for text in more if text and self.trace.text.startswith(text, first)
        )
        own = self._own_beginning(k)
        return [(text, begins, *own) for text in dict.fromkeys((rest, written))]

    def _start_of_named(self, k: int, at: int, first: int, where: str) -> int | None:
        """Returns the start of a turn whose header holds the name of its message, or `None`."""
        message = self.conversation.messages[k]
        name = message.extra.get("name")
        if not isinstance(name, str) or name not in self.trace.text[at:first]:
            return None
        extra = {key: value for key, value in message.extra.items() if key != "name"}
        messages = list(self.conversation.messages)
        messages[k] = attrs.evolve(message, extra=extra)
        nameless = attrs.evolve(self.conversation, messages=tuple(messages))
        trace = self._read(nameless)
        if trace is None or len(trace.slots) != len(self.trace.slots) or not trace.of(k):
            return None
        finder = attrs.evolve(self, conversation=nameless, trace=trace)
        start = finder._start(k, where)
        self.notes.update(finder.notes)
        self.apart.update(finder.apart)
        words = trace.of(k)[0].start
        own = trace.text[start:words]
        is_same = self.trace.text.endswith(own, at, first)
        return first + start - words if is_same else None  # which may lie inside its words

    def _is_continued(self, anchor: Slot, written: str) -> bool:
        """Returns whether a turn goes on behind words of an earlier one that were moved there."""
        if anchor.message < 0 or not self.conversation.messages[anchor.message].is_assistant:
            return False
        is_moved = self.trace.find(anchor.number) is anchor and self._is_late(anchor)
        return is_moved and not (
            self._opens_again(written) or token_pattern(self.stop_tokens).search(written)
        )

    def _start_behind(self, k: int, kind: Kind, anchor: Slot | None, first: int, where: str) -> int:
        """Returns the start of turn `k`, whose words begin at `first`, by its generation prompt."""
        trace, at = self.trace, anchor.end if anchor else 0
        shown = kind, self._shown_text(k, anchor, trace.text[at:first])
        is_shown = shown in self.known.shown
        is_same = is_shown and self._is_repeated(k)
        header = self._known_header(kind, trace.text[at:first]) if is_same else None
        if header is None:
            before = self.known.headers.get(kind, "")
            try:
                header = self._header(k, anchor, where, {})
            except NoPromptError as error:
                return self._start_without_prompt(k, at, first, error)
            is_same = is_same or (is_shown and before.lstrip() == header.lstrip() != "")
            self.known.headers[kind] = header
            self.known.show(shown)
        if trace.text.startswith(header, at):
            header += self._unasked_of(k, at + len(header), header, where)
            self.known.headers[kind] = header

        def start(variables: Mapping[str, Any]) -> int:
            own = header
            if variables:
                known, key = self.known.switched.setdefault(kind, {}), tuple(variables.items())
                if key not in known or not is_same:
                    known[key] = self._header(k, anchor, where, variables)
                own = space_at_start(header) + known[key].lstrip()  # as the words before end
            return self._behind_header(k, at, first, own, where)

        try:
            return self._start_with_switch(k, start)
        except OffPromptError as error:
            return self._start_of_switched(k, at, first, header, start, error)

    def _behind_header(self, k: int, at: int, first: int, header: str, where: str) -> int:
        """Returns the start of turn `k` behind its header, which begins at `at`."""
        trace = self.trace
        written = trace.text[at:first]
        if trace.text.startswith(header, at):  # the answer may begin as the prompt ends
            start = at + len(header)
        else:
            start = at + self._start_unlike(k, header, written, where)
        if self._unasked_header and header.endswith(self._unasked_header):
            self.notes[k] = TurnNote("no_prompt", self._unasked_header)
        # behind a prompt that opens the turn, whatever the template writes belongs to the turn
        is_opened = written.startswith(header) and self._opens_turn(header)
        if not is_opened and self._opens_again(trace.text[start : self._until_words(k, start)]):
            raise self._unlike(header, written, where)
        return start

    def _start_without_prompt(self, k: int, at: int, first: int, error: NoPromptError) -> int:
        """Returns the start of turn `k`, before which the template renders no prompt."""
        try:
            return self._start_of_another(k, at, first, error)
        except NoPromptError:
            return self._start_without_header(k, at, first, error)

    def _start_of_another(self, k: int, at: int, first: int, error: LabelError) -> int:
        """Returns the start of turn `k` behind the header that another turn has.

        Args:
            k: The turn, before which the template renders no prompt.
            at: The end of the words before it.
            first: The start of its words.
            error: What to raise if no other turn shows the header.
        """

        def start(variables: Mapping[str, Any]) -> int:
            begins, header = self._header_of_another(at, first, error, variables)
            known = self.known.switched.setdefault(self._kind(k), {})
            known[("usual", *variables.items())] = header
            found = self._behind_header(k, begins, first, header, f"messages[{k}]")
            return self._behind_own_words(k, found, first)

        try:
            return self._start_with_switch(k, start)
        except OffPromptError as off_prompt:
            switched = self._switched(k, start)
            if switched is not None:
                return switched
            begins, header = self._header_of_another(at, first, error, {})
            written = self.trace.text[begins:first]
            return begins + self._start_off_prompt(k, header, written, off_prompt)

    def _behind_own_words(self, k: int, start: int, first: int) -> int:
        """Returns the start of turn `k` without words that the template writes into it alone.

        Args:
            k: The turn, whose header is that of another.
            start: The end of the header.
            first: The start of the turn's words.
        """
        own = self.trace.text[start:first]
        if not own.strip() or self.vocabulary.pattern.search(own):
            return start
        usual = self._usual_words()
        if own == usual:
            return start
        self.notes[k] = TurnNote("other_header")  # such as a default system message
        is_usual = usual and own.endswith(usual)
        return first - (len(usual) if is_usual else self._kept_whitespace(k))

    def _start_with_switch(self, k: int, start_with: StartWith) -> int:
        """Returns the start of turn `k`, with a variable if only that prompt agrees with it."""
        start = start_with({})
        if not self._is_off_prompt(k):
            return start
        note = self.notes.pop(k)
        switched = self._switched(k, start_with, agreeing=True)
        if switched is None:
            self.notes[k] = note
            return start
        return switched

    def _start_of_switched(
        self, k: int, at: int, first: int, header: str, start_with: StartWith, error: LabelError
    ) -> int:
        """Returns the start of turn `k` with a variable that makes its prompt agree with it.

        Args:
            k: The turn, which does not begin with its generation prompt.
            at: The end of the words before it.
            first: The start of its words.
            header: The text from the words before it to the end of its generation prompt.
            start_with: A function that returns its start with further template variables.
            error: What to raise if no value agrees.
        """
        switched = self._switched(k, start_with)
        if switched is not None:
            return switched
        written = self.trace.text[at:first]
        try:
            return at + self._start_off_prompt(k, header, written, error)
        except OffPromptError:
            usual = self._start_behind_usual_header(k, at, first, error)
        self.notes[k] = TurnNote("other_header")
        return usual

    def _start_behind_usual_header(self, k: int, at: int, first: int, error: LabelError) -> int:
        """Returns the start of turn `k` behind the header that answers to a question have."""
        if not self.trace.of(k):  # its words would end its header
            usual = self._usual_header(error, {})[1]
            found = self.trace.text.find(usual, at, first)
            first = found + len(usual) if found >= 0 else first
        begins, header = self._header_of_another(at, first, error, {})
        if not self._opens_again(header):
            raise error
        try:
            return self._behind_header(k, begins, first, header, f"messages[{k}]")
        except OffPromptError:
            raise error from None
