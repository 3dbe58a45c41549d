"""Joins samples that begin alike into one pack, which holds their beginning once.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.stacking import token_rows
from vlmcollate.errors import ConfigError
from vlmcollate.sample import IGNORE_INDEX, Document, EncodedSample


def join_branches(samples: Sequence[EncodedSample], positions: Sequence[Tensor]) -> EncodedSample:
    """Joins samples with one beginning.

    The last token of the beginning stands in every branch, since it predicts the first token of
    each.

    Args:
        samples: The samples, at least two, none of them a pack.
        positions: The position ids of each, (L,) or (L, axes).

    Returns:
        The pack; see `BaseCollator.pack_branches`.

    Raises:
        ConfigError: The samples do not begin alike, or media is not in their beginning.
    """
    start = _common_length(samples)
    rows = token_rows(samples)
    for row, place in zip(rows, positions, strict=True):
        row["position_ids"] = place
    first = samples[0]
    parts = [first.input_ids[:start], *(sample.input_ids[start:] for sample in samples)]
    branch_ids = torch.cat([torch.full_like(part, k) for k, part in enumerate(parts)])
    tokens = {
        key: torch.cat([rows[0][key][:start], *(row[key][start:] for row in rows)])
        for key in rows[0]
    }
    tokens |= {"branch_ids": branch_ids, "document_ids": tokens["attention_mask"].clone()}
    pack = EncodedSample(
        tokens=tokens,
        message_ids=torch.cat(
            [first.message_ids[:start], *(sample.message_ids[start:] for sample in samples)]
        ),
        media_ids=torch.cat(
            [first.media_ids[:start], *(sample.media_ids[start:] for sample in samples)]
        ),
        media=first.media,
        pixel_tables=first.pixel_tables,
        media_counts=first.media_counts,
        label_strategy=first.label_strategy,
    )
    document = Document(
        length=len(pack),
        padded_length=len(pack),
        token_keys=tuple(tokens),
        media_shapes={key: tuple(value.shape) for key, value in pack.media.items()},
        media_counts=dict(pack.media_counts),
        label_strategy=pack.label_strategy,
    )
    return attrs.evolve(pack, documents=(document,))


def _common_length(samples: Sequence[EncodedSample]) -> int:
    """Returns the number of tokens that all branches share, without the last common one."""
    first = samples[0]
    shortest = min(map(len, samples))
    same = torch.ones(shortest, dtype=torch.bool)
    for sample in samples:
        for key in first.tokens.keys() & sample.tokens.keys():
            same &= _equal_rows(sample.tokens[key][:shortest], first.tokens[key][:shortest])
        same &= sample.tokens["labels"][:shortest] == IGNORE_INDEX
        same &= sample.media_ids[:shortest] == first.media_ids[:shortest]
    start = int(same.long().cumprod(0).sum()) - 1
    if start < 1:
        raise ConfigError(
            "these samples have no beginning in common, which a pack of branches would hold once; "
            "stack them as rows"
        )
    if any((sample.media_ids[start:] >= 0).any() for sample in samples):
        raise ConfigError(
            "media is not in the beginning that these samples have in common, so their pack would "
            "hold it more than once; stack them as rows"
        )
    for sample in samples:
        if not _same_media(first.media, sample.media):
            raise ConfigError(
                "these samples have different media in the beginning that they have in common; "
                "stack them as rows"
            )
    return start


def _equal_rows(a: Tensor, b: Tensor) -> Tensor:
    return (a == b).reshape(len(a), -1).all(1)


def _same_media(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    if a.keys() != b.keys():
        return False
    return all(a[key].data_ptr() == b[key].data_ptr() or torch.equal(a[key], b[key]) for key in a)
