"""Finds the tokens of each answer without any label strategy, and compares them with the labels.

The conversation is encoded again with one answer replaced: the tokens that change are those of the
answer, and the next stop token ends it. The model generates the part of the header that is not in
the generation prompt.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch

from vlmcollate.formats import read_example
from vlmcollate.prompt.turn_ends import agreement
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.generators import weight_of
from vlmcollate.testing.laws.failure_messages import failure, text_of, with_text
from vlmcollate.testing.laws.for_all import Chat
from vlmcollate.testing.laws.subject import Subject
from vlmcollate.testing.laws.templates import Headers

_REPLACEMENTS = ("Zebra", "Quail", "Fox")


@attrs.frozen(kw_only=True)
class Answer:
    """The tokens of one answer.

    Attributes:
        message: The index of its message.
        start: The index of the first token of its text.
        end: The index after its stop token.
        header: The part of the header that the model generates; `None` if it is unknown.
        weight: Its weight in the loss; 0 if it is not trained.
    """

    message: int
    start: int
    end: int
    header: str | None
    weight: float


def answers_of(
    subject: Subject, messages: Chat, sample: EncodedSample, headers: Headers | None
) -> list[Answer]:
    """Finds the tokens of each answer.

    Raises:
        LawFailure: No stop token follows an answer.
    """
    found = []
    encode = _encoder(subject, messages, sample)
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    for k, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        others = list(messages)
        others[k] = with_text(message, _replacement(text_of(message)))
        start, after = _changed(sample.input_ids.numpy(), encode(others))
        end = _stop_token(subject, sample, after)
        if end is None:
            raise failure(
                f"no stop token ends the answer messages[{k}], so the model never learns to stop",
                "let the template end each answer with a stop token, or add its token to "
                "stop_tokens",
                expected=subject.tokenizer.convert_ids_to_tokens(list(subject.collator.stop_ids)),
                messages=messages,
                sample=sample,
                collator=subject.collator,
            )
        trains = subject.collator.train_on == "all_turns" or k == last
        found.append(
            Answer(
                message=k,
                start=start,
                end=end + 1,
                header=_trained_header(subject, headers, (messages, others), k, is_last=k == last),
                weight=weight_of(message) if trains else 0.0,
            )
        )
    return found


def check_answers(
    subject: Subject, messages: Chat, sample: EncodedSample, headers: Headers | None
) -> None:
    """Checks that the answers are trained as a whole, and nothing else is.

    Raises:
        LawFailure: Another token is trained, or a token of an answer is not.
    """
    context: dict[str, Any] = {"messages": messages, "sample": sample, "collator": subject.collator}
    is_trained = sample.labels.numpy() != IGNORE_INDEX
    is_allowed = np.zeros(len(sample), bool)
    for answer in answers_of(subject, messages, sample, headers):
        if not answer.weight:
            continue
        _check_text(subject, sample, answer, context)
        start = answer.start
        while start and is_trained[start - 1] and not is_allowed[start - 1]:
            start -= 1
        _check_header(subject, sample, answer, start, context)
        is_allowed[start : answer.end] = True
    wrong = np.flatnonzero(is_trained & ~is_allowed)
    if len(wrong):
        first = int(wrong[0])
        owner = _owner(sample, messages, first)
        raise failure(
            f"token {first} is trained, but it belongs to {owner or 'no answer'}",
            "label only what the model generates: the text of each answer and its stop token",
            expected="no label",
            found=_decode(subject, sample, first, _run_end(is_trained & ~is_allowed, first)),
            **context,
        )


def _check_text(
    subject: Subject, sample: EncodedSample, answer: Answer, context: dict[str, Any]
) -> None:
    """Checks that the text of an answer and its stop token are trained."""
    name = f"the answer messages[{answer.message}]"
    is_trained = sample.labels[answer.start : answer.end] != IGNORE_INDEX
    if not is_trained[-1]:
        raise failure(
            f"{name} has no trained stop token, so the model never learns to stop",
            "let the label strategy include the stop token in the turn",
            expected=subject.tokenizer.convert_ids_to_tokens(list(subject.collator.stop_ids)),
            found=_decode(subject, sample, answer.end - 2, answer.end - 1),
            **context,
        )
    if not is_trained.all():
        raise failure(
            f"{name} is not trained as a whole",
            "let the turn start where the model starts to generate, and end with the stop token",
            expected=_decode(subject, sample, answer.start, answer.end),
            found=_decode_trained(subject, sample, answer.start, answer.end),
            **context,
        )


def _check_header(
    subject: Subject, sample: EncodedSample, answer: Answer, start: int, context: dict[str, Any]
) -> None:
    """Checks that the generated part of an answer's header is trained."""
    found, expected = _decode(subject, sample, start, answer.start), answer.header
    if found == expected or (expected is None and not found.strip()):
        return
    expected = expected or ""
    pieces = set(subject.tokenizer.convert_ids_to_tokens(sample.input_ids[start : answer.start]))
    if pieces <= {"\u2581"} and pieces and not expected.strip(" "):
        return  # the space that SentencePiece puts before a word
    first = _decode(subject, sample, answer.start, answer.start + 1)
    if expected.startswith(found) and not expected.strip() and first[:1].isspace():
        return  # the rest of the header is in one token with the first word
    problem = (
        "is trained with text that the template writes before it"
        if len(found) > len(expected)
        else "is trained without the text that the model generates before it"
    )
    raise failure(
        f"the answer messages[{answer.message}] {problem}",
        "let the turn start where the generation prompt ends",
        expected=expected,
        found=found,
        **context,
    )


def _trained_header(
    subject: Subject, headers: Headers | None, chats: tuple[Chat, Chat], k: int, *, is_last: bool
) -> str | None:
    """Returns the generated part of the header of one answer; `None` if it is unknown.

    Args:
        subject: The collator.
        headers: The headers of its template.
        chats: The conversation, and the same with the text of the answer replaced.
        k: The answer.
        is_last: Whether it is the last answer.
    """
    if headers is None:
        return None
    is_empty = not text_of(chats[0][k]).strip()
    if not is_empty and not headers.depends_on_the_chat:
        return headers.trained(is_last=is_last)
    own, other = (subject.collator.render(read_example(chat)).text for chat in chats)
    same = agreement([*own], [*other])
    words = other.find(text_of(chats[1][k]), same)
    header = headers.trained_behind(other[:words], is_last=is_last) if words >= 0 else None
    unwritten = words - same  # by an answer without words
    return header and header[: max(len(header) - unwritten, 0)] if is_empty else header


def _encoder(
    subject: Subject, messages: Chat, sample: EncodedSample
) -> Callable[[Chat], npt.NDArray[np.int64]]:
    """Returns a function that encodes conversations with the same media."""
    collator = subject.collator

    def encode(others: Chat) -> npt.NDArray[np.int64]:
        return collator.encode(others).input_ids.numpy()

    if not sample.media_counts:
        return encode
    conversation = read_example(messages)
    rendering = collator.render(conversation)
    media = collator.process_media(rendering, collator.load(conversation))

    def encode_prompt(others: Chat) -> npt.NDArray[np.int64]:
        read = read_example(others)
        return collator.prompt_encoder(read, collator.render(read), media).ids

    is_prompt = np.array_equal(encode_prompt(messages), sample.input_ids.numpy())
    return encode_prompt if is_prompt else encode  # `postprocess` may insert tokens


def _changed(ids: Any, others: Any) -> tuple[int, int]:
    """Returns the span of tokens in which two sequences differ."""
    common = min(len(ids), len(others))
    forward = np.flatnonzero(ids[:common] != others[:common])
    start = int(forward[0]) if len(forward) else common
    backward = np.flatnonzero(ids[::-1][:common] != others[::-1][:common])
    tail = int(backward[0]) if len(backward) else common
    return start, len(ids) - min(tail, common - start)


def _stop_token(subject: Subject, sample: EncodedSample, start: int) -> int | None:
    """Returns the index of the first stop token from `start` on, or `None`."""
    is_stop = torch.isin(sample.input_ids[start:], torch.tensor(subject.collator.stop_ids))
    return start + int(is_stop.nonzero()[0]) if is_stop.any() else None


def _replacement(text: str) -> str:
    """Returns an answer that starts and ends differently than a text."""
    edges = {_fold(text.strip()[:1]), _fold(text.strip()[-1:])}
    return next(w for w in _REPLACEMENTS if not {_fold(w[0]), _fold(w[-1])} & edges)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKD", text).casefold()


def _decode(subject: Subject, sample: EncodedSample, start: int, end: int) -> str:
    """Decodes tokens together with the one before, whose text is then removed.

    SentencePiece omits the space before a word at the start of a text.
    """
    ids, decode = sample.input_ids.tolist(), subject.tokenizer.decode
    if start >= end:
        return ""
    before = decode(ids[start - 1 : start]) if start else ""
    both: str = decode(ids[max(start - 1, 0) : end])
    return both[len(before) :] if both.startswith(before) else str(decode(ids[start:end]))


def _decode_trained(subject: Subject, sample: EncodedSample, start: int, end: int) -> str:
    ids = [i for i in sample.labels[start:end].tolist() if i != IGNORE_INDEX]
    return str(subject.tokenizer.decode(ids))


def _run_end(is_set: Any, at: int) -> int:
    unset = np.flatnonzero(~is_set[at:])
    return at + int(unset[0]) if len(unset) else len(is_set)


def _owner(sample: EncodedSample, messages: Chat, token: int) -> str:
    """Names the message of a token; empty for the template and answers."""
    message = int(sample.message_ids[token])
    if message < 0 or messages[message]["role"] == "assistant":
        return ""
    return f"the {messages[message]['role']} message messages[{message}]"
