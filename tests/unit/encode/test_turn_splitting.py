"""One sample for each assistant turn that trains."""

from __future__ import annotations

import json
import warnings
from typing import Any

import attrs
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.decoding import trained_texts
from tests.processors.published_templates import processor_with
from vlmcollate import EncodedSample, Resample, RobustCollator, collator_for
from vlmcollate.cli.inspection import inspect_rows
from vlmcollate.cli.survey import survey_rows
from vlmcollate.data import (
    EncodedDataset,
    EncodedIterableDataset,
    PreparedDataset,
    prepare_dataset,
    token_counts,
    within_length,
)
from vlmcollate.errors import ConfigError, LabelError, SampleTooLongError, TemplateOmissionWarning
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.testing import tiny_processor


def _said(*texts: str, **more: Any) -> list[dict[str, Any]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text, **more} for i, text in enumerate(texts)]


CHAT = _said("Quokka?", "Numbat one", "Bilby?", "Potoroo two", "Dunnart?", "Kowari three")
TWO = _said("Quoll?", "Dingo four", "Bandicoot?", "Wallaby five")


@pytest.fixture(scope="module")
def processor():
    return tiny_processor("qwen2_5_vl")


@pytest.fixture(scope="module")
def split(processor):
    return collator_for(processor, split_turns=True)


def _trained(collator, sample):
    return trained_texts(collator.processor.tokenizer, sample.input_ids, sample.labels)


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_each_turn_trains_once_in_a_sample_that_ends_with_it(split):
    samples = split.encode_all(CHAT)
    expected = [["Numbat one<|im_end|>"], ["Potoroo two<|im_end|>"], ["Kowari three<|im_end|>"]]
    assert [_trained(split, sample) for sample in samples] == expected
    assert len(split([CHAT, TWO])["input_ids"]) == 5


def test_without_the_option_an_example_has_one_sample(processor):
    collator = collator_for(processor)
    (sample,) = collator.encode_all(CHAT)
    assert _same(dict(sample.tokens), dict(collator.encode(CHAT).tokens))


def test_each_turn_is_prompted_as_in_generation():
    """Qwen3.5 opens a block for reasoning at its prompt and writes none in earlier turns."""
    whole = collator_for(processor_with("qwen3_5_think"))
    split = attrs.evolve(whole, split_turns=True)
    tokenizer = whole.processor.tokenizer
    prompt = whole.renderer.render(whole.read(CHAT[:1]), None, upto=1)
    assert prompt.endswith("<think>\n")
    first, second, third = split.encode_all(CHAT)
    assert tokenizer.decode(first.input_ids).startswith(prompt)
    assert all("</think>" in _trained(split, s)[0] for s in (first, second, third))
    assert "</think>" not in _trained(whole, whole.encode(CHAT))[0]


def test_weights_and_choices_act_as_on_the_whole_chat(split):
    weighted = [dict(m) for m in CHAT]
    weighted[1]["weight"], weighted[3]["weight"] = 0, 0.5
    second, third = split.encode_all(weighted)
    assert set(second.tokens["loss_weights"].tolist()) == {0.0, 0.5}
    assert "loss_weights" not in third.tokens
    last = attrs.evolve(split, train_on="last_turn")
    assert [_trained(last, s) for s in last.encode_all(CHAT)] == [["Kowari three<|im_end|>"]]
    chosen = attrs.evolve(split, train_on=lambda message: message.text.startswith("Pot"))
    assert [_trained(chosen, s) for s in chosen.encode_all(CHAT)] == [["Potoroo two<|im_end|>"]]
    assert len(chosen.encode(CHAT)) == len(split.encode_all(CHAT)[1])


def test_encode_refuses_what_has_several_samples(split):
    with pytest.raises(ConfigError, match=r"makes 3 samples of this example.*encode_all"):
        split.encode(CHAT)
    with pytest.raises(ConfigError, match="makes 3 samples"):
        split.explain(CHAT)
    with pytest.raises(LabelError, match="nothing is trained"):
        split.encode_all(CHAT[:1])


def test_explanations_are_those_of_the_samples(split):
    explained = split.explain_all(CHAT)
    samples = split.encode_all(CHAT)
    assert [e.sample.labels.tolist() for e in explained] == [s.labels.tolist() for s in samples]
    assert [e.prompt.count("<|im_start|>assistant") for e in explained] == [1, 2, 3]


def test_reasoning_of_earlier_turns_is_no_omission():
    chat = [dict(m, reasoning_content="Ponder") if m["role"] == "assistant" else m for m in CHAT]
    whole = collator_for(processor_with("qwen3"))
    with pytest.warns(TemplateOmissionWarning, match="reasoning_content"):
        whole.encode(chat)
    split = attrs.evolve(whole, split_turns=True, on_template_omission="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = split.encode_all(chat)
        explained = split.explain_all(chat)
    assert all("Ponder" in _trained(split, sample)[0] for sample in samples)
    assert not any("omits" in warning for e in explained for warning in e.warnings)


def test_stats_count_the_samples_beside_one_that_is_too_long(split):
    lengths = [len(sample) for sample in split.encode_all(CHAT)]
    survey = survey_rows(attrs.evolve(split, max_length=lengths[1]), [(0, CHAT), (1, {"x": 1})])
    assert survey.lengths.tolist() == lengths[:2]
    assert {name: count for name, (count, _) in survey.failures.items()} == {
        "SampleTooLongError": 1,
        "ConversationError": 1,
    }


@attrs.frozen(kw_only=True, eq=False)
class Counting(Qwen2_5_VLCollator):
    """Counts the media items that are decoded, and those that its own stage processes."""

    calls: list[tuple[str, int]] = attrs.field(factory=list)

    def load(self, conversation):
        items = super().load(conversation)
        self.calls.append(("load", len(items)))
        return items

    def process_media(self, rendering, media):
        self.calls.append(("process", len(media)))
        return super().process_media(rendering, media)


def _with_images(*counts):
    chat = [dict(m) for m in CHAT]
    for turn, count in enumerate(counts):
        images = [
            {"type": "image", "image": Image.new("RGB", (56 + 28 * turn, 56))} for _ in range(count)
        ]
        chat[2 * turn]["content"] = [*images, {"type": "text", "text": "What?"}]
    return chat


@pytest.mark.parametrize(
    ("counts", "lists"),
    [((2,), [2]), ((1, 1, 1), [1, 2, 3]), ((0, 2, 1), [2, 3]), ((3, 0, 1), [3, 4])],
)
def test_media_is_decoded_once_and_each_list_given_to_a_stage_of_ones_own(processor, counts, lists):
    collator = Counting(processor=processor, split_turns=True)
    samples = collator.encode_all(_with_images(*counts))
    assert collator.calls == [("load", sum(counts)), *(("process", n) for n in lists)]
    shown = [len(sample.media.get("image_grid_thw", ())) for sample in samples]
    assert shown == [sum(counts[: turn + 1]) for turn in range(3)]


def test_only_the_samples_that_are_too_long_are_dropped(split):
    lengths = [len(sample) for sample in split.encode_all(CHAT)]
    short = attrs.evolve(split, max_length=lengths[1])
    with pytest.raises(SampleTooLongError):
        short([CHAT])
    dropping = attrs.evolve(short, on_overlong="drop")
    assert len(dropping([CHAT])["input_ids"]) == 2
    with pytest.raises(SampleTooLongError):
        dropping.encode_all(CHAT)


def test_token_counts_are_those_of_all_samples(split):
    counts = token_counts([CHAT, TWO], split)
    assert counts.tolist() == [sum(map(len, split.encode_all(chat))) for chat in (CHAT, TWO)]


def test_examples_whose_longest_turn_fits_are_kept(split):
    counts = token_counts([CHAT, TWO], split, longest_turn=True)
    assert counts.tolist() == [max(map(len, split.encode_all(chat))) for chat in (CHAT, TWO)]
    assert within_length(counts, int(counts.max())).kept.tolist() == [0, 1]
    plain = attrs.evolve(split, split_turns=False)
    assert (
        token_counts([CHAT], plain, longest_turn=True).tolist()
        == token_counts([CHAT], plain).tolist()
    )


def test_an_iterable_dataset_drops_only_the_samples_that_are_too_long(split):
    lengths = [len(sample) for sample in split.encode_all(CHAT)]
    short = attrs.evolve(split, max_length=lengths[1])
    with pytest.raises(SampleTooLongError, match="sample 0"):
        list(EncodedIterableDataset([CHAT], short))
    dropping = attrs.evolve(short, on_overlong="drop")
    found = [len(sample) for sample in EncodedIterableDataset([CHAT, TWO, CHAT], dropping)]
    assert found[:2] == found[-2:] == lengths[:2]
    whole = attrs.evolve(dropping, split_turns=False)
    assert [len(s) for s in EncodedIterableDataset([CHAT, TWO, CHAT[:2]], whole)][-1] == lengths[0]


def test_an_iterable_dataset_resumes_behind_dropped_samples(split):
    limit = len(split.encode_all(CHAT)[1])
    dropping = attrs.evolve(split, max_length=limit, on_overlong="drop")
    data = [CHAT, TWO, CHAT]
    expected = [len(sample) for sample in EncodedIterableDataset(data, dropping)]
    for read in range(len(expected)):
        first = EncodedIterableDataset(data, dropping)
        samples = iter(first)
        begun = [len(next(samples)) for _ in range(read)]
        rest = EncodedIterableDataset(data, dropping)
        rest.load_state_dict(first.state_dict())
        assert begun + [len(sample) for sample in rest] == expected


def test_a_robust_collator_replaces_whole_examples(split):
    bad = {"messages": 3}
    skipping = RobustCollator(collator=split, on_error="skip")([CHAT, bad])
    assert (len(skipping["input_ids"]), int(skipping["n_failed_samples"])) == (3, 1)
    drawn = RobustCollator(collator=split, on_error=Resample([TWO]))([CHAT, bad])
    assert len(drawn["input_ids"]) == 5
    with pytest.raises(ConfigError, match="split_turns"):
        RobustCollator(collator=split, on_error="dummy_sample")


class Stateful:
    """An iterable dataset with a state of its own."""

    def __init__(self, rows):
        self.rows, self.at = rows, 0

    def __iter__(self):
        while self.at < len(self.rows):
            self.at += 1
            yield self.rows[self.at - 1]
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


@pytest.mark.parametrize("make", [list, Stateful])
@pytest.mark.parametrize("read", range(6))
def test_an_iterable_resumes_inside_an_example(split, make, read):
    rows = [CHAT, TWO]
    expected = [s.input_ids.tolist() for row in rows for s in split.encode_all(row)]
    dataset = EncodedIterableDataset(make(rows), split)
    samples = iter(dataset)
    seen = [next(samples).input_ids.tolist() for _ in range(read)]
    state = json.loads(json.dumps(dataset.state_dict()))
    resumed = EncodedIterableDataset(make(rows), split)
    resumed.load_state_dict(state)
    assert seen + [sample.input_ids.tolist() for sample in resumed] == expected


def test_workers_share_the_examples(split):
    dataset = EncodedIterableDataset([CHAT, TWO, CHAT], split)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert len(list(loader)) == 8


def test_a_map_style_dataset_is_refused(split):
    with pytest.raises(ConfigError, match="EncodedIterableDataset"):
        EncodedDataset([CHAT], split)


def test_prepared_samples_are_those_of_all_turns(split, tmp_path):
    prepare_dataset([CHAT, TWO], tmp_path / "out", collator=split)
    stored = PreparedDataset(tmp_path / "out", split)
    expected = [s for row in (CHAT, TWO) for s in split.encode_all(row)]
    assert len(stored) == 5
    for place, sample in enumerate(expected):
        found = stored[place]
        assert torch.equal(found.input_ids, sample.input_ids)
        assert torch.equal(found.labels, sample.labels)


def test_a_prepared_set_counts_turns_that_are_too_long(split, tmp_path):
    lengths = [len(sample) for sample in split.encode_all(CHAT)]
    dropping = attrs.evolve(split, max_length=lengths[1], on_overlong="drop")
    manifest = prepare_dataset([CHAT, TWO], tmp_path / "out", collator=dropping)
    kept = [s for row in (CHAT, TWO) for s in split.encode_all(row) if len(s) <= lengths[1]]
    assert 0 < len(kept) < 5
    assert manifest.dropped == {"SampleTooLongError": 5 - len(kept)}
    assert len(PreparedDataset(tmp_path / "out", dropping)) == len(kept)


def test_inspect_shows_each_sample(split, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"messages": chat}) for chat in (CHAT, TWO)))
    titles = [row.title for row in inspect_rows(split, rows, diff="TemplateMarkerLabels")]
    assert titles[0] == "row 0, sample 1 of 3"
    assert len(titles) == 5


def test_a_prepared_set_notices_another_function(split, tmp_path):
    def chosen(word):  # functions of one name and different code
        code = f"lambda message: message.text != {word!r}"
        return attrs.evolve(split, train_on=eval(code))  # noqa: S307

    prepare_dataset([CHAT], tmp_path / "out", collator=chosen("Numbat one"))
    assert len(PreparedDataset(tmp_path / "out", chosen("Numbat one"))) == 2
    with pytest.raises(ConfigError, match="train_on"):
        PreparedDataset(tmp_path / "out", chosen("Potoroo two"))


@attrs.frozen(kw_only=True, eq=False)
class InPlaceCollator(Qwen2_5_VLCollator):
    """Changes the pixels of each sample where they are."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        sample.media["pixel_values"].add_(1)
        return super().postprocess(sample)


def test_a_postprocess_that_writes_in_place_changes_one_sample(processor, split):
    image = Image.new("RGB", (56, 56), "teal")
    chat = [
        {"role": "user", "content": [{"type": "image", "image": image}]},
        {"role": "assistant", "content": "Teal."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes."},
    ]
    found = InPlaceCollator(processor=processor, split_turns=True).encode_all(chat)
    for sample, plain in zip(found, split.encode_all(chat), strict=True):
        assert torch.equal(sample.pixels("pixel_values"), plain.pixels("pixel_values") + 1)
