"""The test kit as its users meet it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from typer.testing import CliRunner

from tests.broken import collators as broken
from tests.broken import templates
from tests.broken.missized import Buckets
from tests.conftest import NIGHTLY
from tests.forking import run_in_fresh_package
from vlmcollate import ConfigError, collator_for
from vlmcollate.cli.app import app
from vlmcollate.formats import read_example
from vlmcollate.padding import (
    BlockCausalMask,
    FlattenedDocuments,
    FlexBlockMask,
    IndexedMask,
    PadToLength,
    PadToLongest,
    TransformerEngineTHD,
)
from vlmcollate.testing import (
    LAWS,
    LawFailure,
    audio_clips,
    check_collator,
    conversations,
    hostile_text,
    parametrize_with_checks,
    register_profiles,
    texts,
    tiny_processor,
    videos,
)
from vlmcollate.testing.generators import EXAMPLES, HAZARDS, describe, examples_of, weight_of
from vlmcollate.testing.laws.failure_messages import parts_of, text_of
from vlmcollate.tokens.vocabulary import Vocabulary

PROCESSOR = tiny_processor()
_OF_BATCHES = ("batching", "construction", "packing", "processor_calls", "stacking", "unstacking")
LAWS_OF_BATCHES = [law for law in LAWS if law.__module__.rpartition(".")[2] in _OF_BATCHES]
"""The laws that look at batches; the others look at one sample, which no layout has seen."""
OF_LABELS = [law for law in LAWS if law.__module__.endswith(".labels")]


@parametrize_with_checks(
    [broken.LosesPixels(processor=PROCESSOR)],
    expected_failures={
        "check_unstacking_returns_the_samples": "its pixels are zeros",
        "check_completions_are_encoded_as_alone": "its pixels are zeros",
        "check_a_shared_prompt_keeps_completions_apart": "its pixels are zeros",
        "check_embedded_inputs_are_encoded_as_alone": "its pixels are zeros",
        "check_joined_media_matches_the_processor": "its pixels are zeros",
        "check_pixel_formats_agree": "it takes pixels as tensors",
    },
    examples=3,
)
def test_one_case_a_law(collator, check):
    check(collator)


def test_the_docs_list_every_law():
    shown = (Path(__file__).parents[3] / "docs/how-to/prove-a-collator.md").read_text()
    rows = [f"| `{law.__name__}` | {(law.__doc__ or '').splitlines()[0]} |" for law in LAWS]
    assert [row for row in rows if row not in shown] == []


def test_expected_failures_have_to_be_laws():
    with pytest.raises(ConfigError, match="expected names of laws"):
        parametrize_with_checks([], expected_failures={"check_nothing": "why"})


def test_a_failure_raises_with_its_report():
    with pytest.raises(LawFailure, match="check_only_answers_train") as caught:
        check_collator(broken.ForgetsTheEnd(processor=PROCESSOR), laws=OF_LABELS, examples=3)
    message = str(caught.value)
    assert "never learns to stop" in message
    assert "label strategy: RenderedSpanLabels" in message
    assert "conversation:\n    user: " in message
    assert "[[" in message


def test_the_counterexample_is_small():
    laws = [law for law in LAWS if law.__name__ == "check_only_answers_train"]
    report = check_collator(
        broken.TrainsQuestions(processor=PROCESSOR), laws=laws, raise_on_failure=False, examples=10
    )
    (message,) = (result.message for result in report.failed)
    conversation = message.partition("conversation:\n")[2].partition("what to change")[0]
    assert len(conversation.strip().splitlines()) == 2
    assert len(conversation) < 80


def test_time_can_run_out():
    report = check_collator(collator_for(PROCESSOR), seconds=0.0, examples=1)
    assert {result.status for result in report.results[1:]} == {"not reached"}


@pytest.mark.parametrize("examples", [0, 1.5, True])
def test_bad_options_are_refused(examples):
    with pytest.raises(ConfigError, match="examples must be"):
        check_collator(collator_for(PROCESSOR), examples=examples)
    with pytest.raises(ConfigError, match="profile is unknown"):
        examples_of("slow")


# 600 examples are drawn for "ci" and for "nightly"
@pytest.mark.parametrize("profile", list(EXAMPLES) if NIGHTLY else ["quick"])
def test_each_hazard_appears_in_each_profile(profile):
    register_profiles()
    seen: set[str] = set()
    control = Vocabulary.of(PROCESSOR.tokenizer).pattern

    @settings(
        settings.get_profile(f"vlmcollate-{profile}"),
        # a law draws about fifteen texts an example; this test draws one
        max_examples=min(15 * EXAMPLES[profile], 600),
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(texts(), hostile_text(PROCESSOR))
    def draw(text, hostile):
        seen.update(name for name, known in HAZARDS.items() if any(k in text for k in known))
        if control.search(hostile):
            seen.add("a control token")
        if "assistant\nobey" in hostile:
            seen.add("a forged turn")
        if not control.search(hostile):
            seen.add("half a control token")

    draw()
    assert seen == {*HAZARDS, "a control token", "a forged turn", "half a control token"}


def test_conversations_have_every_shape():
    seen: set[str] = set()

    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(
        conversations(
            processor=PROCESSOR,
            max_turns=5,
            max_images=3,
            max_videos=1,
            max_audio_clips=1,
            strings=True,
            weights=True,
        )
    )
    def draw(messages):
        read_example(messages)
        assert describe(messages).count("\n") >= len(messages) - 1
        roles = [message["role"] for message in messages]
        parts = [part for message in messages for part in parts_of(message)]
        pictures = [part["image"] for part in parts if part["type"] == "image"]
        assert len({picture.getpixel((0, 0)) for picture in pictures}) == len(pictures)
        weights = [weight_of(m) for m in messages if m["role"] == "assistant"]
        assert any(weights)
        answers = [text_of(m) for m in messages if m["role"] == "assistant"]
        asked = "".join(text_of(m) for m in messages[:-1])
        seen.update(
            name
            for name, found in {
                "system": roles[0] == "system",
                "no system": roles[0] == "user",
                "several turns": roles.count("assistant") > 1,
                "many turns": roles.count("assistant") > 3,
                "no picture": not pictures,
                "three pictures": len(pictures) == 3,
                "a video": any(part["type"] == "video" for part in parts),
                "an audio clip": any(part["type"] == "audio" for part in parts),
                "a string": any(isinstance(m["content"], str) for m in messages),
                "a weight": not {0.0, 1.0}.issuperset(weights),
                "an answer left out": 0.0 in weights,
                "an echo": any(
                    text_of(a) == text_of(b) for a, b in zip(messages, messages[1:], strict=False)
                ),
                "a tiny picture": any(min(picture.size) < 32 for picture in pictures),
                "a repeated answer": len(set(answers)) < len(answers),
                "a quoted answer": answers[-1] in asked,
            }.items()
            if found
        )

    draw()
    assert len(seen) == 15, seen


def test_media_is_drawn_as_arrays():
    @settings(max_examples=30, deadline=None, database=None, derandomize=True)
    @given(videos(max_frames=6), audio_clips(max_samples=8000))
    def draw(frames, wave):
        assert frames.dtype == np.uint8
        assert frames.shape[-1] == 3
        assert 4 <= len(frames) <= 6
        assert not (frames[0] == frames[1]).all()
        assert wave.dtype == np.float32
        assert 4000 <= len(wave) <= 8000
        assert np.abs(wave).max() <= 1

    draw()


def test_the_check_command_says_what_it_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    PROCESSOR.save_pretrained(tmp_path)
    runner = CliRunner()
    late = runner.invoke(app, ["check", str(tmp_path), "--seconds", "0"])
    assert late.exit_code == 1
    assert f"{len(LAWS)} laws were not tried" in late.output
    nowhere = str(tmp_path / "missing" / "report.xml")
    refused = runner.invoke(app, ["check", str(tmp_path), "--junit", nowhere])
    assert refused.exit_code == 1
    assert "cannot write" in refused.output
    assert "check_is_frozen" not in refused.output


def test_the_check_command_passes_and_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    runner, good, bad = CliRunner(), tmp_path / "good", tmp_path / "bad"
    PROCESSOR.save_pretrained(good)
    templates.processor("no end token").save_pretrained(bad)
    junit = tmp_path / "report.xml"
    passed = runner.invoke(app, ["check", str(good), "--examples", "2", "--junit", str(junit)])
    assert passed.exit_code == 0, passed.output
    assert passed.output.count("passed") == len(LAWS)
    suite = ElementTree.parse(junit).getroot()  # noqa: S314  # written just now
    assert (suite.get("tests"), suite.get("failures")) == (str(len(LAWS)), "0")
    failed = runner.invoke(app, ["check", str(bad), "--junit", str(junit)])
    assert failed.exit_code == 1
    assert "this turn has no stop token" in failed.output
    assert ElementTree.parse(junit).getroot().get("failures") == "1"  # noqa: S314  # likewise
    one = runner.invoke(app, ["check", str(good), "--law", "check_is_frozen"])
    assert one.output.count("passed") == 1
    none = runner.invoke(app, ["check", str(good), "--law", "check_me"])
    assert none.exit_code == 1
    assert "unknown law check_me" in none.output


def test_tiny_processors_need_no_hypothesis():
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from vlmcollate.testing import tiny_processor\n"
        "tiny_processor()\n"
        "try:\n    from vlmcollate.testing import check_collator\n"
        "except ImportError as error:\n    assert 'vlmcollate[testing]' in str(error), error\n"
        "else:\n    raise AssertionError\n"
    )
    run_in_fresh_package(code)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": BlockCausalMask(additive=True)},
        {"padding": FlattenedDocuments(multiple_of=16), "shift_labels": True},
        {"padding": FlexBlockMask()},
        {"padding": IndexedMask(length=512)},
        {"padding": TransformerEngineTHD()},
        {"padding": PadToLongest(side="left", multiple_of=8), "shift_labels": True},
        {"padding": Buckets(side="left"), "shift_labels": True},
        {"padding": PadToLength(length=1024)},
        {"dummy_media": "sample"},
    ],
    ids=lambda options: " ".join(type(value).__name__ for value in options.values()),
)
def test_the_laws_hold_for_every_layout(options):
    every = NIGHTLY or "padding" not in options
    report = check_collator(
        collator_for(PROCESSOR, **options),
        laws=LAWS if every else LAWS_OF_BATCHES,
        examples=3 if NIGHTLY else 1,
    )
    assert {result.status for result in report.results} == {"passed"}


def test_a_collator_with_options_is_checked_as_it_is():
    collator = collator_for(
        PROCESSOR,
        train_on="last_turn",
        empty_reasoning="mask",
        max_length=512,
        on_overlong="drop",
        special_tokens_in_text="error",
    )
    assert not check_collator(collator, examples=2).failed
