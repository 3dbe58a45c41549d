"""The options of the collator on the command line are those of the library."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from vlmcollate import ConfigError, LocalMedia, PadToLongest
from vlmcollate.cli.app import app
from vlmcollate.cli.loading import load_collator
from vlmcollate.cli.option_values import value_of
from vlmcollate.cli.settings import CollatorSettings

_FACTORY = """
from vlmcollate import collator_for

def make(processor, **options):
    return collator_for(processor, train_on="last_turn", **options)

def failing(processor, **options):
    return {}["key"]

def wrong(processor, **options):
    return processor
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512", 512),
        ("true", True),
        ("batch", "batch"),
        ('["<a>", "<b>"]', ["<a>", "<b>"]),
        ("('a', 'b')", ("a", "b")),
        ("<|im_end|>", "<|im_end|>"),
        ("a-b", "a-b"),
        ("LocalMedia(max_bytes=1000)", LocalMedia(max_bytes=1000)),
        ("PadToLongest(multiple_of=8)", PadToLongest(multiple_of=8)),
        ("PadToLongest", PadToLongest()),
    ],
)
def test_values_are_json_or_literals_or_calls_or_text(text, value):
    assert value_of(text) == value


@pytest.mark.parametrize(
    "text", ["open('x')", "__import__('os')", "plan_packs(1)", "LocalMedia(**{'root': 1})"]
)
def test_nothing_else_is_called(text):
    with pytest.raises(ConfigError, match="expected a public class of vlmcollate"):
        value_of(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("PadToLength", "missing a required argument: 'length'; write PadToLength(side=..., len"),
        ("PadToLength(3)", "too many positional arguments; write PadToLength("),
        ("PadToLength(length=3, sid=1)", "unexpected keyword argument 'sid'; write PadToLength("),
        ("PadToLength(length='x')", "length must be an integer of at least 1, not 'x'"),
        ("PadToLenght(length=3)", "did you mean 'PadToLength'?"),
        ("FirstApplicable(3)", "'int' object is not iterable; write FirstApplicable(strategies="),
    ],
)
def test_a_wrong_call_names_the_option_and_what_the_class_takes(text, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        CollatorSettings(option=[f"padding={text}"]).options()
    assert str(caught.value).startswith("--option padding: ")


def test_options_reach_the_collator(data_folder, tmp_path, monkeypatch):
    config = tmp_path / "collator.yaml"
    config.write_text("max_length: 64\ndummy_media: batch\npadding: PadToLongest(multiple_of=8)\n")
    monkeypatch.chdir(tmp_path)
    settings = CollatorSettings(
        config=config,
        option=["dummy_media=sample", "stop_tokens=<|im_end|>"],
        format="llava",
        train_on="last_turn",
        template_kwargs='{"enable_thinking": false}',
        max_pixels=28 * 28 * 4,
        fps=0.5,
    )
    collator = _loaded(data_folder, settings, max_length=32)
    assert (collator.max_length, collator.dummy_media, collator.format) == (32, "sample", "llava")
    assert collator.padding == PadToLongest(multiple_of=8)
    assert collator.stop_tokens == ("<|im_end|>",)
    assert collator.template_kwargs == {"enable_thinking": False}
    assert collator.train_on == "last_turn"
    assert collator.media.frames.fps == 0.5
    assert collator.num_media_tokens("image", (1000, 1000)) <= 4


def _loaded(folder, settings, **options):
    from rich.console import Console

    return load_collator(Console(quiet=True), str(folder / "processor"), settings, **options)


def test_a_factory_makes_the_collator(data_folder, tmp_path, monkeypatch):
    (tmp_path / "own_collators.py").write_text(_FACTORY)
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    settings = CollatorSettings(collator="own_collators:make", option=["dummy_media=batch"])
    collator = _loaded(data_folder, settings)
    assert (collator.train_on, collator.dummy_media) == ("last_turn", "batch")
    for name, problem in [
        ("own_collators:wrong", "it returned Qwen2_5_VLProcessor"),
        ("own_collators:absent", "no attribute 'absent'"),
        ("no_such_module:make", "No module named"),
        ("own_collators", "expected MODULE:FACTORY"),
        ("own_collators:failing", r"KeyError: 'key', in .*own_collators.py, line 8; name a func"),
        ("json:loads", "failed: TypeError: the JSON object must be str, bytes or bytearray, not"),
        ("broken_module:make", "failed: ZeroDivisionError: division by zero, in .*, line 1;"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            _loaded(data_folder, CollatorSettings(collator=name))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"option": ["dummy_media"]}, "expected name=value"),
        ({"option": ["max_len=3"]}, "did you mean 'max_length'"),
        ({"template_kwargs": "{a: 1}"}, "--template-kwargs is no valid JSON"),
        ({"template_kwargs": "[1]"}, "expected a JSON object"),
        ({"option": ["stop_tokens=3"]}, "stop_tokens must be non-empty strings"),
        ({"option": ["padding=3"]}, "padding must be a PaddingStrategy"),
        ({"option": ["processor=3"]}, "--option processor is wrong: the processor is an argument"),
        ({"option": ["model_config={}"]}, "--option model_config is wrong: it is read from"),
        ({"format": "lava"}, "did you mean 'llava'"),
    ],
)
def test_wrong_options_are_refused(settings, problem, data_folder):
    with pytest.raises(ConfigError, match=problem):
        _loaded(data_folder, CollatorSettings(**settings))


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "3"])
def test_a_wrong_config_is_refused(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match="--config"):
        CollatorSettings(config=tmp_path / "c.yaml").options()


def test_a_config_without_options_has_none(tmp_path):
    (tmp_path / "c.yaml").write_text("# max_length: 512\n")
    assert CollatorSettings(config=tmp_path / "c.yaml").options() == {}


def test_an_error_of_a_config_states_the_place_and_quotes_no_option(tmp_path):
    (tmp_path / "c.yaml").write_text("dummy_media: batch\nmax_length: [1")
    with pytest.raises(ConfigError, match="is no YAML at line 2, character 15: expected") as caught:
        CollatorSettings(config=tmp_path / "c.yaml").options()
    assert "max_length" not in str(caught.value)  # which would be renamed to a flag


def test_a_missing_media_root_is_named_by_its_flag(data_folder, tmp_path):
    with pytest.raises(ConfigError, match="--media-root is wrong: found no folder"):
        _loaded(data_folder, CollatorSettings(), media_root=tmp_path / "absent")


def test_inspect_shows_the_mask_of_the_run_that_follows(data_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    rows = data_folder / "turns.jsonl"
    turns = [("user", "One?"), ("assistant", "One."), ("user", "Two?"), ("assistant", "Two.")]
    rows.write_text(json.dumps({"conversations": [{"from": r, "value": t} for r, t in turns]}))

    def inspect(*options):
        command = ["inspect", str(data_folder / "processor"), str(rows), *options]
        return CliRunner().invoke(app, command)

    assert "[[One.<|im_end|>]]" in inspect().stdout
    last = inspect("--train-on", "last_turn", "-O", "shift_labels=false").stdout
    assert "[[One." not in last
    assert "[[Two.<|im_end|>]]" in last
    assert "\tllava\t" in last
    for choice in ("PartWeights(text=0.5)", '("last_turn", PartWeights(text=0.5))'):
        for flag in (["--train-on", choice], ["-O", f"train_on={choice}"]):
            chosen = inspect(*flag).stdout
            assert "[[Two.<|im_end|>]]" in chosen
            assert ("[[One." in chosen) == (choice[0] == "P")
    split = inspect("-O", "split_turns=true", "--rows", "0:2")
    assert split.stdout.count("[[") == 2
    assert not split.stderr
    refused = inspect("-O", "nothing=1")
    assert refused.exit_code == 1
    assert "'nothing'" in refused.stderr
