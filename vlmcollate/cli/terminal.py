"""Label masks and explanations on a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlmcollate.encode.trace import STAGES
from vlmcollate.explain.explanation import Explanation
from vlmcollate.explain.mask_text import mask_runs, visible
from vlmcollate.explain.tokens import MEANINGS, Difference, TokenClass
from vlmcollate.sample import EncodedSample

_STYLES: dict[TokenClass, str] = {
    "trained": "bold black on green",
    "message": "dim",
    "template": "cyan",
    "media": "magenta",
    "padding": "dim strike",
}
_DIFFERENT: dict[Difference, str] = {
    "only here": "bold white on red",
    "only there": "bold black on yellow",
}
_MARKS: dict[Difference, tuple[str, str]] = {"only here": ("{-", "-}"), "only there": ("{+", "+}")}


def mask_of(sample: EncodedSample, processor: Any, *, brackets: bool) -> Text:
    """Returns a sample's tokens in the colours of their class.

    Args:
        sample: A labelled sample.
        processor: The processor whose tokenizer produced its ids.
        brackets: As in `panel`.
    """
    text = Text()
    for kind, shown in mask_runs(sample, processor):
        is_bracketed = kind == "trained" and brackets
        text.append(f"[[{shown}]]" if is_bracketed else shown, _STYLES[kind])
    text.rstrip()
    return text


def panel(explanation: Explanation, title: str, *, brackets: bool) -> Panel:
    """Returns a panel with a sample's coloured tokens, warnings and summary.

    Args:
        explanation: The result of `collator.explain`.
        title: The panel's title.
        brackets: Whether to put trained text into `[[` and `]]`, for output without colour.
    """
    parts: list[Text | Table] = [mask(explanation, brackets=brackets)]
    parts += [Text(f"! {visible(w)}", "yellow") for w in explanation.warnings]
    parts.append(summary_table(explanation))
    if explanation.media:
        sizes = ", ".join(f"{m.kind} {m.size}: {m.tokens}" for m in explanation.media)
        parts.append(Text(f"media tokens: {sizes}", "dim"))
    parts.append(times(explanation))
    return Panel(Group(*parts), title=Text(title), title_align="left", border_style="dim")


def mask(explanation: Explanation, *, brackets: bool) -> Text:
    """Returns the tokens in the colours of their class, with differences.

    Args:
        explanation: The result of `collator.explain`.
        brackets: As in `panel`.
    """
    text = Text()
    for run in explanation.runs:
        shown = run.text if run.kind == "media" else visible(run.text)
        if run.difference:
            open_, close = _MARKS[run.difference] if brackets else ("", "")
            text.append(f"{open_}{shown}{close}", _DIFFERENT[run.difference])
        elif run.kind == "trained" and brackets:
            text.append(f"[[{shown}]]", _STYLES[run.kind])
        else:
            text.append(shown, _STYLES[run.kind])
    text.rstrip()
    return text


def summary_table(explanation: Explanation) -> Table:
    """Returns a table of tokens and trained tokens by role."""
    summary = explanation.summary
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "tokens", "trained"):
        table.add_column(name, justify="right" if name else "left")
    for role, found in summary["by_role"].items():
        table.add_row(Text(visible(role)), f"{found['tokens']:,}", f"{found['trained']:,}")
    trained = summary["by_class"]["trained"]
    table.add_row("all", f"{summary['tokens']:,}", f"{trained:,} ({explanation.trained_share:.1%})")
    return table


def times(explanation: Explanation) -> Text:
    """Returns the strategy, and the milliseconds of each stage."""
    strategy = explanation.sample.label_strategy
    taken = ", ".join(
        f"{stage} {1e3 * explanation.seconds[stage]:.1f}"
        for stage in STAGES
        if stage in explanation.seconds
    )
    return Text(f"format {explanation.format}; labels by {strategy}; ms: {taken}", "dim")


def key(*, brackets: bool, other: str = "") -> Text:
    """Returns the key to the colours.

    Args:
        brackets: As in `panel`.
        other: The strategy to compare with, or "".
    """
    entries = [
        Text(f"[[{meaning}]]" if brackets and kind == "trained" else f" {meaning} ", _STYLES[kind])
        for kind, meaning in MEANINGS.items()
    ]
    if other:
        for name, style in _DIFFERENT.items():
            open_, close = _MARKS[name] if brackets else (" ", " ")
            who = "trained here only" if name == "only here" else f"only {other} trains it"
            entries.append(Text(f"{open_}{who}{close}", style))
    return Text("  ").join(entries)
