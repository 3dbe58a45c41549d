"""Every chat template that a package carries: exact, or refused for a known reason."""

import re
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import NIGHTLY
from tests.template_corpus import CHATS, EXACT, FORMS, NOT_RENDERED, REASONS, Judge, judge, measure
from tests.template_corpus import templates as found_templates
from vlmcollate.errors import CollateError, LabelError
from vlmcollate.prompt.turns import TurnFinder

TEMPLATES = found_templates()
OF_INFERENCE = [name for name in TEMPLATES if not name.endswith("_training")]
PAGE = Path(__file__).parents[2] / "docs/reference/templates.md"

SWITCHES = {"enable_thinking": (False, True), "thinking": (False, True)}

TRIED = list(TEMPLATES) if NIGHTLY else OF_INFERENCE[::6]
TRIED_CHATS = list(CHATS) if NIGHTLY else ["system and three turns", "reasoning", "text and calls"]


@pytest.mark.parametrize("name", TRIED)
def test_no_template_is_wrong(name):
    collate = judge(TEMPLATES[name])
    found = {collate(chat, form) for chat in TRIED_CHATS for form in FORMS}
    assert found <= {EXACT, NOT_RENDERED, *REASONS.values()}


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("options", [{}, {"empty_reasoning": "drop"}], ids=["as is", "drop"])
def test_the_last_turn_begins_where_generation_does(name, options):
    """The text before it ends like a generation prompt, with some value of each switch."""
    strict = Judge(TEMPLATES[name], {"off_prompt": "error", **options})
    for chat in TRIED_CHATS:
        for form in FORMS:
            if judge(TEMPLATES[name])(chat, form) == EXACT:
                with suppress(LabelError):
                    check_last_start(strict, strict.row(chat, form))


def check_last_start(collate, row):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explanation = collate.collator.explain(row)
    if any(note.kind in ("other_header", "in_parts") for note in explanation.turn_notes):
        return
    sample = explanation.sample
    last = (sample.labels != -100) & (sample.message_ids == len(row["messages"]) - 1)
    before = collate.processor.tokenizer.decode(sample.input_ids[: int(last.nonzero()[0])])
    prompts = prompts_for(collate, row)
    assert any(_behind(before) == _behind(prompt) for prompt in prompts), (before, prompts)


def prompts_for(collate, row):
    """Returns the generation prompts of the last turn, from the template itself."""
    names = [{}, *({name: value} for name, values in SWITCHES.items() for value in values)]
    chat = collate.collator.renderer.inputs(collate.collator.read(row))[0][:-1]
    return [
        collate.processor.apply_chat_template(
            chat, tools=row.get("tools"), add_generation_prompt=True, **variables
        )
        for variables in names
    ]


def _behind(prompt):
    """Returns the end of a prompt, behind the last word of a message."""
    return re.split("Quokka|Bilby|Dunnart|Result(?:ish|two)", prompt)[-1].strip()


SHOWN = ("axolotl/llava", "mistral-common/v3", "trl/qwen3_vl", "trl/gptoss", "unsloth/gemma4")


@pytest.mark.parametrize("name", TEMPLATES if NIGHTLY else SHOWN)
def test_the_page_shows_what_is_measured(name):
    measured = measure(name, TEMPLATES[name])
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    assert (measured.row in rows) == bool(measured.rendered), "run scripts/write_templates_table.py"


def test_most_of_what_a_template_renders_is_exact():
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines()]
    counts = [tuple(map(int, row[2].split(" of "))) for row in rows if " of " in "".join(row[2:3])]
    assert len(counts) > 150
    exact, rendered = map(sum, zip(*counts, strict=True))
    assert exact > 0.95 * rendered


def labelled(judge, name, form):
    try:
        sample = judge.collator.encode(judge.row(name, form))
    except CollateError as error:
        return str(error)
    return sample.input_ids.tolist(), sample.labels.tolist()


@pytest.mark.parametrize("name", TEMPLATES if NIGHTLY else OF_INFERENCE[1::12])
def test_what_is_known_of_turns_changes_none(name, monkeypatch):
    """The starts of turns are those that a rendering of each generation prompt shows."""
    collate = judge(TEMPLATES[name])
    tried = [(chat, form) for chat in TRIED_CHATS for form in FORMS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quick = [[labelled(collate, *one) for one in tried] for _ in range(2)]
        monkeypatch.setattr(TurnFinder, "_is_repeated", lambda *_: False)
        collate.collator.renderer._plans.clear()
        slow = [labelled(collate, *one) for one in tried]
    assert quick == [slow, slow]
