"""Laws of what surrounds supervised batches: pairs of answers, prompts, and rollouts."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st

from vlmcollate.batch.media import with_float_pixels
from vlmcollate.collator import BaseCollator
from vlmcollate.padding import PadToLongest
from vlmcollate.preference import PreferenceCollator
from vlmcollate.sample import IGNORE_INDEX
from vlmcollate.testing.laws.choices import first_difference
from vlmcollate.testing.laws.failure_messages import failure
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.subject import Subject

_REJECTED = "Not at all, never."


def check_sides_of_pairs_are_encoded_as_alone(collator: BaseCollator, trial: Trial) -> None:
    """Each side of a preference pair is the sample of its own chat, of which the answer trains."""
    subject = plain_rows(Subject.of(collator))
    pairs = PreferenceCollator(subject.collator)

    def check(messages: Chat) -> None:
        prompt, answer = messages[:-1], messages[-1]
        rejected = {**answer, "content": [{"type": "text", "text": _REJECTED}]}
        sides = [[*prompt, answer], [*prompt, rejected]]
        found = pairs.encode({"chosen": sides[0], "rejected": sides[1]})
        alone = [subject.collator.encode([*map(untrained, prompt), side[-1]]) for side in sides]
        differs = first_difference(
            [with_float_pixels(found.chosen), with_float_pixels(found.rejected)],
            [with_float_pixels(sample) for sample in alone],
        )
        if differs is not None:
            raise failure(
                "a side of a pair differs from the chat that holds it alone",
                "encode each conversation from its own messages in `sharing`",
                messages=messages,
                sample=found.chosen,
                collator=subject.collator,
                found=differs,
                expected="two equal samples",
            )

    forall(trial, subject.chats(), check, also=[subject.chat("Yes")])


def check_prompts_lead_to_their_answers(collator: BaseCollator, trial: Trial) -> None:
    """A prompt and the tokens of its answer are the sample of the whole chat."""
    subject = plain_rows(Subject.of(collator))
    last = attrs.evolve(subject.collator, train_on="last_turn")

    def check(messages: Chat) -> None:
        explained, prompt = last.explain(messages), last.prompt(messages)
        if not explained.prompt.startswith(prompt.text):
            return  # the template writes the answer elsewhere than behind its prompt
        whole = explained.sample
        answer = whole.labels[whole.labels != IGNORE_INDEX].tolist()
        found = prompt.sample(answer)
        expected = whole.input_ids[: len(found)].tolist()
        if found.input_ids.tolist() != expected:
            raise failure(
                "a prompt and its answer are not the beginning of the whole chat",
                "end the prompt where the model generates, with all media before it",
                messages=messages,
                sample=found,
                collator=last,
                found=found.input_ids.tolist(),
                expected=expected,
            )

    forall(trial, subject.chats(), check, also=[subject.chat("Yes")])


def check_rollouts_keep_what_was_sampled(collator: BaseCollator, trial: Trial) -> None:
    """The sample of a rollout holds exactly the tokens that were sampled, and trains them alone."""
    subject = plain_rows(Subject.of(collator))
    letters = [subject.tokenizer.convert_tokens_to_ids(letter) for letter in "abcdefghij"]
    unknown = {None, subject.tokenizer.unk_token_id}
    known = [letter for letter in letters if letter not in unknown]
    if not known:
        raise NotApplicable("its vocabulary has no token for a letter")

    def check(drawn: tuple[Chat, list[list[int]]]) -> None:
        messages, answers = drawn
        question = messages[: 1 + next(k for k, m in enumerate(messages) if m["role"] == "user")]
        prompt = subject.collator.prompt(question)
        expected: list[int] = []
        for number, answer in enumerate(answers[: subject.turns]):
            if number:
                prompt = prompt.followed_by([{"role": "user", "content": f"Number {number}?"}])
            prompt = prompt.extended(answer)
            expected += answer
        sample = prompt.encoded
        found = sample.input_ids[sample.labels != IGNORE_INDEX].tolist()
        if found != expected:
            raise failure(
                "the tokens that train are not those that were sampled",
                "keep sampled ids as they are, without decoding and encoding them",
                messages=question,
                sample=sample,
                collator=subject.collator,
                found=found,
                expected=expected,
            )

    answer = st.lists(st.sampled_from(known), min_size=1, max_size=6)
    drawn = st.tuples(subject.chats(), st.lists(answer, min_size=1, max_size=3))
    also: list[Any] = [(subject.chat("Yes"), [known[:1] * 4, known[:2]])]
    forall(trial, drawn, check, also=also)


def plain_rows(subject: Subject) -> Subject:
    """Returns a subject whose collator makes rows of whole answers."""
    changed: dict[str, Any] = {
        "split_turns": False,
        "shift_labels": False,
        "padding": PadToLongest(),
    }
    return attrs.evolve(subject, collator=attrs.evolve(subject.collator, **changed))


def rows_of_inputs(subject: Subject) -> Subject:
    """Returns a subject whose collator makes rows without an option of labels of tokens."""
    plain = plain_rows(subject)
    changed: dict[str, Any] = {"train_on": "all_turns"}
    if plain.collator.empty_reasoning == "mask":
        changed["empty_reasoning"] = "train"
    return attrs.evolve(plain, collator=attrs.evolve(plain.collator, **changed))


def untrained(message: Any) -> Any:
    """Returns a message with the weight 0, if it is an answer."""
    return {**message, "weight": 0} if message["role"] == "assistant" else message
