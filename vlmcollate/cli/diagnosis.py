"""What a processor's chat template does with the chats that people train on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from vlmcollate.cli.diagnosis_chats import chats_for
from vlmcollate.cli.diagnosis_values import Fact, Probe
from vlmcollate.encode.off_prompt import lacking_prompt
from vlmcollate.encode.trace import Trace
from vlmcollate.errors import CollateError

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator
    from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True)
class Finding:
    """What a chat template does with one kind of chat, or with one of its samples.

    Attributes:
        chat: The kind of chat.
        sample: The sample's number from 1 and that of the chat's samples, if they are several.
        is_exact: Whether its labels are exact; if not, it is refused.
        trained: The text that trains, one string a turn.
        runs: The whole prompt, as pairs of a token class and its text.
        notes: What to know about it, with the option that changes it.
    """

    chat: str
    sample: tuple[int, int] | None = None
    is_exact: bool
    trained: tuple[str, ...] = ()
    runs: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The kind of chat, with the sample's number if there are several."""
        if self.sample is None:
            return self.chat
        place, count = self.sample
        return f"{self.chat}, sample {place} of {count}"


@attrs.frozen(kw_only=True)
class Diagnosis:
    """What a chat template does, in words.

    Attributes:
        processor: The name of the processor's class.
        collator: The name of the collator's class.
        facts: What the template does, one by one.
        findings: One for each kind of chat, or for each of its samples.
    """

    processor: str
    collator: str
    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]


def diagnose(collator: BaseCollator) -> Diagnosis:
    """Tries a collator's chat template with the kinds of chat that people train on.

    Args:
        collator: The collator, whose options take part; what the template omits becomes a fact.
    """
    from vlmcollate.cli.diagnosis_facts import facts_of

    collator = attrs.evolve(collator, on_template_omission="allow", on_unread="allow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of chats that are not the user's
        probes = {chat: _probes(collator, example) for chat, example in chats_for(collator)}
        facts = tuple(facts_of(collator, probes))
    return Diagnosis(
        processor=type(collator.processor).__name__,
        collator=type(collator).__name__,
        facts=facts,
        findings=tuple(_findings(probes)),
    )


def _probes(collator: BaseCollator, example: Mapping[str, Any]) -> tuple[Probe, ...]:
    """Returns the samples of a chat; one that names the error if they cannot be made."""
    try:
        encoders = collator.turn_encoders(example)
    except CollateError as error:
        return (Probe(example=example, error=str(error)),)
    return tuple(_probe(collator, example, encode) for encode in encoders)


def _probe(
    collator: BaseCollator, example: Mapping[str, Any], encode: Callable[[], EncodedSample]
) -> Probe:
    trace = Trace()
    try:
        with trace:
            encode()
        explanation = collator.explained(encode)
    except CollateError as error:
        rendering = next(iter(trace.results.get("render", ())), None)
        is_off_prompt = rendering is not None and lacking_prompt(rendering) is not None
        return Probe(
            example=example, rendering=rendering if is_off_prompt else None, error=str(error)
        )
    return Probe(example=example, explanation=explanation, rendering=trace.first("render"))


def _findings(probes: Mapping[str, Sequence[Probe]]) -> Iterator[Finding]:
    for chat, samples in probes.items():
        for place, probe in enumerate(samples, 1):
            found = _finding(chat, probe)
            yield attrs.evolve(found, sample=(place, len(samples))) if len(samples) > 1 else found


def _finding(chat: str, probe: Probe) -> Finding:
    explanation = probe.explanation
    if explanation is None:
        return Finding(chat=chat, is_exact=False, notes=(probe.error,))
    runs = tuple((run.kind, run.text) for run in explanation.runs)
    trained = tuple(text for kind, text in runs if kind == "trained")
    return Finding(chat=chat, is_exact=True, trained=trained, runs=runs, notes=explanation.warnings)
