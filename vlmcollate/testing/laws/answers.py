"""Where the answers stand among the tokens, found without any label strategy.

The conversation is encoded a second time with another answer in the place of one: the tokens that
change are that answer's, the end token is the next one behind them, and what of the turn's opening
the model writes itself is what its generation prompt does not.

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
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.generators import weight_of
from vlmcollate.testing.laws.failure_messages import failure, text_of, with_text
from vlmcollate.testing.laws.for_all import Chat
from vlmcollate.testing.laws.subject import Subject
from vlmcollate.testing.laws.templates import Openings

_STAND_INS = ("Zebra", "Quail", "Fox")


@attrs.frozen(kw_only=True)
class Answer:
    """Where one answer stands among the tokens.

    Attributes:
        message: Its message.
        words: Its first token, leaving out what of the opening the model writes.
        end: The token behind that which ends it.
        opening: What the model writes before the words; `None` where that is not known.
        weight: What it counts in the loss.
    """

    message: int
    words: int
    end: int
    opening: str | None
    weight: float


def answers_of(
    subject: Subject, messages: Chat, sample: EncodedSample, openings: Openings | None
) -> list[Answer]:
    """Where each answer stands.

    Raises:
        LawFailure: No end token stands behind an answer.
    """
    found = []
    encode = _encoder(subject, messages, sample)
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    for k, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        others = list(messages)
        others[k] = with_text(message, _other_than(text_of(message)))
        first, behind = _changed(sample.input_ids.numpy(), encode(others))
        end = _end_token(subject, sample, behind)
        if end is None:
            raise failure(
                f"no token ends the answer messages[{k}], so that the model never learns to stop",
                "let the template end each answer with the end token, or name the token in "
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
                words=first,
                end=end + 1,
                opening=openings.trained(is_last=k == last) if openings else None,
                weight=weight_of(message) if trains else 0.0,
            )
        )
    return found


def check_answers(
    subject: Subject, messages: Chat, sample: EncodedSample, openings: Openings | None
) -> None:
    """Refuses a sample in which anything but its answers trains.

    Raises:
        LawFailure: Something else trains, or not all of an answer.
    """
    told: dict[str, Any] = {"messages": messages, "sample": sample, "collator": subject.collator}
    is_trained = sample.labels.numpy() != IGNORE_INDEX
    allowed = np.zeros(len(sample), bool)
    for answer in answers_of(subject, messages, sample, openings):
        name = f"the answer messages[{answer.message}]"
        if not answer.weight:
            continue
        own = is_trained[answer.words : answer.end]
        if not own[-1]:
            raise failure(
                f"{name} trains no token that ends it, so that the model never learns to stop",
                "let the label strategy go on to the end token",
                expected=subject.tokenizer.convert_ids_to_tokens(list(subject.collator.stop_ids)),
                found=_decoded(subject, sample, answer.end - 2, answer.end - 1),
                **told,
            )
        if not own.all():
            raise failure(
                f"{name} does not train as a whole",
                "let the trained span begin where the model starts to write, and end with the end "
                "token",
                expected=_decoded(subject, sample, answer.words, answer.end),
                found=_trained(subject, sample, answer.words, answer.end),
                **told,
            )
        start = answer.words
        while start and is_trained[start - 1] and not allowed[start - 1]:
            start -= 1
        _check_opening(subject, sample, answer, start, told)
        allowed[start : answer.end] = True
    wrong = np.flatnonzero(is_trained & ~allowed)
    if len(wrong):
        at = int(wrong[0])
        raise failure(
            f"token {at} trains, which is part of no answer{_of_message(sample, messages, at)}",
            "let only what the model writes have labels: the words of answers and the token that "
            "ends each",
            expected="no label",
            found=_decoded(subject, sample, at, _run_end(is_trained & ~allowed, at)),
            **told,
        )


def _check_opening(
    subject: Subject, sample: EncodedSample, answer: Answer, start: int, told: dict[str, Any]
) -> None:
    """Compares what trains before an answer's words with what the model writes there."""
    found, expected = _decoded(subject, sample, start, answer.words), answer.opening
    if found == expected or (expected is None and not found.strip()):
        return
    expected = expected or ""
    pieces = set(subject.tokenizer.convert_ids_to_tokens(sample.input_ids[start : answer.words]))
    if pieces <= {"\u2581"} and pieces and not expected.strip(" "):
        return  # the space that SentencePiece puts before a word
    first = _decoded(subject, sample, answer.words, answer.words + 1)
    if expected.startswith(found) and not expected.strip() and first[:1].isspace():
        return  # the rest of it is one token with the first word
    problem = (
        "trains what the template writes before it"
        if len(found) > len(expected)
        else "does not train what the model writes before its words"
    )
    raise failure(
        f"the answer messages[{answer.message}] {problem}",
        "let the trained span begin where the generation prompt ends",
        expected=expected,
        found=found,
        **told,
    )


def _encoder(
    subject: Subject, messages: Chat, sample: EncodedSample
) -> Callable[[Chat], npt.NDArray[np.int64]]:
    """What gives the ids of a conversation with the same media, which is processed but once."""
    collator = subject.collator

    def again(others: Chat) -> npt.NDArray[np.int64]:
        return collator.encode(others).input_ids.numpy()

    if not sample.media_counts:
        return again
    conversation = read_example(messages)
    rendering = collator.render(conversation)
    media = collator.process_media(rendering, collator.load(conversation))

    def of_the_prompt(others: Chat) -> npt.NDArray[np.int64]:
        read = read_example(others)
        return collator.prompt_encoder(read, collator.render(read), media).ids

    is_all = np.array_equal(of_the_prompt(messages), sample.input_ids.numpy())
    return of_the_prompt if is_all else again  # `postprocess` may put tokens between


def _changed(ids: Any, others: Any) -> tuple[int, int]:
    """The tokens that two sequences do not share at their beginning or end."""
    most = min(len(ids), len(others))
    differ = np.flatnonzero(ids[:most] != others[:most])
    first = int(differ[0]) if len(differ) else most
    back = np.flatnonzero(ids[::-1][:most] != others[::-1][:most])
    tail = int(back[0]) if len(back) else most
    return first, len(ids) - min(tail, most - first)


def _end_token(subject: Subject, sample: EncodedSample, behind: int) -> int | None:
    """The first end token from a place on."""
    ends = torch.isin(sample.input_ids[behind:], torch.tensor(subject.collator.stop_ids))
    return behind + int(ends.nonzero()[0]) if ends.any() else None


def _other_than(text: str) -> str:
    """An answer whose first and last characters are others."""
    edges = {_folded(text.strip()[:1]), _folded(text.strip()[-1:])}
    return next(w for w in _STAND_INS if not {_folded(w[0]), _folded(w[-1])} & edges)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKD", text).casefold()


def _decoded(subject: Subject, sample: EncodedSample, start: int, end: int) -> str:
    """The text of some tokens, of which the one before is decoded along and cut off again."""
    ids, decode = sample.input_ids.tolist(), subject.tokenizer.decode
    if start >= end:
        return ""
    before = decode(ids[start - 1 : start]) if start else ""
    both: str = decode(ids[max(start - 1, 0) : end])
    return both[len(before) :] if both.startswith(before) else str(decode(ids[start:end]))


def _trained(subject: Subject, sample: EncodedSample, start: int, end: int) -> str:
    ids = [i for i in sample.labels[start:end].tolist() if i != IGNORE_INDEX]
    return str(subject.tokenizer.decode(ids))


def _run_end(is_set: Any, at: int) -> int:
    unset = np.flatnonzero(~is_set[at:])
    return at + int(unset[0]) if len(unset) else len(is_set)


def _of_message(sample: EncodedSample, messages: Chat, at: int) -> str:
    """Whose token it is, where the sample says so."""
    message = int(sample.message_ids[at])
    if message < 0 or messages[message]["role"] == "assistant":
        return ""
    return f" but of the {messages[message]['role']}'s messages[{message}]"
