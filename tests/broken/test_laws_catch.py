"""Each law catches the collator that breaks it, and few others do."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.broken import collators as broken
from tests.broken import (
    mischosen,
    misclassified,
    miscompleted,
    miscontinued,
    misgenerated,
    misignored,
    misjoined,
    mislabelled,
    mismeasured,
    misquoted,
    misread,
    missized,
    misstacked,
    templates,
)
from tests.conftest import NIGHTLY
from vlmcollate import collator_for
from vlmcollate.testing import LAWS, LawFailure, Trial, check_collator
from vlmcollate.testing.laws.for_all import forall
from vlmcollate.testing.laws.subject import Subject

BY_PROBE = {**misjoined.CAUGHT_BY, **mismeasured.CAUGHT_BY, **misquoted.CAUGHT_BY}
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
CAUGHT_BY: dict[type[Any], str] = {
    broken.Changes: "check_is_frozen",
    broken.TakesAnyOption: "check_bad_options_are_refused",
    broken.HoldsALambda: "check_a_pickled_copy_agrees",
    broken.LabelsAnotherToken: "check_labels_are_inputs_or_ignored",
    broken.ForgetsTheEnd: "check_only_answers_train",
    broken.TrainsQuestions: "check_questions_never_train",
    broken.TrainsMedia: "check_media_never_trains",
    broken.PaddingTrains: "check_padding_never_trains",
    broken.TakesControlText: "check_special_tokens_in_text",
    broken.AnswersElsewhere: "check_the_answer_follows_the_generation_prompt",
    broken.TrainsOffPrompt: "check_the_answer_follows_the_generation_prompt",
    broken.LastTurnForgotten: "check_last_turn_alone",
    broken.OnePlaceholderTooFew: "check_placeholders_equal_features",
    broken.LosesMediaIds: "check_media_belongs_to_its_tokens",
    broken.IgnoresLimits: "check_overlong_samples_follow_the_policy",
    broken.ChangesItsInput: "check_input_is_unchanged",
    broken.Random: "check_output_is_deterministic",
    broken.LooksAtNeighbours: "check_rows_do_not_depend_on_neighbours",
    broken.SortsRows: "check_permuting_examples_permutes_rows",
    broken.PadsTooFar: "check_padded_length_is_the_smallest",
    broken.LosesPixels: "check_unstacking_returns_the_samples",
    broken.TakesNothing: "check_an_empty_batch_is_refused",
    broken.MiscountsSamples: "check_a_bad_sample_is_named",
    broken.ShiftsTwice: "check_shifted_labels_are_the_next",
    broken.PositionsRunOn: "check_packed_documents_stay_apart",
    **mischosen.CAUGHT_BY,
    **misclassified.CAUGHT_BY,
    **miscompleted.CAUGHT_BY,
    **miscontinued.CAUGHT_BY,
    **misgenerated.CAUGHT_BY,
    **misignored.CAUGHT_BY,
    **misjoined.CAUGHT_BY,
    **mislabelled.CAUGHT_BY,
    **mismeasured.CAUGHT_BY,
    **misquoted.CAUGHT_BY,
    **misread.CAUGHT_BY,
    **missized.CAUGHT_BY,
    **misstacked.CAUGHT_BY,
}
MOST = 10
"""A wrong label, or another order of rows, breaks the laws of several objectives at once."""

EVERY = 1 if DEEP else 10 if NIGHTLY else 50
BLAMED = list(CAUGHT_BY)[::EVERY]
"""Collators on which every other law is tried, too; all of them in the deep profile."""

PLAIN = "check_accepts_a_plain_question"
TAKES = "check_accepts_what_the_template_accepts"
SAYS = "check_prompt_preserves_messages"
ASKS = "check_the_answer_follows_the_generation_prompt"
BY_TEMPLATE = {
    "no end token": {PLAIN: "this turn has no stop token"},
    "swapped roles": {PLAIN: "whether roles are swapped", ASKS: "are the roles swapped"},
    "asks as the user": {
        PLAIN: "does not begin with the generation prompt",
        ASKS: "does the generation prompt name the wrong role",
    },
    "one role for all": {"check_roles_have_distinct_headers": "cannot distinguish the roles"},
    "echoes the user": {
        PLAIN: "does not begin with the generation prompt",
        SAYS: "the text of messages[1] occurs in the turn of messages[2]",
    },
    "answers twice": {SAYS: "the text of messages[2] occurs twice"},
    "drops the user": {SAYS: "the text of messages[1] is missing"},
    "drops the system": {SAYS: "the text of messages[0] is missing"},
    "shouts": {SAYS: "the text of messages[1] is changed"},
    "shouts answers": {SAYS: "the text of messages[2] is changed"},
    "cuts answers": {PLAIN: "", SAYS: ""},
    "drops pictures": {TAKES: "refuses an image"},
    "pictures late": {SAYS: "the text of messages[1] precedes its image"},
    "trims answers": {},
}
OF_THE_TEMPLATE = [law for law in LAWS if law.__module__.endswith((".accepted", ".prompts"))]


def _law(name: str):
    return next(law for law in LAWS if law.__name__ == name)


@pytest.mark.parametrize("kind", CAUGHT_BY, ids=lambda kind: kind.__name__)
def test_a_broken_collator_is_caught_by_its_law(kind):
    collator = kind(processor=getattr(kind, "example_processor", broken.PROCESSOR))
    report = check_collator(
        collator,
        laws=[_law(CAUGHT_BY[kind])],
        examples=1 if kind in BY_PROBE else 10,
        shrink=False,
        raise_on_failure=False,
    )
    (caught,) = report.results
    assert caught.status == "failed", caught
    assert "what to change: " in caught.message
    assert len(caught.message) < 3000


@pytest.mark.parametrize("kind", BLAMED, ids=lambda kind: kind.__name__)
def test_few_other_laws_blame_it(kind):
    others = [law for law in LAWS if law.__name__ != CAUGHT_BY[kind]]
    report = check_collator(
        kind(processor=broken.PROCESSOR),
        laws=others,
        examples=1,
        shrink=False,
        raise_on_failure=False,
    )
    failed = [result.law for result in report.failed]
    assert len(failed) < MOST, failed


@pytest.mark.parametrize(
    "make", [miscontinued.thinking, miscontinued.trimming, miscontinued.moving]
)
def test_what_the_collator_reports_breaks_no_law(make):
    collator = collator_for(make())
    laws = [_law(name) for name in {*miscontinued.CAUGHT_BY.values()}]
    report = check_collator(collator, laws=laws, examples=10, raise_on_failure=False)
    assert [result.status for result in report.results] == ["passed"] * len(laws), repr(report)


def test_the_processor_may_write_a_token_across_the_end_of_the_prompt():
    """Qwen3.5's tokens of `<think>\\n` and `\\n</think>`: the model writes the second newline."""
    collator = collator_for(miscontinued.thinking())
    law = _law("check_tokens_match_the_processor")
    (result,) = check_collator(collator, laws=[law], raise_on_failure=False).results
    assert result.status == "passed", result.message


def test_every_law_is_shown_to_work():
    by_template = {name for laws in BY_TEMPLATE.values() for name in laws}
    assert {*CAUGHT_BY.values(), *by_template} == {law.__name__ for law in LAWS}


@pytest.mark.parametrize("fault", templates.CHANGES)
def test_a_broken_template_is_named(fault):
    laws = LAWS if DEEP or not BY_TEMPLATE[fault] else OF_THE_TEMPLATE
    collator = collator_for(templates.processor(fault))
    report = check_collator(collator, laws=laws, examples=1, shrink=False, raise_on_failure=False)
    told = {result.law: result.message for result in report.failed}
    assert told.keys() == BY_TEMPLATE[fault].keys(), told
    for name, words in BY_TEMPLATE[fault].items():
        assert words in told[name]
        assert "enable_thinking" not in told[name]
        assert "what to change: " in told[name]


def test_a_root_cause_is_told_once():
    report = check_collator(
        collator_for(templates.processor("no end token")),
        examples=1,
        shrink=False,
        raise_on_failure=False,
    )
    statuses = {r.status for r in report.results if r.message == f"see {PLAIN}"}
    assert statuses == {"not reached"}
    assert len(report.failed) == 1


@pytest.mark.parametrize("kind", [misread.EditsEverySecondTime, misread.EditsLaterRows])
def test_an_edited_example_is_told_once(kind):
    report = check_collator(
        kind(processor=broken.PROCESSOR), examples=2, shrink=False, raise_on_failure=False
    )
    assert [result.law for result in report.failed] == ["check_input_is_unchanged"]
    statuses = {r.status for r in report.results if r.message == "see check_input_is_unchanged"}
    assert statuses <= {"not reached"}
    by_itself = check_collator(
        kind(processor=broken.PROCESSOR),
        laws=[_law("check_permuting_examples_permutes_rows")],
        shrink=False,
        raise_on_failure=False,
    )
    assert by_itself.failed[0].message.startswith("the collator edits its input")


def test_an_exception_names_its_example():
    report = check_collator(
        misread.RaisesOnEmoji(processor=broken.PROCESSOR),
        laws=[_law("check_labels_are_inputs_or_ignored")],
        examples=50,
        shrink=False,
        raise_on_failure=False,
    )
    message = report.failed[0].message
    assert message.startswith("the collator raised KeyError: 'emoji'\nconversation:\n    user: ")


def test_a_cause_that_is_known_is_not_looked_into_again():
    calls, collator = [], misread.RaisesOnEmoji(processor=broken.PROCESSOR)
    trial = Trial(examples=50, known=frozenset({"KeyError: 'emoji'"}))

    def encoded(messages):
        calls.append(messages)
        collator.encode(messages)

    with pytest.raises(LawFailure, match="emoji"):
        forall(trial, Subject.of(collator).chats(max_images=0), encoded)
    assert len(calls) < trial.examples + 2


def test_a_search_for_a_small_example_ends():
    calls, collator = [], broken.TrainsQuestions(processor=broken.PROCESSOR)

    def refused(messages):
        calls.append(messages)
        raise LawFailure(str(len(calls)))

    with pytest.raises(LawFailure):
        forall(Trial(), Subject.of(collator).chats(), refused)
    assert len(calls) < 200


def test_state_is_named():
    report = check_collator(
        misread.EverySeventhIsWrong(processor=broken.PROCESSOR),
        laws=[_law("check_output_is_deterministic")],
        raise_on_failure=False,
    )
    message = report.failed[0].message
    assert "the collator keeps state" in message or "two calls" in message
