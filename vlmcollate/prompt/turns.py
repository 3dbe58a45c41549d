"""Finds the start and end of each assistant turn in a rendering."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from vlmcollate.errors import LabelError, SampleError
from vlmcollate.prompt.marks import Slot, Span
from vlmcollate.prompt.turn_headers import Kind, NoPromptError, OffPromptError, TurnHeaders
from vlmcollate.tokens.vocabulary import token_pattern


@attrs.frozen(kw_only=True, eq=False)
class TurnFinder(TurnHeaders):
    """Finds the assistant turns of one traced rendering; see `TurnHeaders` for its attributes."""

    def __call__(self) -> Iterator[Span]:
        """Yields the turns in order, each including its stop token.

        Raises:
            LabelError: A turn cannot be located with certainty.
        """
        done = 0
        for k, message in enumerate(self.conversation.messages):
            if not message.is_assistant or message.is_prefix or self.trace.is_left_out(k):
                continue
            start = self._start(k, f"messages[{k}]")
            if start < done:
                raise LabelError(
                    "this turn cannot be distinguished from an earlier one, since no text "
                    "separates them; remove turns without text",
                    where=f"messages[{k}]",
                )
            done = self._end(k, start)
            yield Span(start, done, k)

    def _end(self, k: int, start: int) -> int:
        """Returns the place behind the stop token of turn `k`, or behind its words."""
        text, later = self.trace.text, self.trace.first_after(k)
        self._check_order(k, later)
        # a template may repeat a word, such as the name of a tool before its result
        first = {slot.number: slot for slot in reversed(self.trace.of(k))}
        last = max([start, *(slot.end for slot in first.values())])
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

    def _check_order(self, k: int, later: Slot | None) -> None:
        """Refuses a message of which a part stands behind a later message."""
        own = self.trace.of(k)
        if later is None:
            return
        in_place = {slot.number for slot in own if slot.start < later.start}
        if any(slot.number not in in_place for slot in own):
            raise LabelError(
                "the template moves a part of this message behind "
                f"messages[{later.message}]; remove that part, or put it into a message of its own",
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
        kind, written = self._kind(k), trace.text[at:first]
        rest = written.lstrip()  # behind the whitespace of the words before
        shapes = [(text, *self._own_beginning(k)) for text in dict.fromkeys((rest, written))]
        found = (self.known.starts.get((kind, shape)) for shape in shapes)
        known = next(filter(None, found), None) if self._is_repeated(k) else None
        if known is None:
            start = self._start_behind(k, kind, anchor, first, where)
            if trace.of(k):  # without words, what was written goes on to the end of the chat
                shape = shapes[0 if start > first - len(rest) else -1]
                self.known.keep(kind, shape, first - start, self.notes.get(k))
            return start
        length, note = known
        if note is not None:
            self.notes[k] = note
        return first - length

    def _start_behind(self, k: int, kind: Kind, anchor: Slot | None, first: int, where: str) -> int:
        """Returns the start of turn `k`, whose words begin at `first`, by its generation prompt."""
        trace, at = self.trace, anchor.end if anchor else 0
        header = self.known.headers.get(kind) if self._is_repeated(k) else None
        if header is None or not trace.text.startswith(header, at):
            try:
                header = self._header(k, anchor, where, {})
            except NoPromptError as error:
                return self._start_of_another(k, at, first, error)
            self.known.headers[kind] = header
        if trace.text.startswith(header, at):
            self._check_header(k, at + len(header), header, where)
        try:
            return self._behind_header(k, at, first, header, where)
        except OffPromptError as error:
            return self._start_of_switched(k, at, first, anchor, error)

    def _behind_header(self, k: int, at: int, first: int, header: str, where: str) -> int:
        """Returns the start of turn `k` behind its header, which begins at `at`."""
        trace = self.trace
        written = trace.text[at:first]
        if written.startswith(header):
            start = at + len(header)
        else:
            start = at + self._start_unlike(k, header, written, where)
        if trace.of(k) and self._opens_again(trace.text[start:first]):
            raise self._unlike(header, written, where)
        return start

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
            return self._behind_header(k, begins, first, header, f"messages[{k}]")

        try:
            return start({})
        except OffPromptError:
            switched = self._switched(k, start)
            if switched is None:
                raise
            return switched

    def _start_of_switched(
        self, k: int, at: int, first: int, anchor: Slot | None, error: LabelError
    ) -> int:
        """Returns the start of turn `k` with a variable that makes its prompt agree with it.

        Args:
            k: The turn, which does not begin with its generation prompt.
            at: The end of the words before it.
            first: The start of its words.
            anchor: The words before it.
            error: What to raise if no value agrees.
        """
        where = f"messages[{k}]"

        def start(variables: Mapping[str, Any]) -> int:
            header = self._header(k, anchor, where, variables)
            return self._behind_header(k, at, first, header, where)

        switched = self._switched(k, start)
        if switched is not None:
            return switched
        return at + self._start_off_prompt(k, anchor, self.trace.text[at:first], error)

    def _switched(self, k: int, start_with: Callable[[Mapping[str, Any]], int]) -> int | None:
        """Returns the start of turn `k` with the first variable that leaves the chat the same."""
        for variables in self.switches:
            try:
                start = start_with(variables)
                if self._render_with(variables, self.conversation, None) != self.trace.text:
                    continue
            except SampleError:
                continue
            ((name, value),) = variables.items()
            self.notes[k] = (
                f"begins as the generation prompt with {name}={value!r}; set it for generation, too"
            )
            return start
        return None

    def _start_off_prompt(
        self, k: int, anchor: Slot | None, written: str, error: LabelError
    ) -> int:
        """Returns the start of an earlier turn whose prompt agrees only up to its role."""
        messages = self.conversation.messages
        header = self._header(k, anchor, f"messages[{k}]", {})
        same, asked = self._aligned(written, header)
        opened = self.structure.openers.intersection(
            self.vocabulary.pattern.findall(header[:asked])
        )
        is_last = not any(message.is_assistant for message in messages[k + 1 :])
        if is_last or not opened or self._opens_again(written[same:]):
            raise error
        self._note_off_prompt(k, header[asked:])
        return same

    def _note_off_prompt(self, k: int, rest: str) -> None:
        self.notes[k] = (
            f"is trained without {rest.strip()[:40]!r}, which ends every generation prompt; to "
            'train only what is generated, set train_on="last_turn"'
        )

    def _start_unlike(self, k: int, header: str, written: str, where: str) -> int:
        """Returns the start of turn `k` if it differs from its generation prompt."""
        same, asked = self._aligned(written, header)
        rest = header[asked:]
        if not rest:
            return same
        spaced = len(written) - len(written[same:].lstrip())
        if rest.isspace() or same > len(written.rstrip()):
            kept = self._kept_whitespace(k)
            if rest.isspace() and self._is_words(written[spaced:]):
                return spaced - kept  # the same header, with other whitespace
            same = min(same, spaced - kept)
        if not self._is_forced(rest) or not header[:asked].strip():
            raise self._unlike(header, written, where)
        self._note_off_prompt(k, rest)
        return same

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

    def _unlike(self, header: str, written: str, where: str) -> LabelError:
        hint = (
            "set the template's variables, such as template_kwargs={'enable_thinking': False}"
            if "think" in header + written
            else "check whether roles are swapped, or the template repeats a message here"
        )
        return OffPromptError(
            f"this turn does not begin with the generation prompt: found {written[:80]!r}, "
            f"expected {header!r}; {hint}",
            where=where,
        )

    def _is_words(self, rest: str) -> bool:
        """Returns whether a message's words, or an empty turn's end, come next."""
        return not rest or rest.startswith(tuple(self.stop_tokens))

    def _check_header(self, k: int, start: int, header: str, where: str) -> None:
        """Refuses a header that would be trained for lack of a generation prompt."""
        first = next((slot.start for slot in self.trace.of(k)), start)
        between = self.vocabulary.pattern.findall(self.trace.text, start, first)
        special = [token for token in between if self.vocabulary.is_special(token)]
        if not special or special[0] not in self.structure.unasked:
            return
        before = self.conversation.messages[:k]
        closed = self._read(attrs.evolve(self.conversation, messages=before)) if k else None
        if closed is None or closed.text.endswith(header):
            raise LabelError(
                f"the template has no generation prompt, so it is unknown whether the model writes "
                f"{''.join(between)!r}; use another label strategy",
                where=where,
            )


def _common_length(a: str, b: str) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _behind_space(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())
