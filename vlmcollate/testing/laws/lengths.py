"""Laws of samples that are longer than `max_length`."""

from __future__ import annotations

from typing import Any

import attrs
import torch

from vlmcollate.batch.media import with_float_pixels
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import EmptyBatchError, LabelError, SampleError, SampleTooLongError
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.laws.failure_messages import equal_tensors, failure, images_of
from vlmcollate.testing.laws.for_all import Chat, LawFailure, NotApplicable, Trial, forall
from vlmcollate.testing.laws.subject import Subject
from vlmcollate.tokens.vocabulary import Vocabulary

_REMEDY = "leave `max_length` and `on_overlong` to BaseCollator"
_LIMITS_INSIDE_IMAGES = 8
"""The maximum number of limits inside images that are checked per conversation."""


@attrs.frozen(kw_only=True)
class _Case:
    """A conversation and its sample, encoded without `max_length`."""

    collator: BaseCollator
    messages: Chat
    whole: EncodedSample

    @classmethod
    def of(cls, subject: Subject, messages: Chat) -> _Case:
        whole = subject.collator.encode(messages)
        return cls(collator=subject.collator, messages=messages, whole=whole)

    def limited(self, limit: int, policy: Any) -> BaseCollator:
        return attrs.evolve(self.collator, max_length=limit, on_overlong=policy)

    def failure(self, problem: str, **more: Any) -> LawFailure:
        return failure(
            problem,
            _REMEDY,
            messages=self.messages,
            sample=self.whole,
            collator=self.collator,
            **more,
        )


def check_overlong_samples_follow_the_policy(collator: BaseCollator, trial: Trial) -> None:
    """Only samples longer than `max_length` are refused or dropped."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        case = _Case.of(subject, messages)
        length = len(case.whole)
        policies = ("raise", "drop", "truncate", "drop_turns")
        for policy in policies if messages is plain else policies[:1]:
            _check_passes(case, length, policy)
        _check_refuses(case, length - 1)

    plain = subject.chat("Yes")
    few = subject.chats(max_turns=min(3, subject.turns), max_images=min(1, subject.images))
    forall(trial, few, check, also=[plain])


def check_truncation_cuts_no_media(collator: BaseCollator, trial: Trial) -> None:
    """Truncation keeps the longest prefix that fits, with whole images."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        case = _Case.of(subject, messages)
        for limit in _limits(case.whole):
            _check_truncated(case, limit)

    few = subject.chats(max_turns=min(2, subject.turns), max_images=min(1, subject.images))
    forall(trial, few, check, also=_images_after_an_answer(subject))


def check_dropping_turns_keeps_the_newest(collator: BaseCollator, trial: Trial) -> None:
    """`"drop_turns"` removes as few of the oldest exchanges as needed, each as a whole."""
    subject = Subject.of(collator)
    if subject.turns == 1:
        raise NotApplicable("it accepts only one answer")

    def check(messages: Chat) -> None:
        case = _Case.of(subject, messages)
        shorter = [case.collator.encode(chat) for chat in _without_oldest(subject, messages)]
        for sample in shorter:
            if len(sample) >= len(case.whole):
                continue
            expected = next(s for s in shorter if len(s) <= len(sample))
            _check_dropped(case, len(sample), expected)
        if shorter:
            _check_dropped(case, min(map(len, shorter)) - 1, None)

    few = subject.chats(max_turns=3, max_images=min(1, subject.images))
    forall(trial, few, check, also=[subject.chat("Yes", "No", "A cat"), *_divided(subject)])


def _check_passes(case: _Case, length: int, policy: str) -> None:
    try:
        found = case.limited(length, policy).encode(case.messages)
    except SampleError as error:
        raise case.failure(
            f"a sample of {length} tokens is refused with max_length={length} and "
            f"on_overlong={policy!r}",
            expected="the whole sample",
            found=error,
        ) from error
    if not torch.equal(found.input_ids, case.whole.input_ids):
        raise case.failure(
            f"max_length={length} changes a sample of {length} tokens",
            expected=length,
            found=len(found),
        )


def _check_refuses(case: _Case, limit: int) -> None:
    if limit < 1:
        return
    try:
        case.limited(limit, "raise").encode(case.messages)
    except SampleTooLongError:
        pass
    else:
        raise case.failure(
            f"a sample of {len(case.whole)} tokens is not refused with max_length={limit}"
        )
    try:
        case.limited(limit, "drop")([case.messages])
    except EmptyBatchError:
        return
    raise case.failure(
        f"a sample of {len(case.whole)} tokens is not dropped with max_length={limit} and "
        'on_overlong="drop"'
    )


def _images_after_an_answer(subject: Subject) -> list[Chat]:
    """Makes conversations with images after the first answer."""
    if subject.turns == 1 or not subject.images:
        return []
    first = subject.chat("Yes")
    left = subject.images - len(images_of(first))
    return [[*first, *subject.chat("No", images=n)] for n in (1, 2) if n <= left]


def _limits(whole: EncodedSample) -> list[int]:
    """Returns values of `max_length` inside the images, and some others."""
    inside = []
    for item in range(int(whole.media_ids.max()) + 1 if len(whole) else 0):
        at = (whole.media_ids == item).nonzero()[:, 0].tolist()
        if at:
            inside += [at[0] + 1, at[len(at) // 2], at[-1]]
    found = sorted({*inside[-_LIMITS_INSIDE_IMAGES:], len(whole) - 1, len(whole) // 2, 1})
    return [limit for limit in found if 1 <= limit < len(whole)]


def _check_truncated(case: _Case, limit: int) -> None:
    whole = case.whole
    try:
        shorter = case.limited(limit, "truncate").encode(case.messages)
    except SampleError as error:
        has_no_media_tokens = bool(whole.media_counts) and int(whole.media_ids.max()) < 0
        if has_no_media_tokens or isinstance(error, LabelError) or not _trains_before(whole, limit):
            # the refusal is right: no token to train would be left, the cut would change the text
            # before it, or without media tokens it is unknown which images to keep
            return
        raise case.failure(
            f"max_length={limit} refuses the sample, but tokens before the cut are trained",
            expected=f"at most {limit} tokens",
            found=error,
        ) from error
    if len(shorter) > limit:
        raise case.failure(
            f"a truncated sample is longer than max_length={limit}",
            expected=f"at most {limit} tokens",
            found=f"{len(shorter)} tokens",
        )
    _check_beginning(case, shorter, limit)
    _check_whole_media(case, shorter, limit)


def _trains_before(whole: EncodedSample, limit: int) -> bool:
    """Whether the longest prefix with whole images has a trained token."""
    cut = limit
    if int(whole.media_ids[limit]) >= 0:
        cut = int((whole.media_ids == whole.media_ids[limit]).nonzero()[0])
    return bool((whole.labels[: min(cut, limit)] != IGNORE_INDEX).any())


def _check_beginning(case: _Case, shorter: EncodedSample, limit: int) -> None:
    for key in ("input_ids", "labels"):
        text = case.whole.tokens[key][case.whole.media_ids < 0]
        found = shorter.tokens[key][shorter.media_ids < 0]
        if not torch.equal(found, text[: len(found)]):
            raise case.failure(
                f"{key} of the sample truncated to max_length={limit} is no prefix of the whole"
            )


def _check_whole_media(case: _Case, shorter: EncodedSample, limit: int) -> None:
    """Checks that the kept images have all tokens and pixels, others none."""
    whole, number = case.whole, sum(shorter.media_counts.values())
    items = sorted({int(i) for i in shorter.media_ids[shorter.media_ids >= 0]})
    if whole.media_ids.max() >= 0 and items != list(range(number)):
        raise case.failure(
            f"the media tokens of the sample truncated to max_length={limit} differ from its "
            "media_counts",
            expected=f"tokens of {number} images",
            found=f"tokens of the images with media_ids {items}",
        )
    is_media = _is_media_token(case.collator, shorter)
    if (is_media & (shorter.media_ids < 0)).any():
        raise case.failure(f"max_length={limit} keeps media tokens that belong to no image")
    if number == sum(whole.media_counts.values()):
        reference: EncodedSample | None = whole
    else:
        reference = _only_first(case, number)
    if reference is None:
        return
    for item in items:
        kept, full = (
            int((shorter.media_ids == item).sum()),
            int((reference.media_ids == item).sum()),
        )
        if kept != full:
            raise case.failure(
                f"max_length={limit} cuts through image {item + 1}", expected=full, found=kept
            )
    expected = dict(with_float_pixels(reference).media)
    shorter = with_float_pixels(shorter)
    if expected.keys() != shorter.media.keys() or not equal_tensors(
        [expected[k] for k in expected], [shorter.media[k] for k in expected]
    ):
        raise case.failure(
            f"the pixels of the sample truncated to max_length={limit} are not those of the images "
            "that it keeps",
            expected={key: tuple(value.shape) for key, value in expected.items()},
            found={key: tuple(value.shape) for key, value in shorter.media.items()},
        )


def _only_first(case: _Case, number: int) -> EncodedSample | None:
    """Encodes a conversation with its first images; `None` if refused."""
    left, messages = number, []
    for message in case.messages:
        content = message["content"]
        if not isinstance(content, str):
            kept = []
            for part in content:
                left -= part["type"] == "image"
                if part["type"] != "image" or left >= 0:
                    kept.append(part)
            content = kept
        messages.append({**message, "content": content})
    try:
        return case.collator.encode(messages)
    except SampleError:
        return None


def _is_media_token(collator: BaseCollator, sample: EncodedSample) -> torch.Tensor:
    vocabulary = Vocabulary.of(collator.processor.tokenizer)
    ids = [vocabulary.id_of(t) for tokens in collator.traits.media_tokens.values() for t in tokens]
    return torch.isin(sample.input_ids, torch.tensor([i for i in ids if i is not None]))


def _without_oldest(subject: Subject, messages: Chat) -> list[Chat]:
    """Returns the conversation without its oldest exchanges, one by one."""
    first = 1 if messages[0]["role"] == "system" else 0
    roles = [message["role"] for message in messages]
    starts = [
        place
        for place in range(first + 1, len(messages))
        if (roles[place - 1], roles[place]) == ("assistant", "user")
    ]
    found = [[*messages[:first], *messages[start:]] for start in starts]
    return [chat for chat in found if subject.text_only or images_of(chat)]


def _divided(subject: Subject) -> list[Chat]:
    """Makes a conversation whose last question is two messages, if the collator takes it."""
    question, answer = subject.chat("No")
    parts = question["content"][:-1] or [{"type": "text", "text": "Look closely."}]
    halves = [{**question, "content": half} for half in (parts, question["content"][-1:])]
    chat = [*subject.chat("Yes"), *halves, answer]
    try:
        subject.collator.encode(chat)
    except SampleError:
        return []
    return [chat]


def _check_dropped(case: _Case, limit: int, expected: EncodedSample | None) -> None:
    """Checks what is left with a limit; `None` is a refusal."""
    found, problem = None, ""
    try:
        found = case.limited(limit, "drop_turns").encode(case.messages)
    except SampleError as error:
        problem = str(error)
    if found is None or expected is None:
        agrees = found is expected
    else:
        agrees = equal_tensors(
            *(list(s.tokens.values()) for s in (found, expected))
        ) and equal_tensors(*(list(s.media.values()) for s in (found, expected)))
    if not agrees:
        raise case.failure(
            f"max_length={limit} and on_overlong='drop_turns' do not keep the newest exchanges",
            expected="a refusal" if expected is None else f"{len(expected)} tokens",
            found=problem if found is None else f"{len(found)} tokens",
        )
