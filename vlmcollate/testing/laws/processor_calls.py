"""Laws that compare a batch with the processor's own call for the same prompts and images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.formats import read_example
from vlmcollate.media.processing.result import as_tensor
from vlmcollate.pixels import cast_pixels, dtype_of, normalize_pixels
from vlmcollate.testing.laws.failure_messages import failure, images_of, text_of
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial
from vlmcollate.testing.laws.probes import probes
from vlmcollate.testing.laws.subject import Subject
from vlmcollate.testing.laws.templates import headers_of
from vlmcollate.tokens.vocabulary import Vocabulary


def check_joined_media_matches_the_processor(collator: BaseCollator, trial: Trial) -> None:
    """The media tensors of a batch equal those of the processor's call for the batch."""
    del trial
    collator, rows, output = _called(collator)
    batch = normalize_pixels(collator(rows))
    keys = [key for key in collator.family.joins if key in output and key in batch]
    if not keys:
        raise NotApplicable("the processor returns none of the media keys")
    for key in keys:
        expected = cast_pixels(key, as_tensor(output[key]), dtype_of(collator.pixels))
        problem = _difference(batch[key], expected)
        if problem:
            raise failure(
                f"{key} of a batch is not what the processor returns for the batch: {problem}",
                f"declare the join of {key} in {type(collator).__name__}.family that makes the "
                "processor's batch of the tensors of its samples; write a Join if none does",
                messages=rows[-1],
                expected=f"{tuple(expected.shape)} {expected.dtype}",
                found=f"{tuple(batch[key].shape)} {batch[key].dtype}",
            )


def check_tokens_match_the_processor(collator: BaseCollator, trial: Trial) -> None:
    """The tokens of a sample are those of the processor's call for its prompt."""
    del trial
    if not collator.family.needs_chat_template:
        raise NotApplicable("it has no chat template")
    if _inserts_tokens(collator):
        raise NotApplicable("its postprocess inserts tokens")
    collator, rows, output = _called(collator)
    if "input_ids" not in output or "attention_mask" not in output:
        raise NotApplicable("the processor returns no tokens")
    vocabulary = Vocabulary.of(collator.processor.tokenizer)
    masks = torch.as_tensor(output["attention_mask"]).bool()
    for messages, ids, mask in zip(rows, torch.as_tensor(output["input_ids"]), masks, strict=True):
        sample, expected = collator.encode(messages), ids[mask].tolist()
        found = sample.input_ids.tolist()
        wrapped = [*vocabulary.prefix_ids, *expected, *vocabulary.suffix_ids]
        if found not in (expected, wrapped) and found != _cut_behind_prompt(collator, messages):
            pairs = enumerate(zip(found, expected, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(found), len(expected)))
            raise failure(
                f"the tokens are not those of the processor from token {at} on",
                "return from process exactly what the processor writes for each placeholder; "
                "process_together does, while process_per_item cannot if the text of an item "
                "depends on its position",
                messages=messages,
                sample=sample,
                collator=collator,
                expected=_decoded(collator, expected[at : at + 8]),
                found=_decoded(collator, found[at : at + 8]),
            )


def _called(collator: BaseCollator) -> tuple[BaseCollator, list[Chat], Any]:
    """A collator, rows whose images differ in number and size, and the processor's batch."""
    subject = Subject.of(collator)
    if not subject.images:
        raise NotApplicable("it does not accept images")
    several = [subject.chat("Yes", images=2)] if subject.images > 1 else []
    rows = [*several, *probes(subject, "a narrow image", "a large image")]
    try:  # without a row of text alone, for which processors differ from their models
        return subject.collator, rows, _call(subject.collator, rows)
    except Exception as error:  # a processor may take images in another form, and fail in any way
        raise NotApplicable("the processor takes no batch of prompts and images") from error


def _call(collator: BaseCollator, rows: list[Chat]) -> Any:
    """What the processor returns for the prompts and images of some rows."""
    return collator.processor(
        text=[collator.render(read_example(messages)).text for messages in rows],
        images=[images_of(messages) for messages in rows],
        padding=True,
        add_special_tokens=False,
        return_tensors="pt",
    )


def _cut_behind_prompt(collator: BaseCollator, messages: Chat) -> list[int]:
    """Returns the tokens of a generation prompt and those of its answer; empty if it is unknown.

    The processor may write one token for the end of the prompt and the start of the answer, which
    no model can generate.
    """
    headers = headers_of(collator)
    if headers is None or headers.generation_prompt is None:
        return []
    text, question = collator.render(read_example(messages)).text, text_of(messages[-2])
    asked = text.rfind(question) + len(question)
    end = asked + len(headers.generation_prompt)
    if text[asked:end] != headers.generation_prompt:
        return []
    prompt = collator.processor(
        text=[text[:end]],
        images=[images_of(messages)],
        add_special_tokens=False,
        return_tensors="pt",
    )
    answer = collator.processor.tokenizer(text[end:], add_special_tokens=False)
    return [*torch.as_tensor(prompt["input_ids"])[0].tolist(), *answer["input_ids"]]


def _difference(found: Tensor, expected: Tensor) -> str:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return "the shape or dtype differs"
    if torch.allclose(found.double(), expected.double(), rtol=1e-4, atol=1e-5, equal_nan=True):
        return ""
    return "the values differ"


def _inserts_tokens(collator: BaseCollator) -> bool:
    own = type(collator).postprocess is not BaseCollator.postprocess
    return own or collator.family.postprocess is not None


def _decoded(collator: BaseCollator, ids: list[int]) -> str:
    return repr(collator.processor.tokenizer.decode(ids))
