"""Probes a processor for the joining rules of its media, and for changes to the prompt.

Shapes: M media items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation, MediaKind, MediaPart, Message, TextPart
from vlmcollate.encode.processor_facts import ProcessorTraits
from vlmcollate.errors import CollateError, ConfigError
from vlmcollate.family import Family
from vlmcollate.media import (
    Concatenate,
    Join,
    PadAndConcatenate,
    Stack,
    Video,
    processor_inputs,
)
from vlmcollate.media.processing.result import as_tensor
from vlmcollate.tokens.identity_cache import IdentityCache

_PROCESSOR_ERRORS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, OSError)
_SIZES = (((64, 48),), ((200, 120), (96, 160)), ((48, 200),), ((480, 480),))
_LARGE = 1000, 720
"""The size of an image of which some processors return more keys, such as its tiles."""
_CHECKED = IdentityCache[set[MediaKind]]()
"""For each processor, the kinds of media around which it does not change the prompt."""


def check_prompt(collator: BaseCollator, kind: MediaKind) -> None:
    """Refuses a processor that changes more of a prompt than its placeholders."""
    checked = _CHECKED.get_or_make(collator.processor, set)
    if kind in checked:
        return
    part = MediaPart(kind, source=None, where="probe")
    question = Message(role="user", content=(part, TextPart("What is it?")))
    answer = Message(role="assistant", content=(TextPart("This."),))
    rendering = collator.render(Conversation(messages=(question, answer)))
    media = [_PROBES[kind]()[-1][0][0]]
    try:
        (text,) = BaseCollator.process_media(collator, rendering, media).replacements
        output = collator.processor(
            text=[rendering.text], add_special_tokens=False, **processor_inputs([kind], media)
        )
    except (CollateError, torch.OutOfMemoryError):  # which shows nothing about the processor
        raise
    except _PROCESSOR_ERRORS as error:
        raise _refusal(collator.processor, kind, error) from error
    (span,) = rendering.media
    expanded = rendering.text[: span.start] + text + rendering.text[span.end :]
    ours = collator.processor.tokenizer(expanded, add_special_tokens=False)["input_ids"]
    if list(output["input_ids"][0]) != list(ours):
        raise ConfigError(
            f"{type(collator.processor).__name__} changes the prompt around its {kind} media, "
            "which the default collator does not support; write a collator for it"
        )
    checked.add(kind)


def _refusal(processor: Any, kind: MediaKind, error: Exception) -> ConfigError:
    if processor.tokenizer.pad_token is None:
        return ConfigError(
            f"the tokenizer of {type(processor).__name__} has no padding token, with which the "
            "processor pads; set processor.tokenizer.pad_token, to its eos_token for example"
        )
    reason, _, _ = str(error).partition("\n")  # advice to callers of the processor follows
    return ConfigError(
        f"{type(processor).__name__} does not take {kind} media from the default collator; "
        f"write a collator for it: {reason}"
    )


class Probed(NamedTuple):
    """The traits of a processor: its joining rules, its key of token types, and its kinds."""

    joins: dict[str, Join]
    token_types: str | None
    kinds: frozenset[MediaKind]


_KNOWN = IdentityCache[Probed]()


def probe(processor: Any) -> Probed:
    """Tries a processor on a few media items, once per process.

    Raises:
        ConfigError: The processor refuses images from collators, or no rule joins its results for
            them.
    """
    return _KNOWN.get_or_make(processor, lambda: _probe(processor))


def _probe(processor: Any) -> Probed:
    joins: dict[str, Join] = {}
    types: list[str] = []
    kinds: set[MediaKind] = set()
    placeholders = ProcessorTraits.of(processor, Family()).placeholders
    for kind, placeholder in placeholders.items():
        for samples in _PROBES[kind]():
            try:
                found, types = _probe_kind(processor, kind, placeholder, samples)
            except ConfigError:
                if kind == "image":
                    raise
                continue  # media of this kind is refused later, since its keys are undeclared
            joins |= found
            kinds.add(kind)
            break
    return Probed(joins, types[0] if types else None, frozenset(kinds))


def _probe_kind(
    processor: Any, kind: MediaKind, placeholder: str, samples: list[list[Any]]
) -> tuple[dict[str, Join], list[str]]:
    """Returns the joining rules of one kind, and the keys of token types."""
    call = partial(_call, processor, kind, placeholder, samples)
    singles, batch = [call(slice(i, i + 1)) for i in range(len(samples))], call(slice(None))
    types: list[str] = [k for k in ("mm_token_type_ids", "token_type_ids") if k in batch]
    text_keys = {"input_ids", "attention_mask", *types}
    along_tokens = _along_tokens(batch, text_keys)
    if along_tokens:  # a key may have this length by chance, but then not grow with the text
        along_tokens &= _along_tokens(call(slice(None), "What is it?"), text_keys)
    joins = {}
    for key in (key for key in batch if key not in text_keys):
        values = [single[key] for single in singles if key in single]
        rows = _counting(kind, [len(items) for items in samples], values)
        rows = rows or _counter_of(key, singles)
        join = _join_of(key, values, batch[key], processor)
        is_by_row = not (isinstance(join, Concatenate) and join.axis)
        joins[key] = attrs.evolve(join, rows=rows) if is_by_row else join
    if kind == "image":
        large = _call(processor, kind, placeholder, [[Image.new("RGB", _LARGE)]], slice(None))
        for key in (key for key in large if key not in text_keys and key not in joins):
            joins[key] = Concatenate(rows=_counter_of(key, [*singles, large]))
    if along_tokens & joins.keys():
        raise ConfigError(
            f"{type(processor).__name__} returns {sorted(along_tokens)} along the tokens, "
            "which the default collator cannot pad; write a collator for it"
        )
    return joins, types


def _call(
    processor: Any,
    kind: MediaKind,
    placeholder: str,
    samples: list[list[Any]],
    at: slice,
    behind: str = "",
) -> dict[str, Any]:
    """Returns the processor's output for some of the samples."""
    chosen = samples[at]
    given = processor_inputs([kind] * sum(map(len, chosen)), [*chain(*chosen)])
    if kind == "image":
        given["images"] = chosen
    try:
        output = processor(
            text=[placeholder * len(items) + behind for items in chosen],
            padding=True,
            add_special_tokens=False,
            **given,
        )
    except torch.OutOfMemoryError:
        raise
    except _PROCESSOR_ERRORS as error:
        raise _refusal(processor, kind, error) from error
    return {key: as_tensor(value) for key, value in output.items() if key not in _METADATA}


def _images() -> list[list[list[Any]]]:
    return [[[Image.new("RGB", size, (90, 40 * i, 7)) for i, size in enumerate(s)] for s in _SIZES]]


def _videos() -> list[list[list[Any]]]:
    def video(frames: int, height: int, width: int = 64) -> Video:
        pixels = np.full((frames, height, width, 3), 30 * frames, np.uint8)
        at = np.arange(frames)
        return Video(
            frames=pixels, times=at / 2, indices=at, total_frames=frames, duration=frames / 2
        )

    of_many_lengths = [[video(4, 48)], [video(6, 96), video(4, 48)], [video(8, 64)]]
    whole, wider = video(8, 224, 224), video(8, 224, 448)  # sides that need no resizing
    of_one_length = [[whole], [wider, whole], [wider]]
    return [of_many_lengths, of_one_length]


def _audio() -> list[list[list[Any]]]:
    tone = np.sin(np.arange(48000) / 30).astype(np.float32) / 2
    quiet = tone / 5  # padding that depends on the audio has no single value
    several = [[tone[:16000]], [quiet[:8000], tone[:40000]], [tone]]
    one_a_sample = [[quiet[:16000]], [tone[:40000]], [tone]]
    return [several, one_a_sample]


_PROBES: dict[MediaKind, Callable[[], list[list[list[Any]]]]] = {
    "image": _images,
    "video": _videos,
    "audio": _audio,
}
"""For each kind, the batches of samples to try until the processor accepts one."""
_METADATA = {"video_metadata", "text_replacement_offsets"}


def _along_tokens(batch: Mapping[str, Any], known: set[str]) -> set[str]:
    length = batch["input_ids"].shape[1]
    return {
        key
        for key, value in batch.items()
        if key not in known and isinstance(value, Tensor) and value.shape[1:2] == (length,)
    }


def _join_of(key: str, singles: list[Any], batch: Any, processor: Any) -> Join:
    for rule in (
        lambda *_: Concatenate(),
        _padded_alike,
        lambda *_: Stack(),
        lambda *_: Concatenate(axis=-1),
    ):
        try:
            join: Join = rule(key, singles, batch)
            joined = join(singles, key=key)
        except (CollateError, ValueError, RuntimeError, TypeError, AttributeError, LookupError):
            continue  # this rule does not fit the shapes
        if isinstance(batch, Tensor) and _agree(joined, batch):
            return join
    shapes = ", ".join(map(_shape, singles))
    raise ConfigError(
        f"no built-in join makes the batch of {type(processor).__name__}: found {key!r} of shape "
        f"{_shape(batch)} for samples of shapes {shapes}; write a Join, and declare it in the "
        "family of a subclass"
    )


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _counting(kind: MediaKind, items: list[int], values: list[Any]) -> str | None:
    """Returns `Join.rows` for a key of samples with these numbers of items."""
    rows = [len(value) if isinstance(value, Tensor) and value.ndim else 0 for value in values]
    if rows == items:
        return kind
    return f"samples with {kind}" if rows == [1] * len(items) else None


def _counter_of(key: str, singles: list[dict[str, Any]]) -> str | None:
    """Returns the key of the grids that have as many cells as there are rows, or of their number.

    Each item has a row of such a key; items without a row of `key` have none of its cells.
    """
    rows = [len(single[key]) if key in single else 0 for single in singles]
    for other in singles[0]:
        counts = [single.get(other) for single in singles]
        grids = [g for g in counts if isinstance(g, Tensor) and not g.is_floating_point()]
        dimensions = {g.ndim for g in grids}
        is_counter = (dimensions, "grid" in other) == ({2}, True) or (
            dimensions == {1} and other.startswith("num_")
        )
        if len(grids) == len(counts) and is_counter and rows == list(map(_cells, grids)):
            return str(other)
    return None


def _cells(grids: Tensor) -> int:
    return int(grids.reshape(len(grids), -1).prod(dim=1).sum())


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    """Returns whether two tensors are equal up to the rounding of sums."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    if not ours.is_floating_point():
        return torch.equal(ours, theirs)
    return torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)


def _padded_alike(key: str, singles: list[Any], batch: Tensor) -> PadAndConcatenate:
    """Returns padding with the value that the batch has outside the samples."""
    zeros, ones = (PadAndConcatenate(value=value)(singles, key=key) for value in (0, 1))
    value: float = batch[zeros != ones].flatten()[0].item()
    return PadAndConcatenate(value=value)
