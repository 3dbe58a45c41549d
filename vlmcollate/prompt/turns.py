"""Finds the start and end of each assistant turn in a rendering."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.errors import LabelError, SampleError
from vlmcollate.prompt.marks import MarkedText, Marks, Slot, Span
from vlmcollate.prompt.structure import Structure
from vlmcollate.tokens.vocabulary import Vocabulary, token_pattern

Render = Callable[..., str]

_GLOBAL = ("system", "developer")
"""The roles whose words concern all turns, so that a template may write them anywhere."""


class _NoPromptError(LabelError):
    """The template renders no generation prompt before a turn."""


class _OffPromptError(LabelError):
    """A turn does not begin with its generation prompt."""


Kind = tuple[Any, ...]


@attrs.frozen(kw_only=True, eq=False)
class KnownStarts:
    """The headers and starts of turns that were found by rendering a generation prompt.

    Attributes:
        is_certain: Whether the generation prompt depends on nothing but the kind of turn, so that
            what is known holds for all chats with the same variables.
        headers: The text from the words before a turn to the end of its generation prompt, by kind.
        starts: The number of characters from those words to the turn, and any note, by the kind and
            the text between the words and the turn's own.
    """

    is_certain: bool
    headers: dict[Kind, str] = attrs.field(factory=dict)
    starts: dict[tuple[Kind, str], tuple[int, str | None]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, eq=False)
class TurnFinder:
    """Finds the assistant turns of one traced rendering.

    Args:
        conversation: The conversation.
        trace: Its rendering.
        render: Renders a conversation: `render(conversation, marks, upto=None)`.
        vocabulary: The tokenizer's tokens.
        stop_tokens: The tokens that may end a turn.
        structure: The purposes of the template's control tokens.
        ends_with_words: Whether a turn that no token ends is ended by its words.
        switches: Values of the template's switch for thinking, of which one may make the generation
            prompt agree with a turn.
        known: What is known of turns of each kind.
        notes: What is unusual about turns that were found, by their message.
    """

    conversation: Conversation
    trace: MarkedText
    render: Render
    vocabulary: Vocabulary
    stop_tokens: Sequence[str]
    structure: Structure
    ends_with_words: bool = False
    switches: Sequence[Mapping[str, Any]] = ()
    known: KnownStarts = attrs.field(factory=lambda: KnownStarts(is_certain=False))
    notes: dict[int, str] = attrs.field(factory=dict, init=False)

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
        known = self.known.starts.get((kind, written)) if self._is_repeated(k) else None
        if known is None:
            start = self._start_behind(k, kind, anchor, first, where)
            self.known.starts[kind, written] = start - at, self.notes.get(k)
            return start
        offset, note = known
        if note is not None:
            self.notes[k] = note
        return at + offset

    def _start_behind(self, k: int, kind: Kind, anchor: Slot | None, first: int, where: str) -> int:
        """Returns the start of turn `k`, whose words begin at `first`, by its generation prompt."""
        trace, at = self.trace, anchor.end if anchor else 0
        header = self.known.headers.get(kind) if self._is_repeated(k) else None
        if header is None or not trace.text.startswith(header, at):
            try:
                header = self._header(k, anchor, where, {})
            except _NoPromptError as error:
                return self._start_of_another(k, at, first, error)
            self.known.headers[kind] = header
        if trace.text.startswith(header, at):
            self._check_header(k, at + len(header), header, where)
        try:
            return self._behind_header(k, at, first, header, where)
        except _OffPromptError as error:
            return self._start_of_switched(k, at, first, anchor, error)

    def _anchor(self, k: int, first: int) -> Slot | None:
        """Returns the last words before turn `k`, whose own begin at `first`."""
        anchor = self.trace.last_before(k)
        if anchor is None or anchor.start < first:
            return anchor
        before = (s for s in self.trace.slots if s.message < k and not self._is_moved(s, first))
        return max(before, key=lambda slot: slot.start, default=None)

    def _is_moved(self, slot: Slot, first: int) -> bool:
        """Returns whether words of the system or of tools stand behind a turn, and notes it."""
        if slot.start < first:
            return False
        if slot.message >= 0 and self.conversation.messages[slot.message].role not in _GLOBAL:
            return False
        self.notes[-1] = (
            "the template writes the system message or the tools before the last user message, so "
            "earlier turns are trained without them"
        )
        return True

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
        except _OffPromptError:
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

    def _render_with(
        self,
        variables: Mapping[str, Any],
        conversation: Conversation,
        marks: Marks | None,
        **more: Any,
    ) -> str:
        """Renders a conversation with further template variables."""
        if variables:
            given = {**conversation.template_kwargs, **variables}
            conversation = attrs.evolve(conversation, template_kwargs=given)
        return self.render(conversation, marks, **more)

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
        return _OffPromptError(
            f"this turn does not begin with the generation prompt: found {written[:80]!r}, "
            f"expected {header!r}; {hint}",
            where=where,
        )

    def _is_words(self, rest: str) -> bool:
        """Returns whether a message's words, or an empty turn's end, come next."""
        return not rest or rest.startswith(tuple(self.stop_tokens))

    def _kept_whitespace(self, k: int) -> int:
        """Returns how much whitespace before turn `k`'s first word is its own."""
        gap, bare_gap = self._gap(self.trace, k), self._gap(self._bare, k)
        if gap is not None and bare_gap is not None:
            return gap - bare_gap
        messages = list(self.conversation.messages)  # a turn without words, for example
        messages[k] = self._without_leading_space(k)
        stripped = attrs.evolve(self.conversation, messages=tuple(messages))
        return len(self.trace.text) - len(self.render(stripped, None))

    def _gap(self, trace: MarkedText | None, k: int) -> int | None:
        """Returns the characters of a rendering between the words before turn `k` and its own."""
        first = next(iter(self.trace.of(k)), None)
        if trace is None or first is None:
            return None
        anchor, own = self._anchor(k, first.start), trace.find(first.number)
        before = None if anchor is None else trace.find(anchor.number)
        if own is None or (before is None) != (anchor is None):
            return None
        return own.start - (before.end if before else 0)

    @cached_property
    def _bare(self) -> MarkedText | None:
        """The rendering without the whitespace before the first words of answers."""
        messages = self.conversation.messages
        bare = (
            self._without_leading_space(k) if message.is_assistant else message
            for k, message in enumerate(messages)
        )
        return self._read(attrs.evolve(self.conversation, messages=tuple(bare)))

    def _without_leading_space(self, k: int) -> Message:
        """Returns a message without the whitespace before its first words."""
        places = self.trace.marks.places
        key = next((places[slot.number].where for slot in self.trace.of(k)), "")
        return _without_leading_space(self.conversation.messages[k], key.rpartition(".")[2])

    def _kind(self, k: int) -> Kind:
        """Returns what the generation prompt of turn `k` may depend on, given the template."""
        if not k:
            return ()
        messages, anchor = self.conversation.messages, self.trace.last_before(k)
        before = messages[k - 1]
        parts = tuple("text" if isinstance(p, TextPart) else p.kind for p in before.content)
        # messages without words, which the template's text before the turn spans
        silent = tuple(m.role for m in messages[anchor.message + 1 if anchor else 0 : k])
        return before.role, before.is_string, parts[-1:], tuple(before.extra), silent

    def _is_repeated(self, k: int) -> bool:
        """Returns whether what is known of the kind of turn `k` holds for it as well."""
        return self.known.is_certain or k not in self._last_of_kinds

    @cached_property
    def _last_of_kinds(self) -> frozenset[int]:
        """The last turn of each kind, whose prompt is rendered to prove what the first showed."""
        turns = (k for k, m in enumerate(self.conversation.messages) if m.is_assistant)
        return frozenset({self._kind(k): k for k in turns}.values())

    def _header(self, k: int, anchor: Slot | None, where: str, variables: Mapping[str, Any]) -> str:
        """Returns the template's text between earlier messages and answer `k`."""
        marks = self.trace.marks.renewed()
        try:
            prompt = marks.read(self._render_with(variables, self.conversation, marks, upto=k))
        except SampleError as error:
            raise _NoPromptError(
                f"the prompt before this turn cannot be rendered ({error.problem})", where=where
            ) from error
        found = prompt.find(anchor.number) if prompt and anchor else None
        if prompt is None or (anchor is not None and found is None):
            raise LabelError("the template reorders the messages before this turn", where=where)
        return prompt.text[found.end if found else 0 :]

    def _header_of_another(
        self, at: int, first: int, error: LabelError, variables: Mapping[str, Any]
    ) -> tuple[int, str]:
        """Returns where the header of a turn begins, and the header, as another turn has it.

        Args:
            at: The end of the words before the turn, before which the template renders no prompt.
            first: The start of its words.
            error: What to raise if no other turn shows the header.
            variables: Further template variables.
        """
        words = Message(role="user", content=(TextPart("wombat"),))
        asking = attrs.evolve(self.conversation, messages=(words,), tools=None)
        try:
            prompt = self._render_with(variables, asking, None, upto=1)
        except SampleError:
            raise error from None
        behind = prompt.rpartition("wombat")[2]
        tokens = list(self.vocabulary.pattern.finditer(behind))
        opener = next((m for m in reversed(tokens) if m.group() in self.structure.openers), None)
        written = self.trace.text[at:first]
        if opener is not None:
            header = behind[opener.start() :]
            begins = written.rfind(opener.group())
        else:  # the header is words, such as `Assistant:`, or nothing
            header = behind[tokens[-1].end() if tokens else 0 :].lstrip()
            begins = written.rfind(header)
            if not header:
                ends = [m.end() for m in self.vocabulary.pattern.finditer(written)]
                begins = ends[-1] if ends else 0
        if begins < 0:
            raise error
        return at + begins, header

    def _read(self, conversation: Conversation, upto: int | None = None) -> MarkedText | None:
        marks: Marks = self.trace.marks.renewed()
        return marks.read(self.render(conversation, marks, upto=upto))

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


def _without_leading_space(message: Message, key: str) -> Message:
    """Returns the message without whitespace before its first word, at `key`."""
    if isinstance(message.extra.get(key), str):
        return attrs.evolve(message, extra={**message.extra, key: message.extra[key].lstrip()})
    parts = list(message.content)
    i = next((i for i, p in enumerate(parts) if isinstance(p, TextPart)), None)
    if i is not None:
        parts[i] = TextPart(parts[i].text.lstrip())  # type: ignore[union-attr]  # found as such
    return attrs.evolve(message, content=tuple(parts))


def _common_length(a: str, b: str) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _behind_space(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())
