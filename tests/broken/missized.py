"""Collators that shorten in a wrong way on purpose, each in one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import attrs

from vlmcollate import EncodedSample
from vlmcollate.encode.overlong import cut
from vlmcollate.errors import SampleTooLongError
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.padding import PaddingStrategy, PadToLongest


def _whole(collator: Qwen2_5_VLCollator, example: object) -> EncodedSample:
    return attrs.evolve(collator, max_length=None, on_overlong="raise").encode(example)


@attrs.frozen(kw_only=True, eq=False)
class RefusesTheExactLength(Qwen2_5_VLCollator):
    """Takes `max_length` for the first length that is too long."""

    def encode(self, example: object) -> EncodedSample:  # type: ignore[misc]
        sample = super().encode(example)
        if len(sample) == self.max_length:
            raise SampleTooLongError(f"{len(sample)} tokens")
        return sample


@attrs.frozen(kw_only=True, eq=False)
class AllowsOneMore(Qwen2_5_VLCollator):
    """Lets a sample pass that is one token too long."""

    def encode(self, example: object) -> EncodedSample:  # type: ignore[misc]
        if self.max_length is None:
            return super().encode(example)
        kind = Qwen2_5_VLCollator
        options = {"processor": self.processor, "on_overlong": self.on_overlong}
        return kind(max_length=self.max_length + 1, **options).encode(example)


@attrs.frozen(kw_only=True, eq=False)
class CutsInsidePictures(Qwen2_5_VLCollator):
    """Cuts anywhere, and keeps pixels and counts."""

    def encode(self, example: object) -> EncodedSample:  # type: ignore[misc]
        if self.on_overlong != "truncate" or self.max_length is None:
            return super().encode(example)
        sample = _whole(self, example)
        return cut(sample, min(len(sample), self.max_length))


@attrs.frozen(kw_only=True, eq=False)
class LeavesPlaceholders(Qwen2_5_VLCollator):
    """Leaves a part of a picture's tokens, without its pixels."""

    def encode(self, example: object) -> EncodedSample:  # type: ignore[misc]
        if self.on_overlong != "truncate" or self.max_length is None:
            return super().encode(example)
        sample = _whole(self, example)
        if len(sample) <= self.max_length:
            return sample
        return attrs.evolve(cut(sample, self.max_length), media={}, media_counts={})


@attrs.frozen(kw_only=True, eq=False)
class KeepsPixels(Qwen2_5_VLCollator):
    """Cuts before a picture, and keeps its pixels."""

    def encode(self, example: object) -> EncodedSample:  # type: ignore[misc]
        sample = super().encode(example)
        return (
            attrs.evolve(sample, media=_whole(self, example).media) if self.max_length else sample
        )


@attrs.frozen(kw_only=True, eq=False)
class NeverTruncates(Qwen2_5_VLCollator):
    """Refuses what it should cut."""

    def encode(self, example: object) -> EncodedSample:  # type: ignore[misc]
        if self.on_overlong == "truncate":
            return attrs.evolve(self, on_overlong="raise").encode(example)
        return super().encode(example)


@attrs.frozen(kw_only=True, eq=False)
class NeverDropsTurns(Qwen2_5_VLCollator):
    """Refuses what it should shorten by its oldest exchanges."""

    def encode(self, example: object) -> EncodedSample:  # type: ignore[misc]
        if self.on_overlong == "drop_turns":
            return attrs.evolve(self, on_overlong="raise").encode(example)
        return super().encode(example)


@attrs.frozen(kw_only=True, eq=False)
class DropsTheNewest(Qwen2_5_VLCollator):
    """Truncates where it should drop the oldest exchanges."""

    def encode(self, example: object) -> EncodedSample:  # type: ignore[misc]
        if self.on_overlong == "drop_turns":
            return attrs.evolve(self, on_overlong="truncate").encode(example)
        return super().encode(example)


@attrs.frozen(kw_only=True, eq=False)
class HalvesTheQuestion(Qwen2_5_VLCollator):
    """Starts at any message of a user, though it is the second half of a question."""

    def encode(self, example: Any) -> EncodedSample:  # type: ignore[misc]
        if self.on_overlong != "drop_turns":
            return super().encode(example)
        strict = attrs.evolve(self, on_overlong="raise")
        system = [m for m in example[:1] if m["role"] == "system"]
        for place, message in enumerate(example):
            with contextlib.suppress(SampleTooLongError):
                if message["role"] == "user":
                    return strict.encode([*system, *example[place:]])
        return strict.encode(example)


@attrs.frozen(kw_only=True)
class Buckets(PaddingStrategy):
    """Pads to the smallest bucket that fits."""

    buckets: tuple[int, ...] = (256, 512, 1024, 2048, 4096)

    def padded_length(self, lengths: Sequence[int]) -> int:
        return min(bucket for bucket in self.buckets if bucket >= max(lengths))

    def permits(self, length: int) -> bool:
        return length in self.buckets


@attrs.frozen(kw_only=True)
class LargestBucket(Buckets):
    """Pads to a bucket that is longer than needed."""

    def padded_length(self, lengths: Sequence[int]) -> int:
        return max(self.buckets)


@attrs.frozen(kw_only=True)
class BetweenBuckets(Buckets):
    """Pads to a length that is no bucket."""

    def padded_length(self, lengths: Sequence[int]) -> int:
        return max(lengths)


@attrs.frozen(kw_only=True)
class UndeclaredBuckets(Buckets):
    """Pads to a bucket, and permits any length."""

    def permits(self, length: int) -> bool:
        return True


@attrs.frozen(kw_only=True)
class MoreForMoreRows(PadToLongest):
    """Pads by the number of rows, too."""

    def padded_length(self, lengths: Sequence[int]) -> int:
        return max(lengths) + len(lengths) - 1


@attrs.frozen(kw_only=True, eq=False)
class PadsToTheLargestBucket(Qwen2_5_VLCollator):
    """Wastes a part of each row."""

    padding: PaddingStrategy = attrs.field(factory=LargestBucket)


@attrs.frozen(kw_only=True, eq=False)
class PadsBetweenBuckets(Qwen2_5_VLCollator):
    """Pads to any length."""

    padding: PaddingStrategy = attrs.field(factory=BetweenBuckets)


@attrs.frozen(kw_only=True, eq=False)
class HidesItsBuckets(Qwen2_5_VLCollator):
    """Pads to buckets without declaring them."""

    padding: PaddingStrategy = attrs.field(factory=UndeclaredBuckets)


@attrs.frozen(kw_only=True, eq=False)
class PadsByTheNumberOfRows(Qwen2_5_VLCollator):
    """Pads large batches too far."""

    padding: PaddingStrategy = attrs.field(factory=MoreForMoreRows)


CAUGHT_BY: dict[type[Any], str] = {
    RefusesTheExactLength: "check_overlong_samples_follow_the_policy",
    AllowsOneMore: "check_overlong_samples_follow_the_policy",
    CutsInsidePictures: "check_truncation_cuts_no_media",
    LeavesPlaceholders: "check_truncation_cuts_no_media",
    KeepsPixels: "check_truncation_cuts_no_media",
    NeverTruncates: "check_truncation_cuts_no_media",
    NeverDropsTurns: "check_dropping_turns_keeps_the_newest",
    HalvesTheQuestion: "check_dropping_turns_keeps_the_newest",
    DropsTheNewest: "check_dropping_turns_keeps_the_newest",
    PadsToTheLargestBucket: "check_padded_length_is_the_smallest",
    PadsBetweenBuckets: "check_padded_length_is_the_smallest",
    HidesItsBuckets: "check_padded_length_is_the_smallest",
    PadsByTheNumberOfRows: "check_padded_length_is_the_smallest",
}
