"""Each law catches the collator that breaks it, and few others do."""

from __future__ import annotations

import pytest

from tests.broken import collators as broken
from vlmcollate import collator_for
from vlmcollate.testing import LAWS, check_collator

CAUGHT_BY = {
    broken.NotDecorated: "check_is_frozen",
    broken.TakesAnyOption: "check_bad_options_are_refused",
    broken.HoldsALambda: "check_a_pickled_copy_agrees",
    broken.LabelsAnotherToken: "check_labels_are_inputs_or_ignored",
    broken.ForgetsTheEnd: "check_only_answers_train",
    broken.TrainsQuestions: "check_questions_never_train",
    broken.TrainsMedia: "check_media_never_trains",
    broken.PaddingTrains: "check_padding_never_trains",
    broken.TakesControlText: "check_control_text_stays_text",
    broken.AnswersElsewhere: "check_the_answer_follows_the_generation_prompt",
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
}
BY_TEMPLATE = "check_takes_a_plain_question"
MOST = 5
"""A wrong label breaks a few laws at once."""


@pytest.mark.parametrize("kind", CAUGHT_BY, ids=lambda kind: kind.__name__)
def test_a_broken_collator_is_caught_by_its_law(kind):
    collator = kind(processor=broken.PROCESSOR)
    report = check_collator(collator, raise_on_failure=False, examples=10)
    failed = [result.law for result in report.failed]
    assert CAUGHT_BY[kind] in failed
    assert len(failed) <= MOST, failed
    message = next(r.message for r in report.failed if r.law == CAUGHT_BY[kind])
    assert "what to change: " in message
    assert len(message) < 3000


def test_every_law_is_shown_to_work():
    assert {*CAUGHT_BY.values(), BY_TEMPLATE} == {law.__name__ for law in LAWS}


@pytest.mark.parametrize(
    ("build", "fault"),
    [
        (broken.swapped_roles, "writes a turn unlike its generation prompt"),
        (broken.no_end_token, "nothing ends this turn"),
        (broken.echoes_the_user, "writes a turn unlike its generation prompt"),
    ],
)
def test_a_broken_template_is_named(build, fault):
    report = check_collator(collator_for(build()), raise_on_failure=False)
    assert [result.law for result in report.failed] == [BY_TEMPLATE]
    assert fault in report.failed[0].message
    assert {result.status for result in report.results[1:]} == {"not reached"}
