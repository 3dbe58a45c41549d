"""What a processor's collator is able to do, found by collating with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
import transformers as hf
from PIL import Image
from transformers.processing_utils import ProcessorMixin

from tests.decoding import trained_texts
from tests.media_bytes import video_bytes
from tests.processors.cases import Case
from vlmcollate import BaseCollator, CollateError, collator_for
from vlmcollate.cli.families import ProcessorSupport, Support, SupportTable
from vlmcollate.media import processor_inputs
from vlmcollate.models.default import DefaultCollator

TONE = (np.sin(np.arange(24000) / 20) * 0.3).astype(np.float32)
PARTS: dict[str, Any] = {
    "image": {"type": "image", "image": Image.new("RGB", (64, 48), "teal")},
    "video": {"type": "video", "video": video_bytes(np.arange(20) / 10, size=(84, 56))},
    "audio": {"type": "audio", "audio": (TONE, 24000)},
}
ONE_TURN = ("PaliGemmaCollator", "NemotronParseCollator")  # prompt and answer


def chat(*kinds: str, answers: Sequence[str] = ("A cat on a mat.",)) -> list[dict[str, Any]]:
    """A conversation with media in its first message and a turn for each answer."""
    messages: list[dict[str, Any]] = []
    for answer in answers:
        media = [] if messages else [PARTS[kind] for kind in kinds]
        messages += [
            {"role": "user", "content": [*media, {"type": "text", "text": "What is this?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
    return messages


@attrs.frozen
class Measured:
    """What trying a processor class showed.

    Attributes:
        row: The table's row.
        errors: For each kind of media that is refused, the error; under "" the collator's own.
    """

    row: ProcessorSupport
    errors: dict[str, CollateError]


def measure(name: str, case: Case) -> Measured:
    """Tries a processor class.

    Args:
        name: The class.
        case: How it is tried.

    Returns:
        What collating showed.

    Raises:
        AssertionError: Other tokens than the answers train.
        ImportError, AttributeError: This release of transformers cannot build the processor.
    """
    support: Support = "not proven"
    collator_name = ""
    shown: list[str] = []
    kept: list[str] = []
    errors: dict[str, CollateError] = {}
    if case.build is not None:
        support = "refused"
        processor = case.processor()
        assert type(processor).__name__ == name
        try:
            collator = collator_for(processor, **case.options)
        except CollateError as error:
            errors[""] = error
        else:
            collator_name = type(collator).__name__
            for kind in case.kinds:
                try:
                    _check_answers(collator, kind, case)
                except CollateError as error:
                    errors[kind] = error
                else:
                    shown.append(kind)
                    if collator.encode(chat(kind, answers=["Yes"])).pixel_tables:
                        kept.append(kind)
    if shown:
        support = "exact with options" if case.options else "exact"
    row = ProcessorSupport(
        processor=name,
        collator=collator_name,
        support=support,
        media=tuple(shown),
        pixel_bytes=tuple(kept),
        shown_on=case.shown_on if shown else "",
        note=case.note,
    )
    return Measured(row, errors)


def _check_answers(collator: BaseCollator, kind: str, case: Case) -> None:
    """Exactly the answers train with this kind of media."""
    turns = ("Yes",) if type(collator).__name__ in ONE_TURN else ("A cat on a mat.", "No", "No")
    most = case.most.get(kind, 2)
    chats = [chat(kind, answers=turns), chat(*[kind] * most, answers=["Two of them."])]
    batch = collator(chats)
    assert batch[f"n_{kind}s_per_sample"].tolist() == [1, most]
    for row, messages in enumerate(chats):
        answers = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
        found = trained_texts(
            collator.processor.tokenizer, batch["input_ids"][row], batch["labels"][row]
        )
        assert found == [case.before + answer + case.stop for answer in answers]
    if type(collator) is DefaultCollator:
        _check_prompt(collator, chats[-1])


def _check_prompt(collator: BaseCollator, messages: list[dict[str, Any]]) -> None:
    """The sample and its media are what the processor itself makes of the whole prompt."""
    conversation = collator.read(messages)
    kinds = [part.kind for _, part in conversation.media]
    processor = collator.processor
    theirs = processor(
        text=[processor.apply_chat_template(messages)],
        add_special_tokens=False,
        **processor_inputs(kinds, collator.load(conversation)),
    )
    ours = collator.encode(messages)
    assert ours.input_ids.tolist() == list(theirs["input_ids"][0])
    for key in ours.media:
        assert torch.equal(ours.pixels(key), torch.as_tensor(theirs[key])), key


def processors_of_transformers() -> set[str]:
    """The processor classes of the installed transformers."""
    names = (name for name in dir(hf) if name.endswith("Processor"))
    return {
        name
        for name in names
        if isinstance(kind := getattr(hf, name), type)
        and issubclass(kind, ProcessorMixin)
        and kind is not ProcessorMixin
    }


def page(table: SupportTable) -> str:
    """The docs page of a table."""
    lines = [
        "---",
        "hide:",
        "  - navigation",
        "  - toc",
        "---",
        "",
        "# Families",
        "",
        "This table lists every processor class of transformers that has a chat template or a",
        "documented prompt format, with the result of collating with it. It is generated by a test",
        f"run with transformers {table.transformers}; `vlmcollate families` prints the same table.",
        "",
        "| support | processors | meaning |",
        "| --- | --- | --- |",
    ]
    for support, meaning in MEANINGS.items():
        number = sum(row.support == support for row in table.processors)
        lines.append(f"| {support} | {number} | {meaning} |")
    lines += [
        "",
        "A refused processor raises an error that explains why; it never gives a wrong label.",
        "",
        "The column *shown on* is the source of the template or processor in the test run:",
        "",
        "- A *published template* is the real one.",
        "- A *stand-in template* has the same form. Decode the trained tokens of the first batch",
        "  when you use a new checkpoint.",
        "- A *stand-in processor* has the signature and the outputs of code that is hosted on a",
        "  model hub.",
        "",
        "The column *bytes* lists the kinds of media whose pixels stay bytes until the batch; see",
        "[Pixels as bytes](../explanation/pixels.md).",
        "",
        '<div class="families-table stack" markdown>',
        "",
        "| processor | collator | support | media | bytes | shown on | note |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table.processors:
        cells = (
            f"`{row.processor}`",
            f"`{row.collator}`" if row.collator else "",
            row.support,
            ", ".join(row.media),
            ", ".join(row.pixel_bytes),
            row.shown_on,
            row.note.replace("</s>", "`</s>`"),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "</div>", ""])


MEANINGS: dict[Support, str] = {
    "exact": "with media in the prompt, the answers and their stop tokens train, and nothing else",
    "exact with options": "the same, with the option in the note",
    "refused": "an error names what is missing; `register` a collator to support it",
    "not proven": "the processor could not be built in the test run",
}
