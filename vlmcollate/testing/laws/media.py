"""Laws of media: the tensors are those of the processor, and every item has its tokens."""

from __future__ import annotations

from typing import Any

import torch
from PIL import ImageOps
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConversationError
from vlmcollate.formats import read_example
from vlmcollate.media.processing.result import as_tensor
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.laws.failure_messages import failure, images_of, media_of, videos_of
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.probes import probes
from vlmcollate.testing.laws.subject import Subject
from vlmcollate.tokens.vocabulary import Vocabulary

_SIZES = ("five images", "a large image", "a narrow image")


def check_placeholders_equal_features(collator: BaseCollator, trial: Trial) -> None:
    """The number of image tokens equals that of the processor."""
    subject = _with_images(collator)
    vocabulary = Vocabulary.of(subject.tokenizer)
    found_ids = (vocabulary.id_of(token) for token in collator.traits.media_tokens["image"])
    wanted = torch.tensor([i for i in found_ids if i is not None], dtype=torch.int64)

    def check(messages: Chat) -> None:
        output = _process(collator, messages)
        if "input_ids" not in output:
            raise NotApplicable("the processor cannot be called as a whole")
        given = torch.as_tensor(output["input_ids"][0])
        sample = subject.collator.encode(messages)
        expected = int(torch.isin(given, wanted).sum())
        found = int(torch.isin(sample.input_ids, wanted).sum())
        if not expected:  # its media tokens are not known by name, so all control tokens count
            expected, found = (
                int(vocabulary.is_control(ids.numpy()).sum()) for ids in (given, sample.input_ids)
            )
        if found != expected:
            raise failure(
                "the number of media tokens differs from the number of features",
                "return the expansion of each placeholder from process_media",
                messages=messages,
                sample=sample,
                collator=subject.collator,
                expected=expected,
                found=found,
            )

    forall(trial, subject.chats(min_images=1), check)


def check_media_matches_the_processor(collator: BaseCollator, trial: Trial) -> None:
    """Pixels, grids and sizes equal those of the processor."""
    subject = _with_images(collator)

    def compare(messages: Chat) -> None:
        output = _process(collator, messages)
        sample = subject.collator.encode(messages)
        keys = [key for key in collator.family.joins if key in output]
        if not keys:
            raise NotApplicable("the processor returns none of the media keys by itself")
        for key in keys:
            _compare(key, sample, as_tensor(output[key]), messages)

    def check(messages: Chat) -> None:
        compare(messages)
        compare(_inverted(messages))  # different images of the same shape, to detect a cache

    few = subject.chats(min_images=1, max_turns=min(2, subject.turns))
    forall(trial, few, check, also=probes(subject, *_SIZES))
    for messages in probes(subject, "a video"):
        _compare_frames(collator, subject.collator.encode(messages), messages)


def check_token_types_match_the_processor(collator: BaseCollator, trial: Trial) -> None:
    """The token types equal those of the processor."""
    subject, types = _with_images(collator), collator.family.token_types
    if types is None:
        raise NotApplicable("its model has no token types")
    key = types.key

    def check(messages: Chat) -> None:
        output = _process(collator, messages)
        sample = subject.collator.encode(messages)
        ids = output["input_ids"] if "input_ids" in output and key in output else [[]]
        if list(ids[0]) != sample.input_ids.tolist():
            if videos_of(messages):
                return  # without metadata, it writes timestamps that differ from the collator's
            raise NotApplicable("the processor returns no token types for the same tokens")
        expected = torch.as_tensor(output[key][0])
        if not torch.equal(sample.tokens[key], expected):
            raise failure(
                f"{key} differs from the output of the processor",
                "leave token types to BaseCollator, and add a type for each token that you insert",
                messages=messages,
                sample=sample,
                collator=subject.collator,
                expected=expected.tolist(),
                found=sample.tokens[key].tolist(),
            )

    forall(trial, subject.chats(min_images=1), check, also=probes(subject, "a video"))


def check_media_belongs_to_its_tokens(collator: BaseCollator, trial: Trial) -> None:
    """Every image has its tokens, in order, and is counted."""
    subject = _with_images(collator)
    if not collator.traits.media_tokens.get("image"):
        raise NotApplicable("its prompt has no image tokens")

    def check(messages: Chat) -> None:
        number = len(images_of(messages))
        sample = subject.collator.encode(messages)
        items = [int(i) for i in torch.unique_consecutive(sample.media_ids) if i >= 0]
        if list(dict.fromkeys(items)) != list(range(number)):
            raise failure(
                "media_ids does not number the images of the sample in their order",
                "keep media_ids as encode returns them",
                messages=messages,
                expected=list(range(number)),
                found=items,
            )
        if sample.media_counts.get("image", 0) != number:
            raise failure(
                "media_counts differs from the number of images",
                "count every image that process_media processes",
                messages=messages,
                expected=number,
                found=dict(sample.media_counts),
            )

    forall(trial, subject.chats(min_images=1), check, also=probes(subject, "five images"))


def check_text_makes_no_media_tokens(collator: BaseCollator, trial: Trial) -> None:
    """No message that spells a token of media makes that token."""
    del trial
    subject = _with_images(collator)
    vocabulary = Vocabulary.of(subject.tokenizer)
    for shown in probes(subject, "a large image"):
        sample = subject.collator.encode(shown)
        ids = torch.unique(sample.input_ids[sample.media_ids >= 0])
        for token_id in ids[torch.from_numpy(vocabulary.is_control(ids.numpy()))].tolist():
            token = subject.tokenizer.convert_ids_to_tokens(token_id)
            _check_spelled(subject, token, token_id)


def _check_spelled(subject: Subject, token: str, token_id: int) -> None:
    """Compares a conversation that spells a token with one that does not."""
    plain, spelled = subject.chat("so"), subject.chat(f"so {token} and{token}")
    expected = int((subject.collator.encode(plain).input_ids == token_id).sum())
    try:
        sample = subject.collator.encode(spelled)
    except ConversationError:
        return
    found = int((sample.input_ids == token_id).sum())
    if found != expected:
        raise failure(
            f"the text of an answer became the token {token!r}, which only media expands to",
            "encode the text of messages with the collator's own prompt encoder",
            messages=spelled,
            sample=sample,
            collator=subject.collator,
            expected=expected,
            found=found,
        )


def _with_images(collator: BaseCollator) -> Subject:
    """Returns the subject of a collator that accepts images."""
    subject = Subject.of(collator)
    if not subject.images:
        raise NotApplicable("it does not accept images")
    return subject


def _process(collator: BaseCollator, messages: Chat) -> Any:
    """Calls the processor with the prompt and media of a conversation."""
    images, processor = images_of(messages), collator.processor
    text = collator.render(read_example(messages)).text
    options: dict[str, Any] = {"return_tensors": "pt"}
    whole = {"text": [text], "images": [images], "add_special_tokens": False}
    if videos_of(messages):
        del whole["images"]
        whole |= {"videos": videos_of(messages), "do_sample_frames": False}
    calls: Any = (
        (processor, whole),
        (getattr(processor, "image_processor", None), {"images": images}),
    )
    for call, arguments in calls:
        try:
            return call(**arguments, **options)
        except Exception:  # noqa: BLE001, S112  # a processor with other parameters may raise anything
            continue
    raise NotApplicable("the processor does not accept images as those of transformers do")


def _compare(key: str, sample: EncodedSample, expected: Tensor, messages: Chat) -> None:
    found = sample.pixels(key) if key in sample.media else None
    context: dict[str, Any] = {"messages": messages}
    if found is None:
        raise failure(
            f"the sample has no {key}, but the processor returns it",
            "return every output of the processor from process_media",
            expected=tuple(expected.shape),
            **context,
        )
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise failure(
            f"the shape or dtype of {key} differs from the output of the processor",
            "return the outputs of the processor from process_media, complete and in their dtype",
            expected=f"{tuple(expected.shape)} {expected.dtype}",
            found=f"{tuple(found.shape)} {found.dtype}",
            **context,
        )
    wrong = ~torch.isclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        raise failure(
            f"{key} differs from the output of the processor, first at index {list(at)}",
            "process the images in the order of the prompt, do not change the tensors, and do not "
            "cache them",
            expected=float(expected[at]),
            found=float(found[at]),
            **context,
        )


def _compare_frames(collator: BaseCollator, sample: EncodedSample, messages: Chat) -> None:
    """Compares the pixels of a video if the processor accepts it as an array."""
    process: Any = getattr(collator.processor, "video_processor", None)
    try:
        output = process(videos_of(messages), do_sample_frames=False, return_tensors="pt")
    except Exception:  # noqa: BLE001  # it may be None, or have other parameters
        return
    for key in collator.family.joins:
        if key not in sample.media or key not in output:
            continue
        expected, found = as_tensor(output[key]), sample.pixels(key)
        if found.shape == expected.shape and found.is_floating_point():
            _compare(key, sample, expected, messages)


def _inverted(messages: Chat) -> Chat:
    """Returns the same conversation with its images inverted."""
    return [
        {
            **message,
            "content": [
                {**part, "image": ImageOps.invert(part["image"])} if "image" in part else part
                for part in message["content"]
            ],
        }
        if media_of(message)
        else message
        for message in messages
    ]
