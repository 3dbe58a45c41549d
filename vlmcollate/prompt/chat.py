"""From a conversation to the prompt, knowing which characters came from which message.

The chat template is rendered a second time with every string of the caller's wrapped in a pair of
private-use characters. Where the two renderings agree but for those characters, the pairs tell
exactly what the template did with each string: where it stands, whether it was dropped, and which
text is the template's own. Nothing that a message says can imitate them.

An assistant turn runs from the first character that the model has to produce to the end of its stop
token. The first is found by rendering the messages before the turn with a generation prompt: as far
as that goes, the template has written the text, and the model writes what follows.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from typing import Any

import attrs

from vlmcollate import plain_values
from vlmcollate.conversation import Conversation, MediaKind, Message, TextPart
from vlmcollate.errors import ConfigError, ConversationError, LabelError, MediaMismatchError
from vlmcollate.formats import read_example
from vlmcollate.prompt.marks import MarkedText, Marks, Place, Span, template_inputs
from vlmcollate.prompt.structure import Structure, StructureReader
from vlmcollate.prompt.templates import (
    TEMPLATE_ERRORS,
    chat_template_of,
    is_template_error,
    prompt_is_constant,
    tested_literals,
    wants_strings,
)
from vlmcollate.prompt.turns import TurnFinder
from vlmcollate.tokens.vocabulary import Vocabulary


@attrs.frozen
class MediaSpan(Span):
    """A placeholder that the template wrote."""

    kind: MediaKind = "image"


@attrs.frozen(kw_only=True)
class Rendering:
    """The prompt of one conversation, and where everything in it came from.

    Attributes:
        text: The prompt, with one placeholder a media item.
        caller_spans: The caller's strings in the prompt, in order of appearance.
        media: The placeholders in order.
        turns: The assistant turns in order, each to the end of its stop token.
        turn_error: Why the turns are not known; then `turns` is empty.
        dropped: The paths of the strings that the template left out.
        altered: The paths of those that it wrote in another way than they were given, as after
            cutting out a part; whitespace and the escapes of JSON apart.
    """

    text: str
    caller_spans: tuple[Span, ...]
    media: tuple[MediaSpan, ...] = ()
    turns: tuple[Span, ...] = ()
    turn_error: LabelError | None = None
    dropped: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()


def _plain_variables(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        read = plain_values.plain(variables, "template_kwargs", keep_missing=True)
    except ConversationError as error:
        raise ConfigError(str(error)) from error
    return dict(read)


@attrs.frozen(kw_only=True, eq=False)
class ChatRenderer:
    """Renders conversations with a processor's chat template.

    Args:
        processor: A `transformers` processor with a chat template.
        placeholders: The text that the template writes for each kind of media.
        stop_tokens: The tokens that may end an assistant turn.
        template_kwargs: Template variables for every conversation; a conversation's own come first.
        string_content_with_media: Whether a template that takes strings gets the placeholders in
            them.
        prompt_prefix: What stands before the prompt where the template does not write it.
        last_turn_end: What ends an assistant turn at the end of a conversation, if only the marker
            of the next role ends the others and the template leaves the last one open.
        answer_end: What ends every assistant turn, where the template ends none.
        media_tokens: The tokens that stand for media features.
    """

    processor: Any
    placeholders: Mapping[MediaKind, str]
    stop_tokens: Sequence[str]
    template_kwargs: Mapping[str, Any] = attrs.field(factory=dict, converter=_plain_variables)
    string_content_with_media: bool = False
    prompt_prefix: str = ""
    last_turn_end: str = ""
    answer_end: str = ""
    media_tokens: Collection[str] = ()
    _plans: dict[Any, _Plan] = attrs.field(factory=dict, init=False)
    _structures: dict[Any, Structure] = attrs.field(factory=dict, init=False)
    _as_text: dict[Any, frozenset[str]] = attrs.field(factory=dict, init=False)

    def __call__(self, conversation: Conversation) -> Rendering:
        """Renders one conversation.

        Raises:
            ConversationError: The template refuses the conversation, or mixes its strings with its
                own logic so that they cannot be separated.
            MediaMismatchError: The template wrote more or fewer placeholders than there are media.
        """
        template = chat_template_of(self.processor)
        plain = self.render(conversation, None, template=template)
        key = self._key(conversation, template)
        plan = self._plans.get(key)
        rendering = plan.fill(conversation, plain) if plan is not None else None
        if rendering is not None:
            return rendering
        trace = self._trace(conversation, plain, template)
        rendering = self._place(conversation, trace)
        is_certain = rendering.turn_error is None and not trace.marks.splits
        if plan is None and is_certain and prompt_is_constant(template):
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[key] = _Plan.of(trace, rendering)
        return rendering

    def render(
        self,
        conversation: Conversation,
        marks: Marks | None,
        *,
        upto: int | None = None,
        template: str = "",
    ) -> str:
        """The prompt; with `upto`, that of the messages before it and a generation prompt."""
        if not hasattr(self.processor, "apply_chat_template"):
            raise ConfigError(
                f"{type(self.processor).__name__} has no chat template; use a label strategy that "
                "needs none, such as the collator's default"
            )
        chat, tools = self.inputs(conversation, marks, template)
        variables = {**self.template_kwargs, **conversation.template_kwargs}
        try:
            text = self.processor.apply_chat_template(
                chat[:upto],
                tools=tools,
                add_generation_prompt=upto is not None,
                **(variables if marks is None else marks.guard(variables)),
            )
        except TEMPLATE_ERRORS as error:
            # the row's variables may take names that the call itself gives
            is_taken = conversation.template_kwargs and "multiple values for" in str(error)
            if not is_taken and not is_template_error(error):
                raise
            raise ConversationError(
                f"the chat template refuses this conversation: {error}"
            ) from error
        if not isinstance(text, str):
            raise ConversationError(
                f"the chat template gave {type(text).__name__} and not text; variables must not "
                "hold options of apply_chat_template, such as tokenize",
                where="chat_template_kwargs",
            )
        return self.completed(text, conversation, upto=upto)

    def inputs(
        self, conversation: Conversation, marks: Marks | None = None, template: str = ""
    ) -> tuple[list[dict[str, Any]], Any]:
        """The messages and tools as the chat template takes them."""
        template = template or chat_template_of(self.processor)
        return template_inputs(
            conversation,
            marks,
            as_text=self._roles_as_text(template, {m.role for m in conversation.messages}),
            placeholders=self.placeholders if self.string_content_with_media else None,
            answer_end=self.answer_end if self._leaves_turns_open else "",
        )

    def _roles_as_text(self, template: str, roles: Set[str]) -> frozenset[str]:
        """The roles whose content the template takes as one string."""
        key = template, frozenset(roles)
        if key not in self._as_text:
            strings = (role for role in roles if wants_strings(self.processor, template, role))
            self._as_text[key] = frozenset(strings)
        return self._as_text[key]

    @property
    def structure(self) -> Structure:
        """Which control tokens are structure, read once for a template and its tokens."""
        vocabulary = Vocabulary.known(self.processor.tokenizer)
        key = chat_template_of(self.processor), vocabulary
        if key not in self._structures:
            self._structures.clear()
            self._structures[key] = self._read_structure(*key)
        return self._structures[key]

    def _read_structure(self, template: str, vocabulary: Vocabulary) -> Structure:
        named = self.processor.tokenizer.special_tokens_map
        options = getattr(self.processor, "__dict__", {})
        attributes = {k: v for k, v in options.items() if k != "chat_template"}
        words = [v for v in attributes.values() if isinstance(v, str)]
        return StructureReader(
            render=attrs.evolve(self, last_turn_end="", answer_end="").render,
            vocabulary=vocabulary,
            template=template if hasattr(self.processor, "apply_chat_template") else "",
            placeholders=self.placeholders,
            stop_tokens=self.stop_tokens,
            fixed={
                *self.media_tokens,
                *(named[name] for name in _NAMES if name in named),
                *vocabulary.pattern.findall(" ".join(words)),
            },
            named=[token for token in named.values() if isinstance(token, str)],
        )()

    def completed(self, text: str, conversation: Conversation, *, upto: int | None = None) -> str:
        """What the template wrote, with what it leaves out at the beginning and the end."""
        if not text.startswith(self.prompt_prefix):
            text = self.prompt_prefix + text
        if not self.last_turn_end or upto is not None or not self._leaves_turns_open:
            return text
        return text + self.last_turn_end if conversation.messages[-1].is_assistant else text

    @cached_property
    def _leaves_turns_open(self) -> bool:
        """Whether the template ends no turn at the end of a conversation."""
        if not self.last_turn_end and not self.answer_end:
            return False
        probe = [{"role": "user", "content": "Seven?"}, {"role": "assistant", "content": "Eight."}]
        bare = attrs.evolve(self, last_turn_end="", answer_end="").render(read_example(probe), None)
        return not bare.rstrip().endswith(tuple(self.stop_tokens))

    def _key(self, conversation: Conversation, template: str) -> tuple[Any, ...]:
        """All of a conversation but the words of its messages."""
        literals = tested_literals(template)
        shapes = tuple(_shape_of(message, literals) for message in conversation.messages)
        return template, repr((conversation.tools, conversation.template_kwargs)), shapes

    def _trace(self, conversation: Conversation, plain: str, template: str) -> MarkedText:
        vocabulary = Vocabulary.known(self.processor.tokenizer)
        literals = tested_literals(template)
        for splits in (False, True):
            marks = Marks(conversation, vocabulary.pattern, literals, splits=splits)
            trace = marks.read(self.render(conversation, marks))
            if trace is not None and trace.text == plain:
                return trace
        raise ConversationError(
            "the chat template changes what it writes with the words of a message, so its own text "
            "and the message's cannot be separated; simplify the message, or the template"
        )

    def _place(self, conversation: Conversation, trace: MarkedText) -> Rendering:
        finder = TurnFinder(
            conversation=conversation,
            trace=trace,
            render=self.render,
            vocabulary=Vocabulary.known(self.processor.tokenizer),
            stop_tokens=self.stop_tokens,
            structure=self.structure,
        )
        media = self._place_media(conversation, trace)
        turns: tuple[Span, ...] = ()
        turn_error = None
        try:
            turns = tuple(finder())
        except LabelError as error:
            turn_error = error
        return Rendering(
            text=trace.text,
            caller_spans=tuple(Span(s.start, s.end, s.message) for s in trace.slots),
            media=media,
            turns=turns,
            turn_error=turn_error,
            dropped=tuple(_dropped(conversation, trace, self._drops_tools(conversation, trace))),
            altered=tuple(dict.fromkeys(_altered(trace))),
        )

    def _drops_tools(self, conversation: Conversation, trace: MarkedText) -> bool:
        """Whether the prompt is the same without the tools."""
        if not conversation.tools:
            return False
        bare = attrs.evolve(conversation, tools=None)
        try:
            return self.render(bare, None) == trace.text
        except ConversationError:
            return False

    def _place_media(self, conversation: Conversation, trace: MarkedText) -> tuple[MediaSpan, ...]:
        found: list[tuple[int, int, MediaKind]] = []
        for kind, placeholder in self.placeholders.items():
            at = (m.span() for m in re.finditer(re.escape(placeholder), trace.text))
            found += [(a, b, kind) for a, b in at if not trace.is_given(a, b)]
        found.sort()
        media = list(conversation.media)
        if [kind for *_, kind in found] != [part.kind for _, part in media]:
            raise MediaMismatchError(
                f"the conversation holds {_count(p.kind for _, p in media)}, but the chat template "
                f"wrote placeholders for {_count(k for *_, k in found)}; it may not take media in "
                "these messages, or reorder them"
            )
        return tuple(
            MediaSpan(a, b, message, kind)
            for (a, b, kind), (message, _) in zip(found, media, strict=True)
        )


_MOST_PLANS = 4096
_NAMES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""The tokens that no template writes in the middle of an answer."""


@attrs.frozen(eq=False)
class _Plan:
    """The rendering of every conversation that differs from one in its words alone.

    Positions are kept as (slot, characters after its end), slot 0 being the prompt's beginning.
    """

    pieces: tuple[str, ...]
    places: tuple[Place, ...]
    media: tuple[tuple[MediaSpan, Any, Any], ...]
    turns: tuple[tuple[int, Any, Any], ...]
    dropped: tuple[str, ...]

    @classmethod
    def of(cls, trace: MarkedText, rendering: Rendering) -> _Plan:
        """The plan behind one rendering."""
        ends = [0, *(slot.end for slot in trace.slots)]
        starts = [*(slot.start for slot in trace.slots), len(trace.text)]

        def relative(char: int) -> tuple[int, int]:
            slot = bisect_right(ends, char) - 1
            return slot, char - ends[slot]

        return cls(
            pieces=tuple(trace.text[a:b] for a, b in zip(ends, starts, strict=True)),
            places=tuple(trace.marks.places[slot.number] for slot in trace.slots),
            media=tuple((m, relative(m.start), relative(m.end)) for m in rendering.media),
            turns=tuple((t.message, relative(t.start), relative(t.end)) for t in rendering.turns),
            dropped=rendering.dropped,
        )

    def fill(self, conversation: Conversation, plain: str) -> Rendering | None:
        """The rendering of another conversation, or `None` if its prompt comes out differently."""
        texts = [self.pieces[0]]
        ends = [0]
        given = []
        at = len(self.pieces[0])
        for place, piece in zip(self.places, self.pieces[1:], strict=True):
            core = place.core
            if place.part is not None:
                part = conversation.messages[place.message].content[place.part]
                core = part.text.strip() if isinstance(part, TextPart) else ""
            texts += [core, piece]
            given.append(Span(at, at + len(core), place.message))
            ends.append(at + len(core))
            at += len(core) + len(piece)
        if "".join(texts) != plain:
            return None
        return Rendering(
            text=plain,
            caller_spans=tuple(given),
            media=tuple(
                MediaSpan(ends[i] + a, ends[j] + b, span.message, span.kind)
                for span, (i, a), (j, b) in self.media
            ),
            turns=tuple(Span(ends[i] + a, ends[j] + b, k) for k, (i, a), (j, b) in self.turns),
            dropped=self.dropped,
        )


def _shape_of(message: Message, literals: re.Pattern[str]) -> tuple[Any, ...]:
    """A message without its words: all that a template can tell without reading them."""
    return (
        message.role,
        repr(message.extra),
        tuple(
            _shape_of_text(part.text, literals) if isinstance(part, TextPart) else part.kind
            for part in message.content
        ),
    )


def _shape_of_text(text: str, literals: re.Pattern[str]) -> tuple[Any, ...]:
    core = text.strip()
    at = text.index(core)
    return text[:at], bool(core), text[at + len(core) :], tuple(literals.findall(core))


def _dropped(conversation: Conversation, trace: MarkedText, no_tools: bool) -> Iterator[str]:  # noqa: FBT001
    """The paths of the strings that the template left out."""
    written = {slot.number for slot in trace.slots}
    places = enumerate(trace.marks.places)
    yield from dict.fromkeys(p.where for n, p in places if p.message >= 0 and n not in written)
    for i, tool in enumerate(conversation.tools or ()):
        name = tool.get("function", tool).get("name") if isinstance(tool, Mapping) else None
        if no_tools or (isinstance(name, str) and name not in trace.text):
            yield f"tools[{i}]"


def _altered(trace: MarkedText) -> Iterator[str]:
    """The paths of the strings that the template wrote, but never as they were given."""
    written: dict[int, list[str]] = {}
    for slot in trace.slots:
        written.setdefault(slot.number, []).append(trace.text[slot.start : slot.end])
    for number, texts in written.items():
        place = trace.marks.places[number]
        if place.message >= 0 and place.core not in texts:
            spellings = set(map(_without_space, _spellings(place.core)))
            if spellings.isdisjoint(map(_without_space, texts)):
                yield place.where


def _spellings(text: str) -> tuple[str, ...]:
    """A text as templates may write it inside JSON, or a value of Python's."""
    inside = json.dumps(text)[1:-1]
    return text, inside, json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]


def _without_space(text: str) -> str:
    return "".join(text.split())


def _count(kinds: Iterable[MediaKind]) -> str:
    listed = list(kinds)
    counts = [f"{listed.count(k)} {k}(s)" for k in dict.fromkeys(listed)]
    return " and ".join(counts) or "no media"
