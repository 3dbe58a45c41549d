"""How long labelling takes beside rendering and tokenizing, for chats of many turns.

    python -m benchmarks.labels

Needs the test assets (scripts/fetch_test_assets.py). Each row is the median of several rounds in
which both sides take turns, in CPU time, which other processes hardly change. Every chat is of a
shape that the collator has not seen: its words and outer whitespace are drawn, and the plans of the
rounds before are forgotten. The template itself is known, as in every process after its first
sample.
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


def plain(draw: random.Random, turns: int) -> list[dict[str, Any]]:
    """A chat of questions and answers."""
    return [
        {"role": role, "content": text(draw, 30)}
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


def main() -> int:
    """Prints a row per template, shape and number of turns; exits 1 above the limit."""
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
    return int(worst > _LIMIT)


if __name__ == "__main__":
    sys.exit(main())
