"""How long the first sample of a process takes, once its template is compiled.

    python -m benchmarks.first_encode [template ...]

Needs the test assets (scripts/fetch_test_assets.py). A collator reads what a chat template does off
a few short chats, once per process. Each figure is the CPU time of the first `encode` of a plain
chat by a new collator, with the template compiled and the vocabulary read, and the number of chats
that the template renders for it. Without arguments, all templates of the tests' corpus are
measured, and the slowest five are printed.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jinja2
from rich.console import Console
from rich.table import Table
from transformers import logging
from transformers.utils import chat_template_utils

from tests.template_corpus import Judge, templates
from vlmcollate import collator_for
from vlmcollate.errors import CollateError
from vlmcollate.tokens.vocabulary import Vocabulary

_LIMIT = 50.0
_CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
_SHOWN = tuple(
    f"trl/{name}" for name in ("llama3_2", "qwen3", "glm4moe", "qwen3_5_think", "gptoss", "gemma4")
)


def first_encode(template: str) -> tuple[float, int]:
    """The CPU milliseconds of the first sample, and the renderings of its template for it."""
    processor: Any = Judge(template).processor
    chat_template_utils._compile_jinja_template(processor.chat_template)  # it differs by a token
    Vocabulary.of(processor.tokenizer)
    collator = collator_for(processor, on_template_omission="allow", off_prompt="train")
    rendered, begin = [0], jinja2.Template.new_context

    def counted(*args: Any, **kwargs: Any) -> Any:
        rendered[0] += 1
        return begin(*args, **kwargs)

    setattr(jinja2.Template, "new_context", counted)  # noqa: B010  # mypy refuses an assignment
    start = time.thread_time()
    try:
        collator.encode(_CHAT)
    except CollateError:
        pass
    finally:
        seconds = time.thread_time() - start
        setattr(jinja2.Template, "new_context", begin)  # noqa: B010  # as above
    return seconds * 1000, rendered[0]


def main() -> int:
    """Prints a row per template; exits 1 above the limit."""
    logging.set_verbosity_error()
    known = templates()
    chosen = sys.argv[1:] or list(known)
    first_encode(known[_SHOWN[0]] + "{# for what is imported and compiled at the first call #}")
    found = {name: first_encode(known[name]) for name in chosen}
    slowest = sorted(found, key=lambda name: -found[name][0])
    table = Table("template", "CPU ms", "renderings")
    for name in dict.fromkeys([*(n for n in _SHOWN if n in found), *slowest[:5]]):
        table.add_row(name, f"{found[name][0]:.1f}", str(found[name][1]))
    Console(width=100).print(table)
    times = [milliseconds for milliseconds, _ in found.values()]
    print(f"median {statistics.median(times):.1f} ms, maximum {max(times):.1f} (at most {_LIMIT})")
    return int(max(times) > _LIMIT)


if __name__ == "__main__":
    sys.exit(main())
