"""A bad sample is skipped or replaced, counted, and never hidden without end."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models.by_processor import MODELS
from tests.processors.cases import CASES
from vlmcollate import IGNORE_INDEX, ConfigError, Resample, RobustCollator, collator_for
from vlmcollate.errors import EmptyBatchError, MediaError, TooManyFailuresError
from vlmcollate.testing import tiny_processor


def chat(answer):
    return [{"role": "user", "content": "What?"}, {"role": "assistant", "content": answer}]


def bad(name="missing.png"):
    part = {"type": "image", "image": f"/nowhere/{name}"}
    return [{"role": "user", "content": [part]}, {"role": "assistant", "content": "x"}]


@pytest.fixture
def collator():
    return collator_for(tiny_processor())


def robust(collator, on_error, **options):
    return RobustCollator(collator=collator, on_error=on_error, **options)


def test_skip_drops_the_bad_sample(collator):
    batch = robust(collator, "skip")([chat("one"), bad(), chat("three")])
    expected = collator([chat("one"), chat("three")])
    assert batch.pop("n_failed_samples").item() == 1
    for key, value in expected.items():
        assert torch.equal(batch[key], value)


def test_a_dummy_sample_keeps_the_rows_and_trains_nothing(collator):
    batch = robust(collator, "dummy_sample")([bad(), chat("two")])
    alone = collator([chat("two")])
    assert batch["n_failed_samples"].item() == 1
    assert batch["input_ids"].shape == (2, alone["input_ids"].shape[1])
    assert (batch["labels"][0] == IGNORE_INDEX).all()
    assert batch["attention_mask"][0].sum() == 1
    assert torch.equal(batch["labels"][1], alone["labels"][0])


def test_resample_draws_the_same_everywhere(collator):
    dataset = [chat(f"answer {i}") for i in range(50)]
    policy = Resample(dataset, seed=5)
    first = robust(collator, policy)([bad("a"), bad("b"), dataset[0]])
    again = robust(collator, pickle.loads(pickle.dumps(policy)))([bad("b"), bad("a"), dataset[0]])
    assert first["n_failed_samples"].item() == 2
    assert torch.equal(first["input_ids"][0], again["input_ids"][1])
    assert torch.equal(first["input_ids"][1], again["input_ids"][0])
    other = Resample(dataset, seed=6)
    assert [policy.draws(bad(str(i))) for i in range(9)] != [
        other.draws(bad(str(i))) for i in range(9)
    ]
    assert len({policy.draws(bad(str(i)))[0] for i in range(60)}) > 20


def test_resample_gives_up_with_the_cause(collator):
    policy = Resample([bad(str(i)) for i in range(5)], max_retries=3)
    with pytest.raises(TooManyFailuresError, match="3 other samples failed") as raised:
        robust(collator, policy)([bad("first")])
    assert isinstance(raised.value.__cause__, MediaError)


@pytest.mark.parametrize("dataset", [[], iter([chat("a")])])
def test_resample_needs_samples_to_draw(dataset):
    with pytest.raises(ConfigError, match="map-style dataset"):
        Resample(dataset)


def test_failures_in_a_row_are_counted_over_batches(collator):
    patient = robust(collator, "skip", max_failures=3)
    for _ in range(5):  # never more than two in a row
        patient([bad(), chat("a"), bad()])
    patient([bad(), chat("a"), bad(), bad(), bad()])
    with pytest.raises(TooManyFailuresError, match="4 samples in a row"):
        patient([bad(), chat("a")])


def test_skipping_a_whole_batch_is_an_error(collator):
    with pytest.raises(EmptyBatchError):
        robust(collator, "skip")([bad(), bad()])


@pytest.mark.parametrize("media", ["never", "batch", "sample"])
def test_dummy_samples_give_a_batch_even_if_all_failed(media):
    collator = collator_for(tiny_processor(), dummy_media=media)
    patient = robust(collator, "dummy_sample", max_failures=3)
    for count in (1, 2):
        batch = patient([bad()] * count)
        assert batch["n_failed_samples"].item() == len(batch["input_ids"]) == count
        assert (batch["labels"] == IGNORE_INDEX).all()
        assert (batch["attention_mask"].sum(1) == 1).all()
        images = {"never": 0, "batch": 1, "sample": count}[media]
        assert int(batch.get("n_images_per_sample", torch.zeros(1)).sum()) == images
    with pytest.raises(TooManyFailuresError, match="4 samples in a row"):
        patient([bad()])


def test_dummy_samples_keep_rows_that_dropping_would_lose():
    collator = collator_for(tiny_processor(), max_length=8, on_overlong="drop")
    with pytest.raises(ConfigError, match='on_overlong="raise"'):
        robust(collator, "dummy_sample")
    kept = robust(collator_for(tiny_processor(), max_length=8), "dummy_sample")
    assert kept([chat("a long answer")])["n_failed_samples"].item() == 1


def seen(answer="A cat."):
    image = {"type": "image", "image": Image.new("RGB", (64, 48), "teal")}
    content = [image, {"type": "text", "text": "What?"}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    "name",
    [
        "Gemma3Processor",
        "Gemma4Processor",
        "Llama4Processor",
        "MllamaProcessor",
        "Molmo2Processor",
        "NemotronParseProcessor",
        "PaliGemmaProcessor",
        "Phi4MMProcessor",
        "Qwen2_5_VLProcessor",
        "SmolVLMProcessor",
    ],
)
def test_dummy_samples_of_families_change_no_other_row(name):
    try:
        processor = CASES[name].processor()
    except (AttributeError, ImportError) as error:  # not in every release of transformers
        pytest.skip(str(error))
    collator = collator_for(processor, **CASES[name].options)
    good = collator([seen(), seen("No, a dog.")])
    batch = robust(collator, "dummy_sample")([bad(), seen(), bad(), seen("No, a dog."), bad()])
    assert batch.pop("n_failed_samples").item() == 3
    assert batch.keys() == good.keys()
    for key in ("input_ids", "attention_mask", "labels", "token_type_ids", "mm_token_type_ids"):
        if key not in good:
            continue
        assert torch.equal(batch[key][[1, 3]], good[key]), key
    for row in (0, 2, 4):
        assert (batch["labels"][row] == IGNORE_INDEX).all()
        assert batch["attention_mask"][row].sum() == 1
    nothing = robust(collator, "dummy_sample")([bad()])
    assert len(nothing["input_ids"]) == 1
    assert nothing.keys() - {"n_failed_samples"} <= good.keys()


@pytest.mark.parametrize("media", ["never", "batch", "sample"])
def test_each_row_of_nemotron_parse_has_its_page(media):
    collator = collator_for(CASES["NemotronParseProcessor"].processor(), dummy_media=media)
    batch = robust(collator, "dummy_sample")([bad(), seen(), bad()])
    good = collator([seen()])
    assert len(batch["pixel_values"]) == 3
    assert torch.equal(batch["pixel_values"][1:2], good["pixel_values"])
    assert (batch["pixel_values"][0] == batch["pixel_values"][2]).all()
    start = collator.processor.tokenizer.bos_token_id
    for row in (0, 2):
        assert batch["decoder_input_ids"][row, 0] == start
        assert (
            batch["decoder_attention_mask"][row].tolist() == batch["attention_mask"][row].tolist()
        )
    assert batch["n_images_per_sample"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["MllamaProcessor", "PaliGemmaProcessor"])
def test_models_see_no_difference(name):
    processor = CASES[name].processor()
    torch.manual_seed(0)
    model = MODELS[name](processor).eval()
    collator = collator_for(processor)
    batch = robust(collator, "dummy_sample")([bad(), seen(), bad()])

    def run(batch):
        return model(**{key: value for key, value in batch.items() if not key.startswith("n_")})

    theirs, ours = run(collator([seen()])), run(batch)
    torch.testing.assert_close(ours.logits[1:2], theirs.logits)
    torch.testing.assert_close(ours.loss, theirs.loss)
    alone = run(robust(collator, "dummy_sample")([bad()]))
    assert torch.isfinite(alone.logits).all()


def test_raise_passes_on(collator):
    with pytest.raises(MediaError) as raised:
        robust(collator, "raise")([chat("a"), bad()])
    assert raised.value.index == 1
    assert robust(collator, "raise")([chat("a")])["n_failed_samples"].item() == 0


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_system_errors_are_not_swallowed(collator, error, monkeypatch):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(type(collator.media), "load_image", broken)
    with pytest.raises(error):
        robust(collator, "skip")([bad(), chat("a")])


def test_wrong_options_are_refused(collator):
    with pytest.raises(ConfigError, match="on_error"):
        robust(collator, "ignore")
    with pytest.raises(ConfigError, match="max_failures"):
        robust(collator, "skip", max_failures=0)
    with pytest.raises(ConfigError, match="collator"):
        robust(collator.processor, "skip")


def test_what_is_drawn_depends_on_no_address_and_ends_for_any_row():
    cycle: dict[str, Any] = {}
    cycle["x"] = cycle
    deep: Any = []
    for _ in range(3000):
        deep = [deep]
    policy = Resample([chat("a")] * 1000)
    rows: list[Any] = [
        cycle,
        deep,
        10**5000,
        torch.zeros(3, 5),
        np.zeros(4),
        Image.new("L", (2, 3)),
    ]
    drawn = [policy.draws(row) for row in rows]
    again = [torch.zeros(3, 5), np.zeros(4), Image.new("L", (2, 3))]
    assert [policy.draws(row) for row in again] == drawn[3:]
    assert policy.draws(torch.zeros(5, 3)) != policy.draws(torch.zeros(3, 5))
