"""`vlmcollate inspect`: the label mask of a dataset's rows."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from vlmcollate.collator import BaseCollator
from vlmcollate.data.rows import read_rows, row_range
from vlmcollate.errors import ConfigError, SampleError, TemplateOmissionWarning
from vlmcollate.explain import Explanation, terminal
from vlmcollate.explain.mask_text import visible
from vlmcollate.explain.page import inspect_page, page_entry
from vlmcollate.family import NotPackable
from vlmcollate.labels import (
    GenerationTagLabels,
    LabelStrategy,
    PrefixMaskLabels,
    RenderedSpanLabels,
    TemplateMarkerLabels,
    TextSearchLabels,
)
from vlmcollate.media import LocalMedia
from vlmcollate.models import collator_for
from vlmcollate.packing import plan_packs, unpack

STRATEGIES: dict[str, type[LabelStrategy]] = {
    strategy.__name__: strategy
    for strategy in (
        RenderedSpanLabels,
        TemplateMarkerLabels,
        TextSearchLabels,
        PrefixMaskLabels,
        GenerationTagLabels,
    )
}


@attrs.frozen(kw_only=True, eq=False)
class Inspected:
    """One row of a dataset.

    Attributes:
        number: Its number in the dataset.
        explanation: What became of it, or `None` where it failed.
        error: Why it failed, or "".
        note: What else is to be said of it.
    """

    number: int
    explanation: Explanation | None = None
    error: str = ""
    note: str = ""

    @property
    def title(self) -> str:
        """What to call it."""
        return f"row {self.number}"


@attrs.frozen(kw_only=True, eq=False)
class Pack:
    """Rows that share a pack.

    Attributes:
        rows: The rows in order, each a document.
        room: The most tokens of a pack.
    """

    rows: tuple[Inspected, ...]
    room: int

    @property
    def lengths(self) -> list[int]:
        """The tokens of each document."""
        return [len(row.explanation.sample) for row in self.rows if row.explanation is not None]

    @property
    def title(self) -> str:
        """Its documents and how full it is."""
        used, count = sum(self.lengths), len(self.rows)
        if used > self.room:
            return f"1 document of {used:,} tokens, too long for a pack of {self.room:,}"
        return (
            f"{count} document{'' if count == 1 else 's'}, {used:,} of {self.room:,} tokens "
            f"({used / self.room:.0%})"
        )


def collator_of(
    processor: str,
    *,
    media_root: Path | None = None,
    max_length: int | None = None,
    trust_remote_code: bool = False,
    packs: bool = False,
) -> BaseCollator:
    """The collator of a processor's folder or hub name.

    Args:
        processor: A folder, or a name on the Hugging Face hub.
        media_root: The folder from which relative media paths start, and which none may leave.
        max_length: The most tokens of a sample; a longer one is an error.
        trust_remote_code: Whether the processor's own code may run.
        packs: Whether it makes packs, for which it reads the configuration of the model beside the
            processor where its family needs that.

    Raises:
        ConfigError: There is no such processor, or it has no chat template.
    """
    from transformers import AutoProcessor

    try:
        loaded = AutoProcessor.from_pretrained(processor, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, LookupError) as error:
        raise ConfigError(f"cannot load the processor {processor!r}: {error}") from error
    found = collator_for(loaded, media=LocalMedia(root=media_root), max_length=max_length)
    is_known = found.family.mixing(found.model_config) is not None
    if not packs or is_known or isinstance(found.family.packing, NotPackable):
        return found
    config = _model_config(processor, trust_remote_code=trust_remote_code)
    return attrs.evolve(found, model_config=config)


def _model_config(name: str, *, trust_remote_code: bool) -> Any:
    """The configuration of the model beside a processor, or `None` if there is none."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):  # a folder with a processor alone; packs may not need more
        return None


def inspected(
    collator: BaseCollator, data: Path, *, rows: str = "0:10", diff: str = ""
) -> Iterator[Inspected]:
    """Explains rows one after another.

    Args:
        collator: Encodes them.
        data: See `read_rows`.
        rows: A row or a range; see `row_range`.
        diff: The name of a label strategy to compare with, or "".

    Yields:
        Each row with its explanation or its error.

    Raises:
        ConfigError: The data cannot be read, or an option is none.
    """
    if diff and diff not in STRATEGIES:
        raise ConfigError(f"diff must be one of {', '.join(STRATEGIES)}, not {diff!r}")
    other = attrs.evolve(collator, labels=STRATEGIES[diff]()) if diff else None
    start, stop = row_range(rows)
    for number, row in read_rows(data, start=start, stop=stop):
        yield _inspected(collator, other, number, row)


def _inspected(
    collator: BaseCollator, other: BaseCollator | None, number: int, row: Any
) -> Inspected:
    if isinstance(row, SampleError):
        return Inspected(number=number, error=str(row))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemplateOmissionWarning)  # the explanation tells of it
        try:
            explanation = collator.explain(row)
        except SampleError as error:
            return Inspected(number=number, error=str(error))
        note = ""
        if other is not None:
            try:
                explanation = explanation.compared(other.encode(row))
                note = _difference(explanation, type(other.labels).__name__)
            except SampleError as error:
                note = f"{type(other.labels).__name__} refuses this row: {error}"
    return Inspected(number=number, explanation=explanation, note=note)


def _difference(explanation: Explanation, other: str) -> str:
    here, there = (int((explanation.differences == which).sum()) for which in (1, 2))
    if not here and not there:
        return f"{other} trains the same tokens"
    return f"{other} leaves out {here} trained tokens and trains {there} others"


def packed(collator: BaseCollator, rows: Sequence[Inspected], room: int) -> list[Pack]:
    """Plans packs of the rows that did not fail.

    Args:
        collator: Encoded them.
        rows: The rows.
        room: The most tokens of a pack.

    Returns:
        The packs; the first token of each document has lost its label, as in training. A row that
        is longer than `room` has one to itself.

    Raises:
        ConfigError: The model takes no packs.
    """
    good = [(row, row.explanation) for row in rows if row.explanation is not None]
    lengths = [len(explanation.sample) for _, explanation in good]
    packs = []
    for indices in plan_packs(lengths, max_length=room, on_overlong="own_pack"):
        members = [good[i] for i in indices]
        documents = unpack(collator.pack([e.sample for _, e in members]))
        shown = tuple(
            attrs.evolve(row, explanation=explanation.within(document))
            for (row, explanation), document in zip(members, documents, strict=True)
        )
        packs.append(Pack(rows=shown, room=room))
    return packs


def show(
    console: Console, rows: Iterable[Inspected], packs: Sequence[Pack], *, diff: str = ""
) -> None:
    """Prints rows, or the packs that they make and the rows that failed.

    Args:
        console: Where to print.
        rows: The rows.
        packs: Their packs, or none.
        diff: The name of the strategy that they are compared with, or "".
    """
    brackets = console.color_system is None
    for number, pack in enumerate(packs, 1):
        console.print(Rule(Text(f"pack {number}: {pack.title}")))
        for place, row in enumerate(pack.rows, 1):
            _print_row(console, row, f"document {place}, {row.title}", brackets=brackets)
    for row in rows:
        if not packs or row.explanation is None:
            _print_row(console, row, row.title, brackets=brackets)
    console.print(terminal.key(brackets=brackets, other=diff))


def _print_row(console: Console, row: Inspected, title: str, *, brackets: bool) -> None:
    if row.explanation is None:
        error = Text(f"error: {visible(row.error)}", "bold red")
        console.print(Panel(error, title=Text(title), title_align="left", border_style="red"))
        return
    console.print(terminal.panel(row.explanation, title, brackets=brackets))
    if row.note:
        console.print(Text(visible(row.note), "yellow"))


def write_page(
    file: Path, rows: Iterable[Inspected], packs: Sequence[Pack], *, name: str, diff: str = ""
) -> int:
    """Writes rows, or the packs that they make, as one page.

    Args:
        file: Where to.
        rows: The rows.
        packs: Their packs, or none.
        name: What to call the data.
        diff: The name of the strategy that they are compared with, or "".

    Returns:
        The bytes of the page.

    Raises:
        ConfigError: The file cannot be written.
    """
    entries: list[dict[str, Any]] = []
    for number, pack in enumerate(packs, 1):
        title = f"pack {number}: {pack.title}"
        entries.append({"title": title, "documents": pack.lengths, "room": pack.room})
        entries += [_entry(row) for row in pack.rows]
    entries += [_entry(row) for row in rows if not packs or row.explanation is None]
    text = inspect_page(entries, name=name, diff=diff).encode("utf-8", "backslashreplace")
    try:
        file.write_bytes(text)
    except OSError as error:
        raise ConfigError(f"cannot write the page: {error}") from error
    return len(text)


def _entry(row: Inspected) -> dict[str, Any]:
    if row.explanation is None:
        return {"title": row.title, "error": row.error}
    return {"title": row.title, "note": row.note, **page_entry(row.explanation)}


def run(
    console: Console,
    collator: BaseCollator,
    data: Path,
    *,
    rows: str,
    pack: int | None,
    diff: str,
    page: Path | None,
) -> bool:
    """Runs the command.

    Args:
        console: Where to print.
        collator: Encodes the rows.
        data: Where the rows are.
        rows: Which ones.
        pack: The most tokens of a pack, or `None`.
        diff: The name of a label strategy to compare with, or "".
        page: The HTML file to write instead of printing the rows, or `None`.

    Returns:
        Whether every row is good.
    """
    counts: Counter[bool] = Counter()

    def counted(found: Iterable[Inspected]) -> Iterator[Inspected]:
        for row in found:
            counts[row.explanation is None] += 1
            yield row

    # shown one by one, since the media of many rows may not fit in memory
    found: Iterable[Inspected] = counted(inspected(collator, data, rows=rows, diff=diff))
    first = next(iter(found), None)
    if first is None:
        raise ConfigError(f"{str(data)!r} has no row in {rows!r}")
    found, packs = chain([first], found), []
    if pack is not None:
        found = list(found)
        packs = packed(collator, found, pack)
    if page is None:
        show(console, found, packs, diff=diff)
    else:
        with console.status("Encoding ..."):
            size = write_page(page, found, packs, name=data.name, diff=diff)
        written = f"{page}: {counts.total()} rows, {size / 1e6:.2f} MB; open it in a browser"
        console.print(Text(written), soft_wrap=True)
    if counts[True]:
        failed = f"{counts[True]} of {counts.total()} rows failed"
        console.print(Text(failed, "bold red"))
    return not counts[True]
