"""Labels from the marker that opens an assistant turn and the token that closes it.

Shapes: B rows, T tokens per row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from vlmcollate.conversation import Conversation
from vlmcollate.errors import LabelError, SampleError
from vlmcollate.formats import read_example
from vlmcollate.labels.base import LabelContext, LabelStrategy, assistant_indices
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.prompt.encoder import EncodedPrompt, Turn
from vlmcollate.prompt.marks import REASONING_KEYS
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.tokens.identity_cache import IdentityCache
from vlmcollate.tokens.vocabulary import Ints, Vocabulary

_DEPTHS = range(1, 5)


def _said(role: str, text: str, reasoning: str = "") -> dict[str, Any]:
    extra = dict.fromkeys(REASONING_KEYS, reasoning) if reasoning else {}  # the template reads one
    return {"role": role, "content": [{"type": "text", "text": text}], **extra}


_PROBES = (
    [_said("user", "Seven?"), _said("assistant", "Eight.")],
    [
        _said("system", "Be brief."),
        _said("user", "A red door"),
        _said("assistant", "12 windows"),
        _said("user", "Why so many\n"),
        _said("assistant", "(light)"),
        _said("user", "Ok"),
        _said("assistant", "Sure thing"),
    ],
    [
        _said("user", "Look it up"),
        _said("assistant", "I will"),
        _said("tool", "found: 3"),
        _said("assistant", "Three"),
        _said("user", "Thanks!"),
        _said("assistant", "Gladly"),
    ],
)
_THINKING = [
    _said("user", "How far?"),
    _said("assistant", "9 miles", "By train"),
    _said("user", "And back"),
    _said("assistant", "As far", "The same way"),
]


@attrs.frozen
class TurnMarkers:
    """The token ids that open and close an assistant turn.

    Attributes:
        openers: One or more runs of ids; if two match, the longer one counts.
        stops: The ids that may end a turn.
        unfinished: Runs of ids that occur only if the newline at an opener's end was merged with
            the answer's first word.
        with_reasoning: Whether they hold for answers with reasoning, too. Those of gpt-oss do not.
    """

    openers: tuple[tuple[int, ...], ...]
    stops: tuple[int, ...]
    unfinished: tuple[tuple[int, ...], ...] = ()
    with_reasoning: bool = True

    def scan(self, input_ids: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Marks the assistant's tokens in ids, such as a pre-tokenized dataset's.

        Args:
            input_ids: (B, T) or (T,) int64.
            lengths: The number of tokens of each row without right padding, T by default.

        Returns:
            A bool tensor of the shape of `input_ids`.

        Raises:
            LabelError: A turn has no stop token, for example after truncation; or the first token
                of an answer was merged with its marker, so that the turn would be missed.
        """
        rows = np.atleast_2d(input_ids.numpy())
        mask = np.zeros(rows.shape, dtype=bool)
        for row, start, end in self._turns(rows, lengths):
            mask[row, start:end] = True
        return torch.from_numpy(mask).reshape(input_ids.shape)

    def turns(self, ids: Ints) -> list[tuple[int, int]]:
        """Returns the turns of one row, as (first token, token after the stop)."""
        return [(a, b) for _, a, b in self._turns(ids[None], None)]

    def _turns(self, rows: Ints, lengths: Sequence[int] | None) -> Iterator[tuple[int, int, int]]:
        width = rows.shape[1]
        flat = np.ascontiguousarray(rows).reshape(-1)
        stops = np.flatnonzero(reduce(np.logical_or, [flat == stop for stop in self.stops]))
        starts = self._starts(flat, width)
        ends = np.searchsorted(stops, starts)
        done = -1
        for start, at in zip(starts.tolist(), ends.tolist(), strict=True):
            row = (start - 1) // width
            limit = row * width + (width if lengths is None else lengths[row])
            if start < done or start > limit:
                continue
            if at >= len(stops) or stops[at] >= limit:
                raise LabelError("a turn has no stop token; it may be cut", where=f"row {row}")
            done = int(stops[at]) + 1
            yield row, start - row * width, done - row * width

    def _starts(self, flat: Ints, width: int) -> Ints:
        """Returns the sorted first tokens after openers; the longest one wins."""
        firsts = {run[0] for run in (*self.openers, *self.unfinished)}
        begins = {token: np.flatnonzero(flat == token) for token in firsts}
        found: dict[int, int] = {}
        for opener in sorted(self.openers, key=len):
            places = _places(flat, opener, width, begins[opener[0]])
            found.update(dict.fromkeys(places, len(opener)))
        cut_short = (_places(flat, run, width, begins[run[0]]) for run in self.unfinished)
        begun = {at for places in cut_short for at in places}
        missed = sorted((begun - found.keys()) | self._half_forced(flat, found))
        if missed:
            raise LabelError(
                "the tokenizer merged an assistant's marker with its answer, so the answer's first "
                f"token is unknown (token {missed[0] % width})",
                where=f"row {missed[0] // width}",
            )
        return np.array(sorted(at + length for at, length in found.items()), dtype=np.int64)

    def _half_forced(self, flat: Ints, found: dict[int, int]) -> set[int]:
        """Returns the openers that begin a longer one but do not complete it."""
        return {
            at
            for longer in self.openers
            for at, length in found.items()
            if length < len(longer)
            and tuple(flat[at : at + length + 1].tolist()) == longer[: length + 1]
        }


def _places(flat: Ints, run: tuple[int, ...], width: int, begins: Ints) -> list[int]:
    """Returns the places of a run of ids, given those of its first id."""
    at = begins[begins % width + len(run) <= width]
    for offset, token in enumerate(run[1:], 1):
        at = at[flat[at + offset] == token]
    places: list[int] = at.tolist()
    return places


@attrs.frozen
class TemplateMarkerLabels(LabelStrategy):
    """Scans the ids for the marker of an assistant turn, up to the token that closes it.

    The markers are derived from the processor's own template: several short chats are rendered, and
    the shortest markers that find every assistant turn and nothing else are kept.
    """

    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """Finds the assistant turns; see `LabelStrategy`.

        Raises:
            LabelError: The template has no such marker, or none for answers with reasoning, or the
                number of turns differs from that of the assistant's messages.
        """
        markers = self.markers(context)
        if not markers.with_reasoning:
            _check_without_reasoning(context.conversation)
        found = markers.turns(prompt.ids)
        answers = assistant_indices(context.conversation)
        messages = [turn.message for turn in prompt.rendering.turns]
        omitted = {k for k in answers if k not in messages and _is_omitted(k, prompt.rendering)}
        messages = messages or [k for k in answers if k not in omitted]
        if len(found) == len(messages) + len(omitted):  # the template writes their bare turns
            messages = sorted([*messages, *omitted])
        if len(found) != len(messages):
            raise LabelError(f"found {len(found)} assistant turns, expected {len(messages)}")
        turns = [Turn(message, *span) for message, span in zip(messages, found, strict=True)]
        return [turn for turn in turns if turn.message not in omitted]

    def markers(self, context: LabelContext) -> TurnMarkers:
        """Returns the markers of a processor's template, derived once per process.

        Raises:
            LabelError: No run of ids distinguishes assistant turns from the others.
        """
        known = _KNOWN.get_or_make(context.processor, dict)
        template = chat_template_of(context.processor)
        options = repr((template, context.render.template_kwargs, tuple(context.stop_ids)))
        key = Vocabulary.known(context.processor.tokenizer), options
        if key not in known:
            known[key] = _derive(context)
        return known[key]


_KNOWN = IdentityCache[dict[tuple[Vocabulary, str], TurnMarkers]]()


def _is_omitted(k: int, rendering: Rendering) -> bool:
    """Returns whether the template omits all that a message says."""
    if not any(path.startswith(f"messages[{k}]") for path in rendering.dropped):
        return False
    return all(span.message != k for span in (*rendering.caller_spans, *rendering.media))


def _check_without_reasoning(conversation: Conversation) -> None:
    for k in assistant_indices(conversation):
        if any(conversation.messages[k].extra.get(key) for key in REASONING_KEYS):
            raise LabelError(
                "no marker distinguishes the start of the template's answers with reasoning; use "
                "another label strategy",
                where=f"messages[{k}]",
            )


def _derive(context: LabelContext) -> TurnMarkers:
    prompts = (_probe(chat, context) for chat in _PROBES)
    probes = [prompt for prompt in prompts if prompt is not None]
    if not probes:
        raise LabelError("the chat template refuses all probe chats, so its markers are unknown")
    thinking = _probe(_THINKING, context)
    found = _markers([*probes, thinking], context) if thinking is not None else None
    if found is None:
        found = _markers(probes, context)
        found = found and attrs.evolve(found, with_reasoning=False)
    if found is None:
        raise LabelError("no marker distinguishes the template's assistant turns from the others")
    return found


def _markers(probes: list[EncodedPrompt], context: LabelContext) -> TurnMarkers | None:
    """Returns the shortest markers that find all turns of some prompts and nothing else."""
    truth = [[(turn.start, turn.end) for turn in probe.turns] for probe in probes]
    vocabulary = Vocabulary.known(context.processor.tokenizer)
    # words of a chat are no part of a marker, so those of some chats have to hold for another
    shown = [*zip(probes, truth, strict=True)][len(probes) > 1 :]
    for depth in _DEPTHS:
        openers = {
            opener
            for probe, turns in shown
            for start, _ in turns
            if (opener := _opener(probe.ids[:start], depth, vocabulary)) is not None
        }
        markers = TurnMarkers(
            openers=tuple(sorted(openers)),
            stops=tuple(context.stop_ids),
            unfinished=tuple(
                sorted({o[:-1] for o in openers if vocabulary.is_space(o[-1])} - {()})
            ),
        )
        if openers and _finds(markers, probes, truth):
            return markers
    return None


def _finds(
    markers: TurnMarkers, probes: list[EncodedPrompt], truth: list[list[tuple[int, int]]]
) -> bool:
    try:
        return [markers.turns(probe.ids) for probe in probes] == truth
    except LabelError:
        return False


def _probe(chat: list[dict[str, Any]], context: LabelContext) -> EncodedPrompt | None:
    """Returns the prompt of a probe chat, or `None` if it is refused."""
    conversation = read_example(chat)
    try:
        rendering = context.render(conversation)
        prompt = context.encode(conversation, rendering, ProcessedMedia())
    except SampleError:
        return None
    return prompt if rendering.turn_error is None else None


def _opener(before: Ints, depth: int, vocabulary: Vocabulary) -> tuple[int, ...] | None:
    """Returns the ids before a turn, from its `depth`-th last special token."""
    special = {i for token, i in vocabulary.control_ids.items() if vocabulary.is_special(token)}
    at = [i for i, token in enumerate(before.tolist()) if token in special]
    return tuple(before[at[-depth] :].tolist()) if len(at) >= depth else None
