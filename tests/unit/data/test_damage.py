"""Damage on disk: what is read is right, or an error says why not."""

from __future__ import annotations

import json
import shutil
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import NIGHTLY
from vlmcollate import ConfigError, EncodedSample, collator_for
from vlmcollate.data import PreparedDataset, load_sample, prepare_dataset, save_sample
from vlmcollate.data.sealing import add_seal
from vlmcollate.data.shards import Shard
from vlmcollate.testing import tiny_processor

DAMAGES = 400 if NIGHTLY else 150
"""Over the shards and the manifest of a dataset."""


@pytest.fixture(scope="module")
def collator():
    return collator_for(tiny_processor())


@pytest.fixture(scope="module")
def rows():
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A number, says he."}]}
    image = Image.new("RGB", (56, 56), (90, 7, 200))
    return [
        [
            {
                "role": "user",
                "content": [
                    *([{"type": "image", "image": image}] if number % 2 else []),
                    {"type": "text", "text": f"What is {number}? " * (1 + number)},
                ],
            },
            answer,
        ]
        for number in range(12)
    ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, collator, rows):
    """A dataset of three shards, and its samples."""
    folder = tmp_path_factory.mktemp("prepared") / "out"
    prepare_dataset(rows, folder, collator=collator, rows_per_shard=4)
    dataset = PreparedDataset(folder, collator)
    return folder, [dataset[index] for index in range(len(dataset))]


def equal(left: EncodedSample, right: EncodedSample) -> bool:
    pairs = [(left.message_ids, right.message_ids), (left.media_ids, right.media_ids)]
    for one, other in ((left.tokens, right.tokens), (left.media, right.media)):
        if list(one) != list(other):
            return False
        pairs += [(one[key], other[key]) for key in one]
    return (
        all(one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs)
        and dict(left.media_counts) == dict(right.media_counts)
        and (left.label_strategy, left.documents) == (right.label_strategy, right.documents)
    )


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """The bytes with one random damage: flipped bits, a cut, a swap, zeros, a repetition."""
    out, kind = bytearray(data), int(random.integers(6))
    place = int(random.integers(len(out)))
    size = min(int(random.integers(1, 64)), len(out) - place)
    if kind in (0, 1):
        for at in random.integers(0, len(out), 1 + 3 * kind):
            out[at] ^= 1 << int(random.integers(8))
    elif kind == 2:
        del out[place:]
    elif kind == 3:
        other = int(random.integers(len(out) - size + 1))
        out[place : place + size], out[other : other + size] = (
            data[other : other + size],
            data[place : place + size],
        )
    elif kind == 4:
        out[place : place + size] = bytes(size)
    else:
        out[place:place] = data[place : place + size]
    return bytes(out)


def test_random_damage_is_refused_or_changes_nothing(prepared, collator):
    folder, expected = prepared
    files = sorted(path for path in folder.iterdir() if path.name != "plan.json")
    random, refused, wrong = np.random.default_rng(12), 0, []
    for number in range(DAMAGES):
        file = files[int(random.integers(len(files)))]
        before = file.read_bytes()
        after = damaged(before, random)
        file.write_bytes(after)
        try:
            dataset = PreparedDataset(folder, collator)
            found = [dataset[index] for index in range(len(dataset))]
            if len(found) != len(expected) or not all(map(equal, found, expected)):
                wrong.append(f"{number}: {file.name}")
        except ConfigError:
            refused += 1
        finally:
            file.write_bytes(before)
    assert not wrong
    assert refused > DAMAGES * 0.9


def test_a_resumed_run_verifies_all_bytes(prepared, collator, rows):
    folder, _ = prepared
    file = folder / "000001.arrow"
    before, random = file.read_bytes(), np.random.default_rng(5)
    for place in random.integers(0, len(before), 40).tolist():
        file.write_bytes(before[:place] + bytes([before[place] ^ 4]) + before[place + 1 :])
        with pytest.raises(ConfigError, match=r"000001.arrow' is damaged.*prepare the"):
            prepare_dataset(rows, folder, collator=collator, rows_per_shard=4)
    file.write_bytes(before)
    prepare_dataset(rows, folder, collator=collator, rows_per_shard=4)


@pytest.fixture(scope="module")
def with_pixels(tmp_path_factory, collator):
    """A shard of rows with pixels, without, and with pixels and much text; and its samples."""
    folder = tmp_path_factory.mktemp("pixels") / "out"
    noise = np.random.default_rng(0).integers(0, 255, (2, 224, 224, 3), np.uint8)
    first, second = ([{"type": "image", "image": Image.fromarray(pixels)}] for pixels in noise)
    rows = [
        [
            {
                "role": "user",
                "content": [*image, {"type": "text", "text": "What? " * times}],
            },
            {"role": "assistant", "content": "Noise."},
        ]
        for image, times in ((first, 1), ([], 1), (second, 400), (second, 1))
    ]
    prepare_dataset(rows, folder, collator=collator)
    return folder, [collator.encode(row) for row in rows]


def test_rows_with_pixels_are_read_alone_and_bit_for_bit(with_pixels, collator):
    folder, expected = with_pixels
    index = Shard.of(folder / "000000.arrow").index
    assert index.rows.tolist() == [1, 1, 1, 1]
    assert (index.raws > 0).tolist() == [True, False, False, True]
    dataset = PreparedDataset(folder, collator)
    for row in (2, 0, 3, 1, 2):
        assert equal(dataset[row], expected[row])


def test_large_rows_share_the_memory_of_their_file(with_pixels, collator, monkeypatch):
    folder, expected = with_pixels
    first, second = PreparedDataset(folder, collator), PreparedDataset(folder, collator)
    one, other = first[3].media["pixel_values"], first[3].media["pixel_values"]
    assert one.data_ptr() == other.data_ptr()
    monkeypatch.setattr("vlmcollate.data.shards._map", lambda file, size: None)
    assert all(equal(second[row], sample) for row, sample in enumerate(expected))


def test_a_row_whose_tensors_were_written_to_is_read_as_it_was_prepared(with_pixels, collator):
    folder, expected = with_pixels
    dataset, before = PreparedDataset(folder, collator), (folder / "000000.arrow").read_bytes()
    for row in (3, 0, 2):
        changed = dataset[row]
        for tensor in (*changed.media.values(), *changed.tokens.values()):
            tensor.zero_()
        assert equal(dataset[row], expected[row])
        assert not any(tensor.any() for tensor in changed.media.values())
    assert (folder / "000000.arrow").read_bytes() == before


def test_a_sample_stays_as_it_was_read_when_its_shard_is_replaced(with_pixels, collator):
    folder, expected = with_pixels
    file = folder / "000000.arrow"
    dataset, before = PreparedDataset(folder, collator), file.read_bytes()
    kept = dataset[3]
    other = folder / "other"
    other.write_bytes(bytes(len(before)))
    other.replace(file)
    assert equal(kept, expected[3])
    assert equal(dataset[0], expected[0])  # of the file that was opened
    file.write_bytes(before)


def test_damage_of_any_byte_of_a_row_is_refused_by_this_row_alone(with_pixels, collator):
    folder, expected = with_pixels
    file = folder / "000000.arrow"
    edges, before = Shard.of(file).edges.tolist(), file.read_bytes()
    dataset, random = PreparedDataset(folder, collator), np.random.default_rng(1)
    ends = [place for edge in edges for place in (edge - 1, edge) if edges[0] <= place < edges[-1]]
    places = [*ends, *random.integers(edges[0], edges[-1], 300 if NIGHTLY else 60).tolist()]
    with file.open("r+b", buffering=0) as data:
        for place in places:
            data.seek(place)
            data.write(bytes([before[place] ^ (1 << int(random.integers(8)))]))
            bad = int(np.searchsorted(edges, place, side="right")) - 1
            with pytest.raises(
                ConfigError, match=rf"000000.arrow' is damaged.*bytes of row {bad} were changed"
            ):
                PreparedDataset(folder, collator)[bad]
            for index in {0, 1, 2, 3} - {bad}:
                assert equal(PreparedDataset(folder, collator)[index], expected[index])
            data.seek(place)
            data.write(before[place : place + 1])
        # the file is truncated in a row after it was opened
        dataset[3]
        for size in (edges[3] + 1, edges[4] - 1):
            data.truncate(size)
            with pytest.raises(ConfigError, match="bytes of row 3 were changed"):
                dataset[3]
            with pytest.raises(ConfigError, match="does not end like a shard"):
                PreparedDataset(folder, collator)
            assert equal(dataset[0], expected[0])
    file.unlink()
    with pytest.raises(ConfigError, match=r"000000.arrow' is missing; prepare"):
        PreparedDataset(folder, collator)
    file.write_bytes(before)


def test_shards_that_were_put_elsewhere_are_refused(prepared, collator, rows, tmp_path):
    folder, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(prepared[0], folder)
    prepare_dataset(rows[::-1], other, collator=collator, rows_per_shard=4)
    first, second = folder / "000000.arrow", folder / "000001.arrow"
    kept = first.read_bytes(), second.read_bytes()
    reader = PreparedDataset(folder, collator)

    def refused(message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            PreparedDataset(folder, collator)
        with pytest.raises(ConfigError, match=message):
            prepare_dataset(rows, folder, collator=collator, rows_per_shard=4)

    first.write_bytes(kept[1]), second.write_bytes(kept[0])
    refused("000000.arrow' is another shard: found '000001.arrow'")
    with pytest.raises(ConfigError, match="replaced since it was opened"):
        reader[0]
    first.write_bytes(kept[0]), second.write_bytes(kept[0])
    refused("000001.arrow' is another shard: found '000000.arrow'")
    second.write_bytes((other / "000001.arrow").read_bytes())
    refused("000001.arrow' is of another dataset")
    second.write_bytes(kept[1])
    (folder / "manifest.json").write_bytes((other / "manifest.json").read_bytes())
    with pytest.raises(ConfigError, match=r"000000.arrow' is of another dataset"):
        PreparedDataset(folder, collator)
    prepare_dataset(rows, folder, collator=collator, rows_per_shard=4)
    assert len(PreparedDataset(folder, collator)) == len(rows)


def resealed(facts: dict[str, Any]) -> bytes:
    """A manifest whose seal is right, as if the library had written it."""
    text = json.dumps({**facts, "manifest_seal": "0" * 64}, indent=1, sort_keys=True)
    return add_seal(text.encode(), "manifest_seal")


def test_an_invalid_manifest_is_refused(prepared, collator, rows, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(prepared[0], folder)
    file = folder / "manifest.json"
    whole = file.read_bytes()
    facts = json.loads(whole)

    shards = facts["shards"]

    def having(rows: str, seals: str) -> bytes:
        return resealed({**facts, "shards": {"rows": rows, "seals": seals}})

    seals = [shards["seals"][start : start + 64] for start in range(0, 192, 64)]
    for text, message in [
        (having("", ""), "it has 0 shards and 0 seals"),
        (having("4 4", shards["seals"]), "it has 2 shards and 3 seals"),
        (having("4 4 x", shards["seals"]), "damaged, or no manifest"),
        (having("4 4 4", "".join(seals)[:-2]), "damaged, or no manifest"),
        (having("4 5 4", shards["seals"]), "not the shard that the manifest names"),
        (having("4 4 4", "".join(seals[::-1])), "not the shard that the manifest names"),
        (
            whole.replace(b'"rows": 12', b'"rows": 15'),
            "changed after it was written: found SHA-256",
        ),
        (resealed({**facts, "fingerprint": [1]}), "damaged, or no manifest"),
        (resealed({**facts, "shards": [{"rows": 4}]}), "damaged, or no manifest"),
        (resealed({**facts, "shards": {"a": 1}}), "damaged, or no manifest"),
        (resealed({**facts, "schema": 2}), "has the wrong schema: found 2, expected 5; prepare"),
        *((whole[:size], "damaged, or no manifest") for size in (0, 1, 500, len(whole) - 2)),
        *(
            (text, "damaged, or no manifest")
            for text in (b"[]", b"3", b"null", b"\xff\xfe\x00", b"[" * 100_000, b'{"schema": 5}')
        ),
        (b"9" * 5000, "damaged, or no manifest"),
    ]:
        file.write_bytes(text)
        with pytest.raises(ConfigError, match=message):
            PreparedDataset(folder, collator)
    prepare_dataset(rows, folder, collator=collator, rows_per_shard=4)
    assert file.read_bytes() == whole
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError, match="damaged, or no manifest"):
        PreparedDataset(folder, collator)


def test_a_damaged_sample_is_refused(prepared, tmp_path):
    file, sample = tmp_path / "sample", prepared[1][1]
    save_sample(sample, file)
    before, random = file.read_bytes(), np.random.default_rng(3)
    for _ in range(300):
        after = damaged(before, random)
        file.write_bytes(after)
        if after == before:
            assert equal(load_sample(file), sample)
        else:
            with pytest.raises(ConfigError, match="sample: "):
                load_sample(file)


def test_packs_are_made_of_unchanged_samples(collator, rows, tmp_path, monkeypatch):
    def rotten(**options: Any) -> Any:
        file = TemporaryFile(**options)  # noqa: SIM115  # closed by the encoder
        read = file.read
        monkeypatch.setattr(file, "read", lambda size: damaged(read(size), random), raising=False)
        return file

    random = np.random.default_rng(0)
    monkeypatch.setattr("vlmcollate.data.encoder.TemporaryFile", rotten)
    with pytest.raises(ConfigError, match=r"sample is damaged|no encoded sample"):
        prepare_dataset(rows, tmp_path / "out", collator=collator, packing=True, max_length=400)
