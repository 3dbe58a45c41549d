"""Renders conversations with a chat template, and traces each character.

The chat template is rendered a second time with each string of the conversation wrapped in a pair
of private-use characters. If the two renderings are the same except for those characters, the pairs
show where the template wrote each string, which strings it omitted, and which text it added. No
text of a message can imitate them.

An assistant turn begins with the first character that the model has to generate and ends with its
stop token. The beginning is found by rendering the messages before the turn with a generation
prompt, after which the model generates.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import cached_property, partial
from typing import Any

import attrs

from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.errors import ConfigError, ConversationError
from vlmcollate.formats import read_example
from vlmcollate.prompt.call_arguments import in_form_for
from vlmcollate.prompt.direct import TEMPLATE_ERRORS, chat_template_of, render_directly
from vlmcollate.prompt.literals import refuse_tested_literals, unbranched, unmarked_literals
from vlmcollate.prompt.marks import MarkedText, Marks, template_inputs
from vlmcollate.prompt.media_spans import media_spans
from vlmcollate.prompt.omissions import altered_strings, dropped_strings, names_tools
from vlmcollate.prompt.placing import with_turns
from vlmcollate.prompt.plan import RenderingPlan, form_of, shapes_of
from vlmcollate.prompt.probe_cache import ProbeCache
from vlmcollate.prompt.rendering import CallerSpan, Rendering, without_end
from vlmcollate.prompt.structure import Structure, StructureReader
from vlmcollate.prompt.template_syntax import is_of_prompts, other_switches_of, prompt_is_constant
from vlmcollate.prompt.templates import (
    TemplateInput,
    apply_template,
    apply_to_probe,
    plain_variables,
    silence_of,
    unseparable,
    wants_lists,
    wants_strings,
)
from vlmcollate.prompt.turn_ends import TurnEnds, read_turn_ends
from vlmcollate.prompt.turn_headers import KnownStarts
from vlmcollate.prompt.turns import TurnFinder
from vlmcollate.tokens.identity_cache import IdentityCache
from vlmcollate.tokens.vocabulary import Vocabulary


@attrs.frozen(kw_only=True, eq=False)
class ChatRenderer:
    """Renders conversations with a processor's chat template.

    Args:
        processor: A `transformers` processor with a chat template.
        placeholders: The text that the template writes for each kind of media.
        stop_tokens: The tokens that may end an assistant turn.
        template_kwargs: Template variables for every conversation; a conversation's own override
            them.
        string_content_with_media: Whether content that is passed as one string includes the
            placeholders.
        prompt_prefix: The text before the prompt, if the template does not write it.
        last_turn_end: The text that ends the last assistant turn, if the template leaves it open
            and ends the others with the marker of the next role.
        answer_end: The text that ends every assistant turn, if the template ends none.
        ends_with_words: Whether a turn ends with its words, if the template ends none.
        media_tokens: The tokens that stand for media features.
        probes: What the template makes of probe chats.
    """

    processor: Any
    placeholders: Mapping[MediaKind, str]
    stop_tokens: Sequence[str]
    template_kwargs: Mapping[str, Any] = attrs.field(factory=dict, converter=plain_variables)
    string_content_with_media: bool = False
    prompt_prefix: str = ""
    last_turn_end: str = ""
    answer_end: str = ""
    ends_with_words: bool = False
    media_tokens: Collection[str] = ()
    probes: ProbeCache = attrs.field(factory=ProbeCache, repr=False)
    _plans: dict[Any, RenderingPlan | None] = attrs.field(factory=dict, init=False)
    _starts: dict[Any, KnownStarts] = attrs.field(factory=dict, init=False)
    _known_forms: dict[Any, _Forms] = attrs.field(factory=dict, init=False)
    _proven: set[Any] = attrs.field(factory=set, init=False)

    def __call__(self, conversation: Conversation) -> Rendering:
        """Renders one conversation.

        Raises:
            ConversationError: The template refuses the conversation, or its own text depends on
                the conversation's strings, so that the two cannot be separated.
            MediaMismatchError: The template wrote more or fewer placeholders than there are media.
        """
        template = chat_template_of(self.processor)
        may_plan = prompt_is_constant(template) and not conversation.messages[-1].is_prefix
        key = self._key(conversation, template) if may_plan else None
        plan = self._plans.get(key)
        if plan is not None:  # it was made of the processor's own prompt, so it proves others
            direct = self._render_directly(conversation, None)
            rendering = None if direct is None else plan.fill(conversation, direct)
            if rendering is not None:
                return rendering
        try:
            plain = self._plain(conversation)
        except ConversationError as error:
            refuse_tested_literals(conversation, None, self.render, template, error.problem)
            raise
        rendering = plan.fill(conversation, plain) if plan is not None else None
        if rendering is not None:
            return rendering
        trace, is_direct = self._trace(conversation, plain, template)
        if is_direct:
            self._proven.add(form_of(conversation, template))
        rendering = self._place(conversation, trace, template, is_direct=is_direct)
        if conversation.messages[-1].is_prefix:
            return without_end(rendering, conversation)
        is_certain = not (rendering.turn_error or rendering.altered or trace.marks.literals)
        if plan is None and is_certain and may_plan:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            headers = self._known_starts(conversation, template).all_headers
            self._plans[key] = RenderingPlan.of(trace, rendering, headers)
        return rendering

    def render(
        self,
        conversation: Conversation,
        marks: Marks | None,
        *,
        upto: int | None = None,
        template: str = "",
        is_probe: bool = False,
    ) -> str:
        """Returns the prompt, or that of `upto` messages with a generation prompt.

        Args:
            conversation: The conversation.
            marks: The marks around its strings.
            upto: The number of its messages before the generation prompt.
            template: The chat template; by default it is that of the processor.
            is_probe: Whether the prompt is kept for others who render the same conversation.
        """
        if not hasattr(self.processor, "apply_chat_template"):
            raise ConfigError(
                f"{type(self.processor).__name__} has no chat template; use a label strategy that "
                "needs none, such as the collator's default"
            )
        if upto == 0:
            raise ConversationError("no message precedes the turn, and templates need one")
        template = template or chat_template_of(self.processor)
        given = self._given(conversation, marks, template, upto)
        applied = apply_to_probe if is_probe else apply_template
        apply = partial(applied, self.processor, conversation, given)
        text = self.probes.get_or_render((template, *given), apply) if is_probe else apply()
        return self.completed(text, conversation, upto=upto)

    @property
    def probe(self) -> Callable[..., str]:
        """The function `render` for conversations that several readers of a template render."""
        return partial(self.render, is_probe=True)

    def _plain(self, conversation: Conversation) -> str:
        """Renders as `render` does, without the processor if that agreed for such a chat."""
        is_proven = form_of(conversation, chat_template_of(self.processor)) in self._proven
        return (self._render_proven if is_proven else self.render)(conversation, None)

    def _render_directly(
        self, conversation: Conversation, marks: Marks | None, *, upto: int | None = None
    ) -> str | None:
        """Returns a prompt without the processor, or `None`; its marks or a plan prove it."""
        template = chat_template_of(self.processor)
        chat, tools, variables, asks = self._given(conversation, marks, template, upto)
        try:
            text = render_directly(self.processor, chat, tools, variables, asks=asks)
        except TEMPLATE_ERRORS:
            return None
        return None if text is None else self.completed(text, conversation, upto=upto)

    def _render_proven(
        self, conversation: Conversation, marks: Marks | None, *, upto: int | None = None
    ) -> str:
        """Renders as `render` does, but without the processor if it refuses nothing."""
        text = self._render_directly(conversation, marks, upto=upto) if upto != 0 else None
        return self.render(conversation, marks, upto=upto) if text is None else text

    def _given(
        self, conversation: Conversation, marks: Marks | None, template: str, upto: int | None
    ) -> TemplateInput:
        if upto is not None:
            conversation = attrs.evolve(conversation, messages=conversation.messages[:upto])
        chat, tools = self.inputs(conversation, marks, template)
        variables = {**self.template_kwargs, **conversation.template_kwargs}
        if marks is not None:
            variables = marks.guard(variables)
        return TemplateInput(chat, tools, variables, asks=upto is not None)

    def inputs(
        self, conversation: Conversation, marks: Marks | None = None, template: str = ""
    ) -> tuple[list[dict[str, Any]], Any]:
        """Returns the messages and tools as the chat template accepts them."""
        template = template or chat_template_of(self.processor)
        as_text, as_parts = self._forms(template, {m.role for m in conversation.messages})
        has_calls = any("tool_calls" in m.extra for m in conversation.messages)
        if has_calls:
            conversation = in_form_for(self.processor, template, conversation, marks)
        return template_inputs(
            conversation,
            marks,
            as_text=as_text,
            as_parts=as_parts,
            silence=silence_of(self.processor, template) if has_calls else (),
            placeholders=self.placeholders if self.string_content_with_media else None,
            answer_end=self.answer_end if self._leaves_turns_open else "",
        )

    def _forms(self, template: str, roles: Set[str]) -> _Forms:
        """Returns the roles whose content the template takes as a string only, and as a list."""
        key = template, frozenset(roles)
        if key not in self._known_forms:
            strings = (role for role in roles if wants_strings(self.processor, template, role))
            lists = (role for role in roles if wants_lists(self.processor, template, role))
            self._known_forms[key] = frozenset(strings), frozenset(lists)
        return self._known_forms[key]

    @property
    def structure(self) -> Structure:
        """The purposes of the control tokens, read once per processor, template and options."""
        vocabulary = Vocabulary.known(self.processor.tokenizer)
        template, words = chat_template_of(self.processor), self._attributes
        key = template, vocabulary, " ".join(words), self._options
        known = _STRUCTURES.get_or_make(self.processor, dict)
        if key not in known:
            if len(known) >= _MOST_STRUCTURES:
                known.clear()
            known[key] = self._read_structure(template, vocabulary, words)
        return known[key]

    @property
    def turn_ends(self) -> TurnEnds:
        """What the template itself writes behind answers, read once per processor."""
        vocabulary = Vocabulary.known(self.processor.tokenizer)
        key = chat_template_of(self.processor), vocabulary, self._options
        known = _TURN_ENDS.get_or_make(self.processor, dict)
        if key not in known:
            if len(known) >= _MOST_STRUCTURES:
                known.clear()
            bare = attrs.evolve(self, last_turn_end="", answer_end="")
            known[key] = read_turn_ends(bare.probe, vocabulary)
        return known[key]

    @property
    def _attributes(self) -> list[str]:
        """The strings among the processor's attributes, such as the names of its tokens."""
        attributes = getattr(self.processor, "__dict__", {}).items()
        return [v for k, v in attributes if isinstance(v, str) and k != "chat_template"]

    @cached_property
    def _options(self) -> str:
        """All options, as far as the structure depends on them."""
        placeholders, stops = dict(self.placeholders), tuple(self.stop_tokens)
        texts = self.string_content_with_media, self.prompt_prefix, self.last_turn_end
        media = sorted(self.media_tokens)
        return repr((placeholders, stops, self.template_kwargs, texts, self.answer_end, media))

    def _read_structure(self, template: str, vocabulary: Vocabulary, words: list[str]) -> Structure:
        named = self.processor.tokenizer.special_tokens_map
        template = template if hasattr(self.processor, "apply_chat_template") else ""
        return StructureReader(
            render=attrs.evolve(self, last_turn_end="", answer_end="").probe,
            vocabulary=vocabulary,
            template=template,
            asks_always=bool(template) and self.turn_ends.asks_always,
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
        """Returns the template's text with the missing prefix and end added."""
        if not text.startswith(self.prompt_prefix):
            text = self.prompt_prefix + text
        if not self.last_turn_end or upto is not None or not self._leaves_turns_open:
            return text
        last = conversation.messages[-1]
        return text + self.turn_ends.behind(last, self.last_turn_end, self.stop_tokens)

    @cached_property
    def _leaves_turns_open(self) -> bool:
        """Whether the template leaves the last turn of a conversation open."""
        if not self.last_turn_end and not self.answer_end:
            return False
        probe = [{"role": "user", "content": "Seven?"}, {"role": "assistant", "content": "Eight."}]
        bare = attrs.evolve(self, last_turn_end="", answer_end="").probe(read_example(probe), None)
        return not bare.rstrip().endswith(tuple(self.stop_tokens))

    def _key(self, conversation: Conversation, template: str) -> tuple[Any, ...]:
        """Returns everything about a conversation except its messages' words."""
        shapes = shapes_of(conversation, template)
        return template, repr((conversation.tools, conversation.template_kwargs)), shapes

    def _trace(
        self, conversation: Conversation, plain: str, template: str
    ) -> tuple[MarkedText, bool]:
        """Returns a marked rendering, and whether it needed no processor."""
        vocabulary = Vocabulary.known(self.processor.tokenizer)
        for render in (self._render_directly, self.render):
            for literals in unmarked_literals(conversation, template):
                marks = Marks(conversation, vocabulary.pattern, literals)
                text = render(conversation, marks)
                trace = None if text is None else marks.read(text)
                if trace is not None and trace.text == plain:
                    is_direct = render != self.render
                    again = self._render_proven if is_direct else self.render
                    return unbranched(trace, again, template), is_direct
        problem = "the chat template's own text depends on the words of a message"
        refuse_tested_literals(conversation, plain, self.render, template, problem)
        raise unseparable(conversation, plain, template)

    def _place(
        self, conversation: Conversation, trace: MarkedText, template: str, *, is_direct: bool
    ) -> Rendering:
        finder = TurnFinder(
            conversation=conversation,
            trace=trace,
            render=self._render_proven if is_direct else self.render,
            probe=self.probe,
            vocabulary=Vocabulary.known(self.processor.tokenizer),
            stop_tokens=self.stop_tokens,
            structure=self.structure,
            ends_with_words=self.ends_with_words,
            switches=partial(self._switches, conversation, template),
            is_of_prompts=partial(is_of_prompts, template),
            known=self._known_starts(conversation, template),
        )
        return with_turns(self.placed(conversation, trace), finder, template)

    def placed(self, conversation: Conversation, trace: MarkedText) -> Rendering:
        """Returns the rendering of a marked text, without its turns."""
        return Rendering(
            text=trace.text,
            caller_spans=tuple(
                CallerSpan(s.start, s.end, s.message, place.part, place.key)
                for s in trace.slots
                for place in (trace.marks.places[s.number],)
            ),
            media=media_spans(conversation, trace, self.placeholders),
            dropped=tuple(
                dropped_strings(conversation, trace, self._drops_tools(conversation, trace))
            ),
            altered=tuple(dict.fromkeys(altered_strings(trace))),
        )

    def _switches(self, conversation: Conversation, template: str) -> list[Mapping[str, Any]]:
        """Returns the values of switches for thinking that the user has not set."""
        chosen = {*self.template_kwargs, *conversation.template_kwargs}
        switches = other_switches_of(template)
        return [switch for switch in switches if chosen.isdisjoint(switch)]

    def _known_starts(self, conversation: Conversation, template: str) -> KnownStarts:
        """Returns what earlier chats with the same variables show of the starts of turns."""
        # SmolVLM's processor writes chats with videos by another template
        kinds = sorted({part.kind for _, part in conversation.media})
        key = template, repr((kinds, conversation.tools is None, conversation.template_kwargs))
        if key not in self._starts:
            if len(self._starts) >= _MOST_PLANS:
                self._starts.clear()
            self._starts[key] = KnownStarts(is_certain=prompt_is_constant(template))
        known = self._starts[key]
        return known if known.is_certain else known.for_another_chat()

    def _drops_tools(self, conversation: Conversation, trace: MarkedText) -> bool:
        """Returns whether the prompt is the same without the tools."""
        if not conversation.tools or names_tools(conversation, trace):
            return False
        template = chat_template_of(self.processor)
        if "tools" not in template and form_of(conversation, template) in self._proven:
            return True
        try:
            return self._plain(attrs.evolve(conversation, tools=None)) == trace.text
        except ConversationError:
            return False


_STRUCTURES = IdentityCache[dict[Any, Structure]]()
_TURN_ENDS = IdentityCache[dict[Any, TurnEnds]]()
_MOST_STRUCTURES = 64
_MOST_PLANS = 4096
_Forms = tuple[frozenset[str], frozenset[str]]
_NAMES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""The names of tokens that no template writes inside an answer."""
