"""Laws of media's placeholders and of samples that are too long."""

from __future__ import annotations

from typing import Any

import attrs
import torch

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation
from vlmcollate.errors import EmptyBatchError, SampleError, SampleTooLongError
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.laws.trial import (
    Chat,
    NotApplicable,
    Subject,
    Trial,
    failure,
    forall,
)
from vlmcollate.tokenizing import Vocabulary


def check_placeholders_equal_features(collator: BaseCollator, trial: Trial) -> None:
    """The prompt has as many tokens for pictures as the processor itself gives them."""
    subject = Subject.of(collator)
    if not subject.images:
        raise NotApplicable("it takes no pictures")
    vocabulary = Vocabulary.of(subject.tokenizer)
    found_ids = (vocabulary.id_of(token) for token in collator.media_tokens["image"])
    wanted = torch.tensor([i for i in found_ids if i is not None], dtype=torch.int64)
    processor = collator.processor

    def check(messages: Chat) -> None:
        pictures = [p["image"] for m in messages for p in m["content"] if p["type"] == "image"]
        text = subject.collator.render(Conversation.from_example(messages)).text
        try:
            given = processor(
                text=[text], images=[pictures], add_special_tokens=False, return_tensors="pt"
            )["input_ids"][0]
        except Exception as error:
            raise NotApplicable(f"the processor cannot be called as a whole: {error}") from error
        sample = subject.collator.encode(messages)
        expected = int(torch.isin(torch.as_tensor(given), wanted).sum())
        found = int(torch.isin(sample.input_ids, wanted).sum())
        if not expected:  # its tokens have other names, so all tokens are counted
            expected, found = len(given), len(sample)
        if found != expected:
            raise failure(
                "the prompt has another number of placeholders than the model has features",
                "return what each placeholder stands for from process_media",
                messages=messages,
                expected=expected,
                found=found,
            )

    forall(trial, subject.chats(min_images=1), check)


def check_media_belongs_to_its_tokens(collator: BaseCollator, trial: Trial) -> None:
    """Every picture of a sample has tokens, in order, and `media_counts` counts it."""
    subject = Subject.of(collator)
    if not subject.images or not collator.media_tokens.get("image"):
        raise NotApplicable("its prompt has no tokens for pictures")

    def check(messages: Chat) -> None:
        number = sum(p["type"] == "image" for m in messages for p in m["content"])
        sample = subject.collator.encode(messages)
        items = [int(i) for i in torch.unique_consecutive(sample.media_ids) if i >= 0]
        if list(dict.fromkeys(items)) != list(range(number)):
            raise failure(
                "the pictures of a sample do not have tokens in their order",
                "keep media_ids as encoding gives them",
                messages=messages,
                expected=list(range(number)),
                found=items,
            )
        if sample.media_counts.get("image", 0) != number:
            raise failure(
                "media_counts does not count the pictures",
                "count them in process_media's order",
                messages=messages,
                expected=number,
                found=dict(sample.media_counts),
            )

    forall(trial, subject.chats(min_images=1), check)


def check_overlong_samples_follow_the_policy(collator: BaseCollator, trial: Trial) -> None:
    """Too long a sample is refused, dropped, or cut, but never inside a picture."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        whole = subject.collator.encode(messages)
        for limit in {len(whole) - 1, len(whole) // 2, 1}:
            if limit < 1:
                continue
            _check_limit(subject.collator, messages, whole, limit)

    forall(trial, subject.chats(), check)


def _check_limit(collator: BaseCollator, messages: Chat, whole: EncodedSample, limit: int) -> None:
    def made(policy: Any) -> BaseCollator:
        return attrs.evolve(collator, max_length=limit, on_overlong=policy)

    told: dict[str, Any] = {"messages": messages, "sample": whole, "collator": collator}
    try:
        made("raise").encode(messages)
    except SampleTooLongError:
        pass
    else:
        raise failure(
            f"{len(whole)} tokens pass max_length={limit}",
            "leave lengths to BaseCollator",
            **told,
        )
    try:
        made("drop")([messages])
    except EmptyBatchError:
        pass
    else:
        raise failure(
            f'{len(whole)} tokens are not dropped by max_length={limit} and on_overlong="drop"',
            "leave lengths to BaseCollator",
            **told,
        )
    try:
        shorter = made("truncate").encode(messages)
    except SampleError:
        return  # nothing would be left to train, or the cut would change the text before it
    if len(shorter) > limit:
        raise failure(
            f"a truncated sample has {len(shorter)} tokens, max_length={limit}",
            "leave lengths to BaseCollator",
            **told,
        )
    for item in range(sum(shorter.media_counts.values())):
        kept = int((shorter.media_ids == item).sum())
        if kept == 0 or (
            len(shorter.media_counts) == len(whole.media_counts)
            and sum(shorter.media_counts.values()) == sum(whole.media_counts.values())
            and kept != int((whole.media_ids == item).sum())
        ):
            raise failure(
                f"truncation cuts through media item {item}",
                "leave lengths to BaseCollator, which cuts before it",
                **told,
            )
