"""How long labelling takes beside rendering and tokenizing, for chats of many turns.

    python -m benchmarks.labels

Needs the test assets (scripts/fetch_test_assets.py). Each row is the median of several rounds in
which both sides take turns, in CPU time, which other processes hardly change. Every chat is of a
shape that the collator has not seen: its words and outer whitespace are drawn, and the plans of the
rounds before are forgotten. The template itself is known, as in every process after its first
sample. A second table shows what encoding a long chat takes beyond rendering and tokenizing it, for
shapes that were seen before and for others; it is negative if the tokenizer's own call is slower
than ours.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from rich.console import Console
from rich.table import Table
from transformers import logging

from tests.processors.published_templates import processor_with
from vlmcollate import collator_for

_TURNS = 1, 16, 64, 256
_TEMPLATES = (
    "qwen3_vl",
    "qwen3_5_think",
    "llama3_2",
    "nemotron_3_nano",
    "gptoss",
    "gemma4",
    "diffusion_gemma",
)
_LIMIT = 3.0
_LONG_TURNS, _LONG_TOKENS, _LONG_LIMIT = 188, 32_000, 6.0
_WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty"]
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Looks a place up.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    }
]


def text(draw: random.Random, words: int) -> str:
    """Draws a text."""
    return " ".join(draw.choices(_WORDS, k=words))


def plain(draw: random.Random, turns: int, words: int = 30) -> list[dict[str, Any]]:
    """A chat of questions and answers."""
    return [
        {"role": role, "content": text(draw, words)}
        for _ in range(turns)
        for role in ("user", "assistant")
    ]


def reasoning(draw: random.Random, turns: int) -> list[dict[str, Any]]:
    """A chat whose answers have reasoning."""
    chat = plain(draw, turns)
    for message in chat[1::2]:
        message["reasoning_content"] = text(draw, 20)
    return chat


def tools(draw: random.Random, turns: int) -> list[dict[str, Any]]:
    """The trajectory of an agent: a question, then calls and their results."""
    chat: list[dict[str, Any]] = [{"role": "user", "content": text(draw, 30)}]
    for i in range(turns - 1):
        function = {"name": "lookup", "arguments": {"place": text(draw, 3)}}
        call = {"type": "function", "id": f"call{i:05}", "function": function}
        chat.append({"role": "assistant", "content": text(draw, 10), "tool_calls": [call]})
        chat.append({"role": "tool", "tool_call_id": f"call{i:05}", "content": text(draw, 20)})
    return [*chat, {"role": "assistant", "content": text(draw, 30)}]


def whitespace(draw: random.Random, turns: int) -> list[dict[str, Any]]:
    """A chat whose messages differ in the whitespace around their words."""
    chat = plain(draw, turns)
    for message in chat:
        spaces = draw.choices(["", " ", "\n", "\n\n", "  "], k=2)
        message["content"] = f"{spaces[0]}{message['content']}{spaces[1]}"
    return chat


def ratio(template: str, shape: Any, turns: int) -> tuple[float, float]:
    """The CPU seconds of rendering and tokenizing, and of encoding."""
    draw = random.Random(turns)  # noqa: S311  # words for a benchmark
    processor = processor_with(template)
    collator = collator_for(processor, on_unread="allow", on_template_omission="allow")
    given = _TOOLS if shape is tools else None
    collator.encode({"messages": shape(draw, 3), **({"tools": given} if given else {})})
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(max(5, 60 // turns)):
        chat = shape(draw, turns)
        start = time.thread_time()
        rendered = processor.apply_chat_template(chat, tools=given)
        processor.tokenizer(rendered, add_special_tokens=False)
        times[0].append(time.thread_time() - start)
        collator.renderer._plans.clear()  # what a shape never seen before finds
        row = {"messages": chat, **({"tools": given} if given else {})}
        start = time.thread_time()
        collator.encode(row)
        times[1].append(time.thread_time() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def added(template: str, *, seen: bool) -> tuple[int, float, float]:
    """The tokens of long chats, and the CPU milliseconds of rendering and tokenizing, and beyond.

    Args:
        template: The name of the template.
        seen: Whether chats of the same shape were encoded before.
    """
    draw, words = random.Random(0), 30  # noqa: S311  # words for a benchmark
    processor = processor_with(template)
    collator = collator_for(processor)
    while (tokens := len(collator.encode(plain(draw, _LONG_TURNS, words)))) < _LONG_TOKENS:
        words += 3
    bases, beyond = [], []
    for _ in range(25):
        chat = plain(draw, _LONG_TURNS, words)
        start = time.thread_time()
        processor.tokenizer(processor.apply_chat_template(chat), add_special_tokens=False)
        bases.append(time.thread_time() - start)
        if not seen:
            collator.renderer._plans.clear()
        start = time.thread_time()
        collator.encode(chat)
        beyond.append(time.thread_time() - start - bases[-1])
    return tokens, 1000 * statistics.median(bases), 1000 * statistics.median(beyond)


def print_long_chats() -> bool:
    """Prints a row per template; whether all are within the limit of shapes that were seen."""
    table = Table(
        "template", "tokens", "render and tokenize", "beyond, seen", "at most", "beyond, unseen"
    )
    within = True
    for template in _TEMPLATES[:4]:
        tokens, base, seen = added(template, seen=True)
        unseen = added(template, seen=False)[2]
        within &= seen < _LONG_LIMIT
        found = f"[{'green' if seen < _LONG_LIMIT else 'red'}]{seen:+.1f} ms"
        times = f"{base:.1f} ms", found, f"{_LONG_LIMIT} ms", f"{unseen:+.1f} ms"
        table.add_row(template, f"{tokens:,}", *times)
    Console(width=120).print(f"a chat of {_LONG_TURNS} turns", table)
    return within


def main() -> int:
    """Prints a row per template, shape and number of turns; exits 1 above a limit."""
    logging.set_verbosity_error()
    table = Table("template", "shape", *(f"{turns} turn(s)" for turns in _TURNS))
    worst = 0.0
    for template in _TEMPLATES:
        for shape in (plain, reasoning, tools, whitespace):
            row = []
            for turns in _TURNS:
                base, ours = ratio(template, shape, turns)
                worst = max(worst, ours / base)
                row.append(f"{ours / base:.2f} x of {base * 1000:.1f} ms")
            table.add_row(template, shape.__name__, *row)
    Console(width=120).print(table)
    print(f"the largest ratio is {worst:.2f} (at most {_LIMIT})")
    within = print_long_chats()
    return int(worst > _LIMIT or not within)


if __name__ == "__main__":
    sys.exit(main())
