"""Checks the laws on a collator and reports the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal
from xml.etree import ElementTree as Xml

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.testing.laws import LAWS, Law, LawFailure, NotApplicable, NothingAccepted, Trial
from vlmcollate.testing.laws.for_all import root_of, without_warnings

OUT_OF_TIME = "out of time"
Status = Literal["passed", "failed", "not applicable", "not reached"]


@attrs.frozen(kw_only=True)
class LawResult:
    """The result of one law.

    Attributes:
        law: The name of the law.
        status: `"passed"`, `"failed"`, `"not applicable"`, or `"not reached"` if the time ran out
            or an earlier law failed for the same cause.
        message: The failure, or the reason why the law was not checked; empty if it holds.
        seconds: The time that the law took.
    """

    law: str
    status: Status
    message: str = ""
    seconds: float = 0.0


@attrs.frozen(kw_only=True, repr=False)
class Report:
    """The results of all laws.

    Attributes:
        collator: The name of the collator's class.
        results: One result per law, in the order of the laws.
        notes: What a chat of several answers trains that no law forbids, with the option that
            changes it.
    """

    collator: str
    results: tuple[LawResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def untried(self) -> tuple[LawResult, ...]:
        """The laws that were not checked because the time ran out."""
        return tuple(result for result in self.results if result.message == OUT_OF_TIME)

    @property
    def failed(self) -> tuple[LawResult, ...]:
        """The laws that do not hold."""
        return tuple(result for result in self.results if result.status == "failed")

    def __repr__(self) -> str:
        counts = {
            status: sum(result.status == status for result in self.results)
            for status in dict.fromkeys(result.status for result in self.results)
        }
        summary = ", ".join(f"{number} {status}" for status, number in counts.items())
        return "\n\n".join(
            [
                f"{self.collator}: {summary}",
                *(f"{r.law}\n{r.message}" for r in self.failed),
                *(f"note: {note}" for note in self.notes),
            ]
        )

    def junit(self) -> str:
        """Returns the report as the content of a JUnit XML file."""
        suite = Xml.Element(
            "testsuite",
            name=f"vlmcollate {self.collator}",
            tests=str(len(self.results)),
            failures=str(len(self.failed)),
            skipped=str(sum(r.status.startswith("not") for r in self.results)),
            time=f"{sum(r.seconds for r in self.results):.3f}",
        )
        for result in self.results:
            case = Xml.SubElement(
                suite,
                "testcase",
                classname=self.collator,
                name=result.law,
                time=f"{result.seconds:.3f}",
            )
            if result.status == "failed":
                first = result.message.partition("\n")[0]
                Xml.SubElement(case, "failure", message=_plain(first)).text = _plain(result.message)
            elif result.status != "passed":
                Xml.SubElement(case, "skipped", message=_plain(result.message))
        if self.notes:
            Xml.SubElement(suite, "system-out").text = _plain("\n".join(self.notes))
        return Xml.tostring(suite, encoding="unicode", xml_declaration=True)


def check_collator(
    collator: BaseCollator,
    *,
    laws: Sequence[Law] = LAWS,
    examples: int = 10,
    seed: int = 0,
    seconds: float | None = None,
    shrink: bool = True,
    raise_on_failure: bool = True,
    on_law: Callable[[str], None] | None = None,
) -> Report:
    """Checks every law on a collator.

    Args:
        collator: The collator, built in or your own. It is checked with `split_turns=False` and
            with whole answers; laws of their own check the options that choose among them.
        laws: The laws to check, all by default.
        examples: The number of examples that each law draws, at least 1.
        seed: The seed of the draws. Hypothesis also takes values from the source of imported
            modules, so the examples may differ between programs.
        seconds: The time limit in seconds; the remaining laws are reported as `"not reached"`.
        shrink: Whether to search for the smallest example of a failure, or to show the first one.
        raise_on_failure: Whether to raise if a law does not hold, or only to report it.
        on_law: A function that is called with the name of each law before it is checked.

    Returns:
        The result of each law.

    Raises:
        LawFailure: A law does not hold; the message is the report.
        ConfigError: `examples` is not an integer of at least 1.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import check_collator, tiny_processor
        >>> check_collator(collator_for(tiny_processor()), examples=2).failed
        ()
    """
    trial = Trial(examples=examples, seed=seed, shrink=shrink)
    results = tuple(_check_laws(collator, laws, trial, seconds, on_law or (lambda _: None)))
    report = Report(
        collator=type(collator).__name__, results=results, notes=_notes_on_turns(collator)
    )
    if raise_on_failure and report.failed:
        raise LawFailure(repr(report))
    return report


_CHAT = [
    {"role": role, "content": text}
    for role, text in (
        ("user", "How warm is it?"),
        ("assistant", "It is mild."),
        ("user", "And tomorrow?"),
        ("assistant", "It will rain."),
    )
]


def _notes_on_turns(collator: BaseCollator) -> tuple[str, ...]:
    """Returns what is unusual about the turns of a plain chat; the laws check all errors."""
    try:
        with without_warnings():
            found = [explained.warnings for explained in collator.explain_all(_CHAT)]
    except Exception:  # noqa: BLE001  # whatever a collator raises breaks the law
        return ()
    return tuple(dict.fromkeys(chain.from_iterable(found)))


def parametrize_with_checks(
    collators: Sequence[BaseCollator],
    *,
    expected_failures: Mapping[str, str] | None = None,
    laws: Sequence[Law] = LAWS,
    examples: int = 10,
    seed: int = 0,
) -> Any:
    """Parametrizes a test of `check(collator)` by collators and laws.

    Args:
        collators: The collators to check.
        expected_failures: The names of laws that are known to fail, each with the reason. A case
            that is expected to fail fails the test if the law holds.
        laws: The laws to check, all by default.
        examples: The number of examples that each law draws.
        seed: The seed of the draws.

    Returns:
        A decorator that makes one pytest case per collator and law.

    Raises:
        ConfigError: `expected_failures` names an unknown law.

    Example:
        @parametrize_with_checks([MyCollator(processor=processor)])
        def test_my_collator(collator, check):
            check(collator)
    """
    import pytest

    known = expected_failures or {}
    unknown = sorted(set(known) - {law.__name__ for law in laws})
    if unknown:
        raise ConfigError(
            f"expected_failures is invalid: found {unknown}, expected names of laws; remove them"
        )
    trial = Trial(examples=examples, seed=seed)
    cases = []
    for number, collator in enumerate(collators):
        name = type(collator).__name__
        same_name = sum(type(other).__name__ == name for other in collators) > 1
        for law in laws:
            marks = (
                [pytest.mark.xfail(reason=known[law.__name__], strict=True)]
                if law.__name__ in known
                else []
            )
            label = f"{name}{number if same_name else ''}-{law.__name__}"
            cases.append(pytest.param(collator, Check(law, trial), id=label, marks=marks))
    return pytest.mark.parametrize(("collator", "check"), cases)


@attrs.frozen
class Check:
    """A law and the settings to check it with; called with a collator."""

    law: Law
    trial: Trial

    def __call__(self, collator: BaseCollator) -> None:
        """Checks the law, and skips the test if it does not apply to the collator."""
        import pytest

        try:
            with without_warnings():
                self.law(training_whole_answers(collator), self.trial)
        except NotApplicable as reason:
            pytest.skip(str(reason))


def training_whole_answers(collator: BaseCollator) -> BaseCollator:
    """Returns a collator that makes one sample of a chat and trains its answers with all parts.

    The options that choose among these have laws of their own.
    """
    train_on = collator.train_on if collator.train_on == "last_turn" else "all_turns"
    chosen = (collator.train_on, collator.split_turns, collator.empty_reasoning)
    if chosen == (train_on, False, "train"):
        return collator
    return attrs.evolve(collator, train_on=train_on, split_turns=False, empty_reasoning="train")


def _check_laws(
    collator: BaseCollator,
    laws: Sequence[Law],
    trial: Trial,
    seconds: float | None,
    on_law: Callable[[str], None],
) -> Iterator[LawResult]:
    """Checks the laws in order until the time runs out."""
    start = time.perf_counter()
    causes: dict[str, str] = {}
    collator = training_whole_answers(collator)
    for law in laws:
        if seconds is not None and time.perf_counter() - start > seconds:
            yield LawResult(law=law.__name__, status="not reached", message=OUT_OF_TIME)
        else:
            on_law(law.__name__)
            yield _check_law(law, collator, trial, causes)


def _check_law(law: Law, collator: BaseCollator, trial: Trial, causes: dict[str, str]) -> LawResult:
    """Checks one law, and reports the same cause of failure only once.

    Args:
        law: The law.
        collator: The collator.
        trial: The settings of the check.
        causes: The causes of earlier failures, each with the name of the law that showed it. The
            cause of a new failure is added.
    """
    start, status, message, cause = time.perf_counter(), "passed", "", ""
    try:
        with without_warnings():
            law(collator, attrs.evolve(trial, known=frozenset(causes)))
    except NotApplicable as reason:
        status, message = "not applicable", str(reason)
    except LawFailure as error:
        status, message = "failed", str(error)
        cause = message if isinstance(error, NothingAccepted) else error.root
    except Exception as error:  # noqa: BLE001  # whatever a collator raises breaks the law
        status, message = "failed", f"the collator raised {type(error).__name__}: {error}"
        cause = root_of(error)
    if cause and causes.setdefault(cause, law.__name__) != law.__name__:
        status, message = "not reached", f"see {causes[cause]}"
    seconds = time.perf_counter() - start
    return LawResult(law=law.__name__, status=status, message=message, seconds=seconds)  # type: ignore[arg-type]  # of Status


def _plain(text: str) -> str:
    """Removes the characters that XML does not allow."""
    return "".join(c for c in text if c in "\t\n" or (ord(c) >= 0x20 and c not in "\ufffe\uffff"))
