"""Finds what a chat template writes between earlier messages and an assistant turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import attrs

from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.errors import LabelError, SampleError
from vlmcollate.prompt.marks import MarkedText, Marks, Slot, map_strings
from vlmcollate.prompt.notes import TurnNote
from vlmcollate.prompt.structure import Structure
from vlmcollate.tokens.vocabulary import Vocabulary

Finder = TypeVar("Finder", bound="TurnHeaders")
Render = Callable[..., str]

GLOBAL_ROLES = ("system", "developer")
"""The roles whose words concern all turns, so that a template may write them anywhere."""


class NoPromptError(LabelError):
    """The template renders no generation prompt before a turn."""


class OffPromptError(LabelError):
    """A turn does not begin with its generation prompt."""


Kind = tuple[Any, ...]
_MOST_STARTS = 4096


@attrs.frozen(kw_only=True, eq=False)
class KnownStarts:
    """The headers and starts of turns that were found by rendering a generation prompt.

    Attributes:
        is_certain: Whether the generation prompt depends on nothing but the kind of turn, so that
            what is known holds for all chats with the same variables.
        shown: The kinds of turns before which a prompt was rendered, with the text that stands
            there, since other text may follow from another prompt.
        of_probes: What chats of fixed words show of the headers of answers, by its name.
        headers: The text from the words before a turn to the end of its generation prompt, by kind.
        switched: The same with another value of one of the template's variables, by that, too.
        starts: The number of characters from the turn's start to its own words, and any note, by
            the kind, the text between the words before and its own, and how its message begins. If
            the turn starts behind the whitespace at the beginning of that text, the key is without.
    """

    is_certain: bool
    shown: set[tuple[Kind, str]] = attrs.field(factory=set)
    of_probes: dict[tuple[str, str], str] = attrs.field(factory=dict)
    headers: dict[Kind, str] = attrs.field(factory=dict)
    switched: dict[Kind, dict[Kind, str]] = attrs.field(factory=dict)
    starts: dict[tuple[Kind, Kind], tuple[int, TurnNote | None]] = attrs.field(factory=dict)

    def for_another_chat(self) -> KnownStarts:
        """Returns what is known of a chat whose prompts may differ from those of others."""
        return KnownStarts(is_certain=False, of_probes=self.of_probes)

    def show(self, shown: tuple[Kind, str]) -> None:
        """Keeps a place where a prompt was rendered, and forgets the others if there are many."""
        if len(self.shown) >= _MOST_STARTS:
            self.shown.clear()
        self.shown.add(shown)

    def keep(self, kind: Kind, written: Kind, length: int, note: TurnNote | None) -> None:
        """Keeps the start of a turn, and forgets the others when there are too many."""
        if len(self.starts) >= _MOST_STARTS:
            self.starts.clear()
        self.starts[kind, written] = length, note

    def headers_of(self, kind: Kind) -> Iterator[str]:
        """Yields all headers that turns of a kind may have."""
        if kind in self.headers:
            yield self.headers[kind]
        yield from self.switched.get(kind, {}).values()

    @property
    def all_headers(self) -> set[str]:
        """The headers of all kinds."""
        return set().union(
            *(some.values() for some in (self.of_probes, self.headers, *self.switched.values()))
        )


@attrs.frozen(kw_only=True, eq=False)
class TurnHeaders:
    """What stands before the assistant turns of one traced rendering.

    Args:
        conversation: The conversation.
        trace: Its rendering.
        render: Renders a conversation: `render(conversation, marks, upto=None)`.
        probe: The same, for conversations of fixed words.
        vocabulary: The tokenizer's tokens.
        stop_tokens: The tokens that may end a turn.
        structure: The purposes of the template's control tokens.
        ends_with_words: Whether a turn that no token ends is ended by its words.
        switches: A function that returns values of the template's switch for thinking, of which one
            may make the generation prompt agree with a turn.
        is_of_prompts: Whether a variable of the template decides about generation prompts alone.
        known: What is known of turns of each kind.
        notes: What is unusual about turns that were found, by their message.
        apart: The turns whose starts depend on the whole chat, as they differ from their prompt.
        starts: The starts of those, as in `KnownStarts`, by whether they are the last turn, too.
        keeps: Whether the chat is rendered the same with other values of variables.
        uncertain: Why turns begin or end at an unknown place, by their message.
    """

    conversation: Conversation
    trace: MarkedText
    render: Render
    probe: Render
    vocabulary: Vocabulary
    stop_tokens: Sequence[str]
    structure: Structure
    ends_with_words: bool = False
    switches: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    is_of_prompts: Callable[[str], bool] = attrs.field(default=lambda _: False)
    known: KnownStarts = attrs.field(factory=lambda: KnownStarts(is_certain=False))
    notes: dict[int, TurnNote] = attrs.field(factory=dict, init=False)
    apart: set[int] = attrs.field(factory=set, init=False)
    starts: dict[Any, tuple[int, TurnNote | None]] = attrs.field(factory=dict, init=False)
    keeps: dict[Any, bool] = attrs.field(factory=dict, init=False)
    uncertain: dict[int, LabelError] = attrs.field(factory=dict, init=False)

    @cached_property
    def last_turn(self) -> int:
        """The last turn of the prompt; -1 if a question follows it, as it does earlier turns."""
        for k, message in reversed([*enumerate(self.conversation.messages)]):
            if message.role == "user":
                break
            if message.is_assistant and not (message.is_prefix or self.trace.is_left_out(k)):
                return k
        return -1

    def of_another(self: Finder, conversation: Conversation) -> Finder | None:
        """Returns a finder of the turns of another conversation, or `None` if it has no trace.

        Args:
            conversation: The conversation, with the same messages but for what they hold.
        """
        trace = self._read(conversation)
        known = KnownStarts(is_certain=False)
        if trace is None:
            return None
        return attrs.evolve(
            self, conversation=conversation, trace=trace, known=known, switches=tuple
        )

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
        if slot.message >= 0 and self.conversation.messages[slot.message].role not in GLOBAL_ROLES:
            return False
        self.notes[-1] = TurnNote("moved")
        return True

    def _render_with(
        self,
        variables: Mapping[str, Any],
        conversation: Conversation,
        marks: Marks | None,
        render: Render | None = None,
        **more: Any,
    ) -> str:
        """Renders a conversation with further template variables."""
        if variables:
            given = {**conversation.template_kwargs, **variables}
            conversation = attrs.evolve(conversation, template_kwargs=given)
        return (render or self.render)(conversation, marks, **more)

    def _kept_whitespace(self, k: int) -> int:
        """Returns how much whitespace before turn `k`'s first word is its own."""
        if self._without_leading_space(k) == self.conversation.messages[k]:
            return 0
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
        """The rendering without the whitespace before the first words of answers.

        An answer of whitespace keeps it, as it stands between the words of other messages.
        """
        messages = self.conversation.messages
        bare = (
            self._without_leading_space(k) if message.is_assistant and self.trace.of(k) else message
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
        form = before.role, before.is_string, parts[-1:], tuple(before.extra)
        return *form, silent, anchor is None

    def _shown_text(self, k: int, anchor: Slot | None, written: str) -> str:
        """Returns what stands before turn `k` without strings of messages, such as identifiers."""
        strings: set[str] = set()

        def keep(string: str) -> str:
            strings.add(string)
            return string

        for message in self.conversation.messages[max(anchor.message, 0) if anchor else 0 : k + 1]:
            map_strings(message.extra, keep, keep)
        for string in sorted(filter(None, strings), key=len, reverse=True):
            written = written.replace(string, "")
        return written.strip()

    def _own_beginning(self, k: int) -> Kind:
        """Returns what may decide whose the whitespace before the words of turn `k` is."""
        message = self.conversation.messages[k]
        first = next(iter(message.content), None)
        text = first.text if isinstance(first, TextPart) else None
        texts = {key: value for key, value in message.extra.items() if isinstance(value, str)}
        spaces = {key: value[: len(value) - len(value.lstrip())] for key, value in texts.items()}
        space = None if text is None else text[: len(text) - len(text.lstrip())]
        return message.is_string, space, tuple(message.extra), tuple(spaces.items())

    def _is_repeated(self, k: int) -> bool:
        """Returns whether what is known of the kind of turn `k` holds for it as well."""
        return self.known.is_certain or k not in self._last_of_kinds

    @cached_property
    def _last_of_kinds(self) -> frozenset[int]:
        """The last turn of each kind, whose prompt is rendered to prove what the first showed."""
        return frozenset({self._kind(k): k for k in self._turns}.values())

    @cached_property
    def _first_of_kinds(self) -> Mapping[Kind, int]:
        """The first turn of each kind."""
        return {self._kind(k): k for k in reversed(self._turns)}

    @property
    def _turns(self) -> list[int]:
        return [k for k, m in enumerate(self.conversation.messages) if m.is_assistant]

    def _known_header(self, kind: Kind, written: str) -> str | None:
        """Returns what is known of the generation prompt of a turn before which `written` stands.

        It, or that with another value of a variable, stands there behind the whitespace of the
        words before.
        """
        header = self.known.headers.get(kind)
        if header is None or written.startswith(header) or not header.strip():
            return header if header is not None and written.startswith(header) else None
        space = space_at_start(written)
        known = self.known.headers_of(kind)
        is_found = any(written.startswith(space + text.lstrip()) for text in known if text.strip())
        return space + header.lstrip() if is_found else None

    def _header(self, k: int, anchor: Slot | None, where: str, variables: Mapping[str, Any]) -> str:
        """Returns the template's text between earlier messages and answer `k`."""
        marks = self.trace.marks.renewed()
        try:
            prompt = marks.read(self._render_with(variables, self.conversation, marks, upto=k))
        except SampleError as error:
            raise NoPromptError(
                f"the prompt before this turn cannot be rendered ({error.problem})", where=where
            ) from error
        if prompt is None:
            raise LabelError("the template reorders the messages before this turn", where=where)
        found = prompt.find(anchor.number) if anchor else None
        if anchor is not None and found is None:
            raise NoPromptError(
                "the template omits messages before this turn from the prompt", where=where
            )
        return prompt.text[found.end if found else 0 :]

    def _read(self, conversation: Conversation, upto: int | None = None) -> MarkedText | None:
        marks: Marks = self.trace.marks.renewed()
        return marks.read(self.render(conversation, marks, upto=upto))


def unwritten(header: str, written: str) -> str:
    """Returns the end of a header that a template does not write before the words of a turn.

    Args:
        header: The header, which begins with the whole of `written` or inside it.
        written: What the template writes before the words.
    """
    if header.startswith(written):
        return header[len(written) :]
    sizes = range(min(len(header), len(written)), 0, -1)
    return next((header[size:] for size in sizes if written.endswith(header[:size])), "")


def space_at_start(text: str) -> str:
    """Returns the whitespace that a text begins with."""
    return text[: len(text) - len(text.lstrip())]


def space_at_end(text: str) -> str:
    """Returns the whitespace that a text ends with."""
    return text[len(text.rstrip()) :]


def _without_leading_space(message: Message, key: str) -> Message:
    """Returns the message without whitespace before its first word, at `key`."""
    if isinstance(message.extra.get(key), str):
        return attrs.evolve(message, extra={**message.extra, key: message.extra[key].lstrip()})
    parts = list(message.content)
    i = next((i for i, p in enumerate(parts) if isinstance(p, TextPart)), None)
    if i is not None:
        parts[i] = TextPart(parts[i].text.lstrip())  # type: ignore[union-attr]  # found as such
    return attrs.evolve(message, content=tuple(parts))
