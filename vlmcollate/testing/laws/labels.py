"""Laws of the label mask."""

from __future__ import annotations

import attrs
import torch

from vlmcollate.collator import BaseCollator
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.generators import weight_of
from vlmcollate.testing.laws.answers import answers_of, check_answers
from vlmcollate.testing.laws.failure_messages import (
    failure,
    text_of,
    trained_runs,
    unused_letters,
    with_text,
)
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.probes import probes
from vlmcollate.testing.laws.subject import Subject
from vlmcollate.testing.laws.templates import headers_of
from vlmcollate.tokens.vocabulary import Vocabulary

_PROBES = (
    "long",
    "two parts",
    "two answers in a row",
    "an empty answer",
    "five images",
    "text, image, text",
    "a video",
    "an audio clip",
)


def check_labels_are_inputs_or_ignored(collator: BaseCollator, trial: Trial) -> None:
    """Each label is the input id at its position, or -100."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        sample = subject.collator.encode(messages)
        wrong = (sample.labels != IGNORE_INDEX) & (sample.labels != sample.input_ids)
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise failure(
                f"the label of token {at} differs from its input id",
                "set labels from input_ids after the last change to input_ids",
                messages=messages,
                sample=sample,
                collator=subject.collator,
                expected=int(sample.input_ids[at]),
                found=int(sample.labels[at]),
            )

    forall(trial, subject.chats(), check)


def check_only_answers_train(collator: BaseCollator, trial: Trial) -> None:
    """Each answer trains, including its stop token, and nothing else does."""
    subject, headers = Subject.of(collator), headers_of(collator)

    def check(messages: Chat) -> None:
        check_answers(subject, messages, subject.collator.encode(messages), headers)

    parrot = subject.chat("Yes")
    parrot[0] = with_text(parrot[0], "Yes")
    answers = ("\nYes", "A cat") * 3 if subject.turns > 1 else ("\nYes",)
    also = [parrot, subject.chat(*answers, images=subject.images, system=subject.system)]
    also += probes(subject, *_PROBES)
    is_literal = subject.collator.special_tokens_in_text == "literal"
    hostile = {"processor": subject.collator.processor} if is_literal else {}
    forall(trial, subject.chats(**hostile), check, also=also)


def check_questions_never_train(collator: BaseCollator, trial: Trial) -> None:
    """No user or system text is trained."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        mark = unused_letters(map(text_of, messages))
        marked = [
            m if m["role"] == "assistant" else with_text(m, f"{mark}{text_of(m)}{mark}")
            for m in messages
        ]
        sample = subject.collator.encode(marked)
        for run in trained_runs(sample.input_ids, sample.labels):
            if mark in subject.tokenizer.decode(run):
                raise failure(
                    "the text of a question is trained",
                    "label only assistant turns",
                    messages=marked,
                    sample=sample,
                    collator=subject.collator,
                )

    forall(trial, subject.chats(), check)


def check_media_never_trains(collator: BaseCollator, trial: Trial) -> None:
    """No media token is trained."""
    subject = Subject.of(collator)
    if not subject.images:
        raise NotApplicable("it does not accept images")
    vocabulary = Vocabulary.of(subject.tokenizer)
    ids = {vocabulary.id_of(t) for tokens in collator.traits.media_tokens.values() for t in tokens}

    def check(messages: Chat) -> None:
        sample = subject.collator.encode(messages)
        trained = set(sample.labels.tolist()) & ids
        if trained:
            raise failure(
                "media tokens are trained",
                "set the label of media tokens to -100",
                messages=messages,
                sample=sample,
                collator=subject.collator,
                found=subject.tokenizer.convert_ids_to_tokens(
                    [i for i in trained if i is not None]
                ),
            )

    forall(
        trial,
        subject.chats(min_images=1),
        check,
        also=probes(subject, "five images", "a video", "an audio clip"),
    )


def check_last_turn_alone(collator: BaseCollator, trial: Trial) -> None:
    """With `train_on="last_turn"`, only the last answer trains."""
    subject = Subject.of(collator)
    if subject.turns == 1:
        raise NotApplicable("it accepts only one answer")
    last = attrs.evolve(subject, collator=attrs.evolve(subject.collator, train_on="last_turn"))
    headers = headers_of(collator)

    def check(messages: Chat) -> None:
        check_answers(last, messages, last.collator.encode(messages), headers)

    forall(trial, subject.chats(), check, also=[subject.chat("Yes", "No")])


def check_loss_weights(collator: BaseCollator, trial: Trial) -> None:
    """Weight 0 excludes an answer; `loss_weights` holds the other weights."""
    subject = Subject.of(collator)
    every = attrs.evolve(subject, collator=attrs.evolve(subject.collator, train_on="all_turns"))
    headers = headers_of(collator)

    def check(messages: Chat) -> None:
        sample = every.collator.encode(messages)
        check_answers(every, messages, sample, headers)
        _check_loss_weights(every, messages, sample)

    half = subject.chat("Yes")
    half[-1]["weight"] = 0.5
    several = subject.chat("Yes", "No", "A cat") if subject.turns > 1 else subject.chat("Yes")
    several[1]["weight"] = 2
    if subject.turns > 1:
        several[3]["train"] = False
    forall(trial, subject.chats(weights=True), check, also=[half, several])


def _check_loss_weights(subject: Subject, messages: Chat, sample: EncodedSample) -> None:
    weights = {weight_of(m) for m in messages if m["role"] == "assistant"}
    found = sample.tokens.get("loss_weights")
    if found is None and weights <= {0.0, 1.0}:
        return
    expected = torch.zeros(len(sample))
    for answer in answers_of(subject, messages, sample, None):
        expected[answer.start : answer.end] = answer.weight
    is_trained = sample.labels != IGNORE_INDEX
    in_header = is_trained & (expected == 0)  # what the model generates before its text
    if found is None or not torch.equal(found[~in_header], expected[~in_header]):
        raise failure(
            "loss_weights differs from the weights of the messages",
            "leave weights to BaseCollator, and keep the key `loss_weights` in every stage",
            messages=messages,
            sample=sample,
            collator=subject.collator,
            expected=sorted(weights),
            found=None if found is None else sorted(set(found.tolist())),
        )
