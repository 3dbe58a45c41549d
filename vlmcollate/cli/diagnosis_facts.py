"""The facts about a chat template that its probe chats show."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from vlmcollate.cli.diagnosis_chats import NAMES, QUESTION
from vlmcollate.cli.diagnosis_values import Fact, Probe
from vlmcollate.encode.off_prompt import lacking_prompt
from vlmcollate.errors import CollateError
from vlmcollate.formats import read_example
from vlmcollate.prompt.call_arguments import prints_dicts
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.prompt.template_syntax import switches_of
from vlmcollate.prompt.turn_ends import agreement
from vlmcollate.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator

_OFF_PROMPT = "turns off their prompt"
_SPLIT = "set split_turns=True to train each turn as it is prompted, with its own reasoning"
_WRITES = "use a chat template that writes {}"
_EARLIER, _LATER = "messages[1].reasoning", "messages[3].reasoning"
_OMISSIONS = (
    ("a system message", ("messages[0]",), "the system message", "write it into the question"),
    ("reasoning", (_EARLIER, _LATER), "all reasoning", _WRITES.format("reasoning_content")),
    ("reasoning", (_EARLIER,), "the reasoning of earlier turns", _SPLIT),
    ("a tool call", ("tools",), "the descriptions of tools", "write them into the question"),
    ("a tool call", ("messages[1]",), "tool calls", _WRITES.format("tool_calls")),
    ("a tool call", ("messages[2]",), "the results of tools", "write them as a question"),
    ("text before a tool call", ("messages[1].content",), "text before a tool call", "remove it"),
)
"""What may be omitted: the kind of chat, the beginnings of all paths, its name and what to do."""


def facts_of(collator: BaseCollator, probes: Mapping[str, Sequence[Probe]]) -> Iterator[Fact]:
    """Yields what a chat template does, in the order of a report.

    Args:
        collator: The collator.
        probes: The kinds of chat with their samples.
    """
    ends = [text for found in probes.values() for probe in found for text in _trained_texts(probe)]
    if _has_template(collator):
        yield _turn_end(collator)
    else:
        stops = [t for t in collator.renderer.stop_tokens if any(e.endswith(t) for e in ends)]
        text = ", ".join(map(repr, stops)) or "no token"
        yield Fact(topic="end of a turn", text=f"{text}; this model has no chat template")
    yield from _trained_end(collator, ends)
    yield from _omissions(probes)
    yield from _refused_turns(collator, probes)
    yield from _turns(collator, probes)
    if _has_template(collator):
        yield from _switches(collator)
        if prints_dicts(collator.processor):
            text = "a dict is written as Python does, with single quotes"
            remedy = "give the arguments as a JSON string"
            yield Fact(topic="arguments of calls", text=text, remedy=remedy, level="choice")
    refused = [chat for chat, found in probes.items() if any(probe.error for probe in found)]
    if refused:
        text = f"{', '.join(refused)}; the reasons are below"
        yield Fact(topic="refused chats", text=text, level="loss")


def _has_template(collator: BaseCollator) -> bool:
    return collator.declared.render is None and hasattr(collator.processor, "apply_chat_template")


def _trained_texts(probe: Probe) -> list[str]:
    runs = probe.explanation.runs if probe.explanation is not None else ()
    return [run.text for run in runs if run.kind == "trained"]


def _turn_end(collator: BaseCollator) -> Fact:
    renderer, topic = collator.renderer, "end of a turn"
    if renderer.answer_end:
        text = f"no token of the template; {renderer.answer_end!r} is written behind each answer"
        return Fact(topic=topic, text=text)
    if renderer.ends_with_words:
        return Fact(topic=topic, text='no token, since unclosed_turns is "content_only"')
    if renderer.turn_ends.are_open:
        remedy = 'set unclosed_turns to "append_eos" or "content_only"'
        return Fact(topic=topic, text="words alone, no token", remedy=remedy, level="loss")
    ends = ", ".join(map(repr, renderer.turn_ends.tokens or renderer.stop_tokens))
    last = renderer.last_turn_end
    if last:
        ends += f", which begins the next turn; {last!r} is written behind the last answer"
    return Fact(topic=topic, text=ends)


def _trained_end(collator: BaseCollator, trained: Sequence[str]) -> Iterator[Fact]:
    """Yields whether the ends of turns train, unless every chat is refused."""
    topic, stops = "training of the end", tuple(collator.renderer.stop_tokens)
    if not trained:
        return
    if stops and all(text.endswith(stops) for text in trained):
        yield Fact(topic=topic, text="it trains, so the model learns to stop")
    else:
        remedy = 'set unclosed_turns="append_eos", or stop_tokens=[...]'
        text = "it does not train, so the model does not learn to stop"
        yield Fact(topic=topic, text=text, remedy=remedy, level="choice")


def _omissions(probes: Mapping[str, Sequence[Probe]]) -> Iterator[Fact]:
    """Yields what the template omits or shortens; nothing inside of what is omitted."""
    topic = "omitted"
    done: set[tuple[str, str]] = set()
    for chat, paths, name, remedy in _OMISSIONS:
        found = [probe.rendering for probe in probes[chat] if probe.rendering is not None]
        lost = {where for prompt in found for where in (*prompt.dropped, *prompt.altered)}
        is_lost = all(any(where.startswith(path) for where in lost) for path in paths)
        if is_lost and done.isdisjoint((chat, path) for path in paths):
            done.update((chat, path) for path in paths)
            yield Fact(topic=topic, text=name, remedy=remedy, level="loss")
    prompt = probes["names"][-1].rendering
    if prompt is not None and not any(name in prompt.text for name in NAMES):
        remedy = "write them into the text if they matter"
        yield Fact(topic=topic, text="the names of authors", remedy=remedy, level="choice")
    elif not done and prompt is not None:
        yield Fact(topic=topic, text="nothing")


def _refused_turns(collator: BaseCollator, probes: Mapping[str, Sequence[Probe]]) -> Iterator[Fact]:
    """Yields that last turns are refused, since they lack the end of their prompt."""
    refused = [
        (chat, probe.rendering)
        for chat, found in probes.items()
        for probe in found
        if probe.error and probe.rendering is not None
    ]
    notes = {chat: lacking_prompt(rendering) for chat, rendering in refused}
    ends = dict.fromkeys(repr(note.detail) for note in notes.values() if note is not None)
    if not ends:
        return
    switch = _agreeing_switch(collator, probes[next(iter(notes))][0].example)
    yield Fact(
        topic=_OFF_PROMPT,
        text=f"last answers without {' or '.join(ends)}, which ends the generation prompt, are "
        f"refused (in {_named(notes, len(probes))})",
        remedy=f"{switch or 'use a chat template whose turns and prompt agree'}, or set "
        'off_prompt="train" to train them',
        level="loss",
    )


def _named(chats: Collection[str], total: int) -> str:
    return ", ".join(chats) if len(chats) < 3 else f"{len(chats)} of {total} chats"


def _turns(collator: BaseCollator, probes: Mapping[str, Sequence[Probe]]) -> Iterator[Fact]:
    """Yields how turns train otherwise than they are prompted."""
    samples = [(chat, probe) for chat, found in probes.items() for probe in found]
    explained = [(chat, probe.explanation) for chat, probe in samples if probe.explanation]
    if not explained:
        return
    is_refused = any(probe.error and probe.rendering is not None for _, probe in samples)
    kinds: dict[str, tuple[Any, list[str]]] = {}
    for chat, explanation in explained:
        for note in explanation.turn_notes:
            kinds.setdefault(note.kind, (note, []))[1].append(chat)
    if kinds.keys().isdisjoint(("off_prompt", "no_prompt")) and not is_refused:
        yield Fact(topic=_OFF_PROMPT, text="none: each follows its generation prompt")
    for note, found in kinds.values():
        chats = list(dict.fromkeys(found))
        text = f"{note.summary} (in {_named(chats, len(dict(explained)))})"
        remedy = note.remedy
        if note.kind == "off_prompt" and note.has_last:
            remedy = _agreeing_switch(collator, probes[chats[0]][0].example) or remedy
        yield Fact(topic=note.topic, text=text, remedy=remedy, level="choice")


def _agreeing_switch(collator: BaseCollator, example: Mapping[str, Any]) -> str:
    """Returns the value of a switch with which no turn lacks the end of its prompt, or ""."""
    for switch in switches_of(chat_template_of(collator.processor)):
        changed = attrs.evolve(collator, template_kwargs={**collator.template_kwargs, **switch})
        try:
            notes = [note for each in changed.explain_all(example) for note in each.turn_notes]
        except CollateError:
            continue
        if all(note.kind != "off_prompt" for note in notes):
            return f"set template_kwargs={dict(switch)!r}, for generation, too"
    return ""


def _switches(collator: BaseCollator) -> Iterator[Fact]:
    """Yields what each value of the template's switches for thinking changes."""
    values: dict[str, list[Any]] = {}
    for switch in switches_of(chat_template_of(collator.processor)):
        for name, value in switch.items():
            values.setdefault(name, []).append(value)
    topic = "switch for thinking"
    if not values:
        yield Fact(topic=topic, text="none")
        return
    default = _prompt(collator, {})
    for name, listed in values.items():
        effects: dict[str, list[Any]] = {}
        for value in listed:
            prompt = _prompt(collator, {name: value})
            if prompt not in ("", default):
                effect = _effect(prompt, default, Vocabulary.known(collator.processor.tokenizer))
                effects.setdefault(effect, []).append(value)
        parts = [f"{' or '.join(map(repr, vs))} {effect}" for effect, vs in effects.items()]
        text = f"{name}: {'; '.join(parts) or 'no value changes the prompt of a question'}"
        first = next(iter(effects.values()), [None])[0]
        remedy = f"set template_kwargs={{{name!r}: {first!r}}}" if effects else ""
        yield Fact(topic=topic, text=text, remedy=remedy)


def _prompt(collator: BaseCollator, variables: Mapping[str, Any]) -> str:
    """Returns the generation prompt behind a question; empty if the template refuses it."""
    question = attrs.evolve(read_example([QUESTION]), template_kwargs=dict(variables))
    try:
        return collator.renderer.render(question, None, upto=1)
    except CollateError:
        return ""


def _effect(prompt: str, default: str, vocabulary: Vocabulary) -> str:
    """Returns what a prompt has that is different by default."""
    behind, usual = (text.rpartition(QUESTION["content"])[2] for text in (prompt, default))
    if behind == usual:
        return "changes the text before the question"
    same = agreement([*behind], [*usual])
    tokens = [m for text in (behind, usual) for m in vocabulary.pattern.finditer(text)]
    same = min([same, *(m.start() for m in tokens if m.start() < same < m.end())])
    written, instead = behind[same:], usual[same:]
    if not instead:
        return f"adds {written!r} to the generation prompt"
    if not written:
        return f"removes {instead!r} from the generation prompt"
    return f"writes {written!r} instead of {instead!r} in the generation prompt"
