"""The manifest of a prepared dataset: its shards, and what its encoding depends on.

Shapes: S shards.
"""

from __future__ import annotations

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.data.sealing import UNSEALED, DamagedError, add_seal, checksum, verify_seal
from vlmcollate.data.writing import partial_file
from vlmcollate.errors import ConfigError

SCHEMA = 5
MANIFEST = "manifest.json"
_SEAL = "manifest_seal"
_TOTALS = ("samples", "tokens", "trained_tokens")
_SHOWN = 60
"""The number of characters that a message shows of a value that differs."""
_PLAN = ("fingerprint", "source", "options")


@attrs.frozen(kw_only=True)
class ShardFacts:
    """The contents of one shard.

    Attributes:
        file: The name of its file.
        run: The identifier of the run that wrote it: a hash of its `plan.json`.
        rows: The number of its rows, each a sample or a pack.
        samples: The number of samples in its rows.
        tokens: The tokens of its samples.
        trained_tokens: The trained tokens of its samples.
        lengths: The number of samples up to each power of two, and above the one before.
        dropped: The number of dropped samples, by the error's class.
        examples: The first message of each class.
        digest: The hash of its source rows if they are of a stream, otherwise "".
        seal: The SHA-256 of its index, which holds those of its groups of rows.
    """

    file: str
    run: str
    rows: int
    samples: int
    tokens: int
    trained_tokens: int
    lengths: Mapping[str, int]
    dropped: Mapping[str, int]
    examples: Mapping[str, str]
    digest: str = ""
    seal: str = UNSEALED


_same_arrays = attrs.cmp_using(eq=np.array_equal)


@attrs.frozen
class ShardTable:
    """The shards of a dataset, as columns.

    Attributes:
        rows: (S,) int64, the number of rows of each shard.
        seals: (S,) the SHA-256 of each shard's index, 32 bytes, which holds the checksums of its
            groups of rows.
    """

    rows: npt.NDArray[np.int64] = attrs.field(eq=_same_arrays)
    seals: npt.NDArray[np.void] = attrs.field(eq=_same_arrays, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def seal(self, number: int) -> str:
        """Returns the seal of a shard in hexadecimal digits."""
        seal: bytes = self.seals[number].tobytes()
        return seal.hex()


@attrs.frozen(kw_only=True)
class Manifest:
    """The result of `prepare_dataset`.

    Attributes:
        shards: The shards in order.
        samples: The number of samples in all shards.
        tokens: The tokens of all samples.
        trained_tokens: The trained tokens of all samples.
        lengths: The number of samples with at most n tokens and more than n / 2, by n.
        dropped: The number of dropped samples, by the error's class.
        examples: The first message of each class.
        fingerprint: Everything that the encoding depends on: tokenizer, template, processor, the
            collator's options and versions.
        source: The hash of each file of the source.
        options: The options that cut, packed and selected the samples.
    """

    shards: ShardTable
    samples: int
    tokens: int
    trained_tokens: int
    lengths: Mapping[int, int]
    dropped: Mapping[str, int]
    examples: Mapping[str, str]
    fingerprint: Mapping[str, str]
    source: Mapping[str, str]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, shards: Iterable[ShardFacts], plan: Mapping[str, Any]) -> Manifest:
        """Adds up the facts of shards, which are in order.

        Args:
            shards: The facts of each shard.
            plan: The manifest's `fingerprint`, `source` and `options`.
        """
        rows, seals = array("q"), bytearray()
        totals: Counter[str] = Counter()
        lengths: Counter[int] = Counter()
        dropped: Counter[str] = Counter()
        examples: dict[str, str] = {}
        for facts in shards:
            rows.append(facts.rows)
            seals += bytes.fromhex(facts.seal)
            totals.update({name: getattr(facts, name) for name in _TOTALS})
            lengths.update({int(bound): count for bound, count in facts.lengths.items()})
            dropped.update(facts.dropped)
            examples = {**facts.examples, **examples}
        return cls(
            shards=_table(rows, bytes(seals)),
            samples=totals["samples"],
            tokens=totals["tokens"],
            trained_tokens=totals["trained_tokens"],
            lengths=dict(sorted(lengths.items())),
            dropped=dict(sorted(dropped.items())),
            examples=dict(sorted(examples.items())),
            **plan,
        )

    @property
    def run(self) -> str:
        """The identifier of the run."""
        return run_id(
            {"fingerprint": self.fingerprint, "source": self.source, "options": self.options}
        )

    @property
    def rows(self) -> int:
        """The number of rows in all shards."""
        return int(self.shards.rows.sum())

    def save(self, folder: Path) -> None:
        """Writes the manifest; its file appears only when it is complete."""
        facts = {
            "schema": SCHEMA,
            **{
                name: getattr(self, name)
                for name in (*_TOTALS, "lengths", "dropped", "examples", *_PLAN)
            },
            "rows": self.rows,
            "shards": {
                "rows": " ".join(map(str, self.shards.rows.tolist())),
                "seals": self.shards.seals.tobytes().hex(),
            },
            _SEAL: UNSEALED,
        }
        text = json.dumps(facts, indent=1, sort_keys=True)
        with partial_file(folder / MANIFEST) as file:
            file.write(add_seal(text.encode(), _SEAL))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Manifest:
        """Reads the manifest of a prepared dataset.

        Raises:
            ConfigError: There is no manifest, it has another schema, or it was changed.
        """
        file = Path(folder) / MANIFEST
        try:
            text = file.read_bytes()
            facts = json.loads(text)
            if facts["schema"] != SCHEMA:
                raise ConfigError(
                    f"'{file}' has the wrong schema: found {facts['schema']!r}, expected {SCHEMA}; "
                    "prepare the dataset again, into another folder"
                )
            verify_seal(text, _SEAL, "it was changed after it was written")
            return cls(
                shards=_table(
                    [int(count) for count in facts["shards"]["rows"].split()],
                    bytes.fromhex(facts["shards"]["seals"]),
                ),
                samples=int(facts["samples"]),
                tokens=int(facts["tokens"]),
                trained_tokens=int(facts["trained_tokens"]),
                lengths={int(bound): count for bound, count in facts["lengths"].items()},
                dropped=dict(facts["dropped"]),
                examples=dict(facts["examples"]),
                **{part: dict(facts[part]) for part in _PLAN},
            )
        except FileNotFoundError as error:
            raise ConfigError(
                f"there is no '{file}': no dataset was prepared here, or not completely; run "
                "prepare_dataset again, which resumes an earlier run"
            ) from error
        except ConfigError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RecursionError, DamagedError) as error:
            raise ConfigError(
                f"'{file}' is damaged, or no manifest ({type(error).__name__}: {error}); prepare "
                "the dataset again, which keeps all complete shards"
            ) from error


def _table(rows: Sequence[int], seals: bytes) -> ShardTable:
    table = ShardTable(rows=np.asarray(rows, np.int64), seals=np.frombuffer(seals, "V32"))
    if not len(table.rows) == len(table.seals) > 0:
        raise DamagedError(f"it has {len(table.rows)} shards and {len(table.seals)} seals")
    return table


def shard_name(number: int) -> str:
    """Returns the name of a shard's file."""
    return f"{number:06d}.arrow"


def plan_text(plan: Mapping[str, Any]) -> bytes:
    """Returns the text of `plan.json`: a manifest's `fingerprint`, `source` and `options`."""
    return json.dumps({"schema": SCHEMA, **plan}, indent=1, sort_keys=True).encode()


def run_id(plan: Mapping[str, Any]) -> str:
    """Returns the identifier of a run."""
    return checksum(plan_text(plan))


def check_same(
    expected: Mapping[str, Any], found: Mapping[str, Any], problem: str, remedy: str
) -> None:
    """Refuses a fingerprint, source or options that differ, and names the differences.

    Raises:
        ConfigError: The two differ.
    """
    keys = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
    if keys:
        listed = "; ".join(_difference(key, expected.get(key), found.get(key)) for key in keys)
        raise ConfigError(f"{problem}: {listed}. {remedy}")


def _difference(key: str, there: object, now: object) -> str:
    """Returns two values as text; of long ones, the part that begins shortly before they differ."""
    texts = ["nothing" if value is None else str(value) for value in (there, now)]
    unlike = (i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)
    common = next(unlike, min(map(len, texts)))
    start = 0 if max(map(len, texts)) < _SHOWN else max(common - _SHOWN // 2, 0)
    one, other = (_part(text, start) for text in texts)
    return f"{key}: {one} there, {other} now"


def _part(text: str, start: int) -> str:
    """Returns at most `_SHOWN` characters of a text, and dots for those that are left out."""
    part = text[start:] if not start else f"...{text[start + 3 :]}"
    return part if len(part) < _SHOWN else f"{part[: _SHOWN - 3]}..."
