"""Trying laws on collators, and reporting what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from xml.etree import ElementTree as Xml

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.testing.laws import LAWS, Law, LawFailure, NotApplicable, NothingTaken, Trial
from vlmcollate.testing.laws.for_all import root_of, without_warnings

OUT_OF_TIME = "out of time"
Status = Literal["passed", "failed", "not applicable", "not reached"]


@attrs.frozen(kw_only=True)
class LawResult:
    """What came of one law.

    Attributes:
        law: Its name.
        status: Whether it holds; `"not reached"` where time ran out, or where it fails as an
            earlier law does.
        message: Why not, or why it does not apply.
        seconds: How long it took.
    """

    law: str
    status: Status
    message: str = ""
    seconds: float = 0.0


@attrs.frozen(kw_only=True, repr=False)
class Report:
    """What came of all laws.

    Attributes:
        collator: The collator's class.
        results: One a law.
    """

    collator: str
    results: tuple[LawResult, ...]

    @property
    def untried(self) -> tuple[LawResult, ...]:
        """The laws for which no time was left."""
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
            [f"{self.collator}: {summary}", *(f"{r.law}\n{r.message}" for r in self.failed)]
        )

    def junit(self) -> str:
        """The report as a JUnit XML file has it."""
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
    """Tries every law on a collator.

    Args:
        collator: Any collator, built in or yours, with a processor that can be called here.
        laws: Which laws.
        examples: How many examples each law draws.
        seed: Decides which; hypothesis may draw others where other modules are imported, since it
            takes values from their source, too.
        seconds: How long to go on; laws that are left are reported as not reached.
        shrink: Whether to look for a small example of each failure, or to show the first.
        raise_on_failure: Whether to raise where a law does not hold, or only to report.
        on_law: Called with the name of each law before it is tried.

    Returns:
        What came of each law.

    Raises:
        LawFailure: A law does not hold; the message is that of the report.
        ConfigError: An option does not fit.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import check_collator, tiny_processor
        >>> check_collator(collator_for(tiny_processor()), examples=2).failed
        ()
    """
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise ConfigError(f"examples must be an integer of at least 1, not {examples!r}")
    trial = Trial(examples=examples, seed=seed, shrink=shrink)
    start, results = time.perf_counter(), []
    causes: dict[str, str] = {}
    for law in laws:
        name = law.__name__
        if seconds is not None and time.perf_counter() - start > seconds:
            results.append(LawResult(law=name, status="not reached", message=OUT_OF_TIME))
            continue
        if on_law is not None:
            on_law(name)
        results.append(_tried(law, collator, trial, causes))
    report = Report(collator=type(collator).__name__, results=tuple(results))
    if raise_on_failure and report.failed:
        raise LawFailure(repr(report))
    return report


def parametrize_with_checks(
    collators: Sequence[BaseCollator],
    *,
    expected_failures: Mapping[str, str] | None = None,
    laws: Sequence[Law] = LAWS,
    examples: int = 10,
    seed: int = 0,
) -> Any:
    """Makes one pytest case of each collator and law, for a test that calls `check(collator)`.

    Args:
        collators: The collators.
        expected_failures: Laws that are known not to hold, with the reason; such a case fails when
            the law holds after all.
        laws: Which laws.
        examples: How many examples each law draws.
        seed: Decides which.

    Raises:
        ConfigError: An expected failure is no law.

    Example:
        @parametrize_with_checks([MyCollator(processor=processor)])
        def test_my_collator(collator, check):
            check(collator)
    """
    import pytest

    known = expected_failures or {}
    unknown = sorted(set(known) - {law.__name__ for law in laws})
    if unknown:
        raise ConfigError(f"expected_failures names {unknown}, which are no laws")
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
    """A law with how hard it tries, to be called with a collator."""

    law: Law
    trial: Trial

    def __call__(self, collator: BaseCollator) -> None:
        """Tries the law; skips the test where it does not apply."""
        import pytest

        try:
            with without_warnings():
                self.law(collator, self.trial)
        except NotApplicable as reason:
            pytest.skip(str(reason))


def _tried(law: Law, collator: BaseCollator, trial: Trial, causes: dict[str, str]) -> LawResult:
    """Tries one law; what fails for a cause that an earlier law has shown is not reached.

    Args:
        law: The law.
        collator: The collator.
        trial: How hard.
        causes: What the collator has raised so far, with the law that showed it; it is added to.
    """
    start, status, message, cause = time.perf_counter(), "passed", "", ""
    try:
        with without_warnings():
            law(collator, attrs.evolve(trial, known=frozenset(causes)))
    except NotApplicable as reason:
        status, message = "not applicable", str(reason)
    except LawFailure as error:
        status, message = "failed", str(error)
        cause = message if isinstance(error, NothingTaken) else error.root
    except Exception as error:  # noqa: BLE001  # a collator may raise anything, which is a failure
        status, message = "failed", f"the collator raises {type(error).__name__}: {error}"
        cause = root_of(error)
    if cause and causes.setdefault(cause, law.__name__) != law.__name__:
        status, message = "not reached", f"see {causes[cause]}"
    seconds = time.perf_counter() - start
    return LawResult(law=law.__name__, status=status, message=message, seconds=seconds)  # type: ignore[arg-type]  # of Status


def _plain(text: str) -> str:
    """A text without the characters that XML cannot hold."""
    return "".join(c for c in text if c in "\t\n" or (ord(c) >= 0x20 and c not in "\ufffe\uffff"))
