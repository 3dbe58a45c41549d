"""Laws of the label mask."""

from __future__ import annotations

import warnings
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConversationError
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.sample_encoder import DroppedTextWarning
from vlmcollate.testing.generators import batches, hostile_text
from vlmcollate.testing.laws.trial import (
    Chat,
    NotApplicable,
    Subject,
    Trial,
    answers_of,
    failure,
    forall,
    runs_of,
    text_of,
)
from vlmcollate.tokenizing import Vocabulary


def check_labels_are_inputs_or_ignored(collator: BaseCollator, trial: Trial) -> None:
    """Each label is the id at its place, or -100."""
    subject = Subject.of(collator)
    plain = attrs.evolve(subject.collator, shift_labels=False)

    def check(messages: Chat) -> None:
        sample = plain.encode(messages)
        wrong = (sample.labels != IGNORE_INDEX) & (sample.labels != sample.input_ids)
        if wrong.any():
            at = int(wrong.nonzero()[0])
            raise failure(
                f"the label of token {at} is another token",
                "set labels from input_ids, after the last change to them",
                messages=messages,
                sample=sample,
                collator=plain,
                expected=int(sample.input_ids[at]),
                found=int(sample.labels[at]),
            )

    forall(trial, subject.chats(), check)


def check_only_answers_train(collator: BaseCollator, trial: Trial) -> None:
    """Each answer trains, with the token that ends it, and nothing else does."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        sample = subject.collator.encode(messages)
        answers = answers_of(messages)[-1 if subject.collator.turns == "last" else 0 :]
        found = runs_of(sample.input_ids, sample.labels)
        told: dict[str, Any] = {
            "messages": messages,
            "sample": sample,
            "collator": subject.collator,
        }
        texts = [subject.tokenizer.decode(run) for run in found]
        if len(found) != len(answers):
            raise failure(
                f"{len(found)} stretches of tokens are trained, of {len(answers)} answers",
                "let the label strategy find each assistant turn, and nothing else",
                expected=answers,
                found=texts,
                **told,
            )
        for number, (run, answer) in enumerate(zip(found, answers, strict=True)):
            if run[-1] not in subject.collator.stop_ids:
                raise failure(
                    f"answer {number} trains no token that ends it, so that the model never "
                    "learns to stop",
                    "let the template end each answer with the end token, or name the token in "
                    "stop_tokens",
                    expected=subject.collator.turn_ends,
                    found=subject.tokenizer.decode(run[-1:]),
                    **told,
                )
            if not _same_text(subject, run[:-1], answer):
                raise failure(
                    f"answer {number} is not what trains",
                    "let the trained span begin where the model starts to write, and end with the "
                    "end token",
                    expected=answer,
                    found=subject.tokenizer.decode(run[:-1]),
                    **told,
                )

    forall(trial, subject.chats(processor=subject.collator.processor), check)


def check_questions_never_train(collator: BaseCollator, trial: Trial) -> None:
    """No word of the user or the system is trained."""
    subject = Subject.of(collator)

    def check(messages: Chat) -> None:
        marked = [
            message
            if message["role"] == "assistant"
            else {**message, "content": [*_media(message), _text(f"zq{text_of(message)}zq")]}
            for message in messages
        ]
        sample = subject.collator.encode(marked)
        for run in runs_of(sample.input_ids, sample.labels):
            if "zq" in subject.tokenizer.decode(run):
                raise failure(
                    "the words of a question are trained",
                    "let only assistant turns have labels",
                    messages=marked,
                    sample=sample,
                    collator=subject.collator,
                )

    forall(trial, subject.chats(), check)


def check_media_never_trains(collator: BaseCollator, trial: Trial) -> None:
    """No token that stands for media is trained."""
    subject = Subject.of(collator)
    if not subject.images:
        raise NotApplicable("it takes no pictures")
    vocabulary = Vocabulary.of(subject.tokenizer)
    ids = {vocabulary.id_of(t) for tokens in collator.media_tokens.values() for t in tokens}

    def check(messages: Chat) -> None:
        sample = subject.collator.encode(messages)
        trained = set(sample.labels.tolist()) & ids
        if trained:
            raise failure(
                "placeholders of a picture are trained",
                "leave tokens of media unlabelled",
                messages=messages,
                sample=sample,
                collator=subject.collator,
                found=subject.tokenizer.convert_ids_to_tokens(
                    [i for i in trained if i is not None]
                ),
            )

    forall(trial, subject.chats(min_images=1), check)


def check_padding_never_trains(collator: BaseCollator, trial: Trial) -> None:
    """No padding has a label, and no token that is attended to is padding."""
    subject = Subject.of(collator)
    if subject.collator.padding.keeps_documents_apart:
        raise NotApplicable("its layout has a mask of another shape")

    def check(examples: list[Chat]) -> None:
        batch = subject.collator(examples)
        lengths = [len(subject.collator.encode(messages)) for messages in examples]
        padding = batch["attention_mask"] == 0
        if (batch["labels"][padding] != IGNORE_INDEX).any():
            raise failure(
                "padding is trained",
                "fill labels with -100",
                found=batch["labels"].tolist(),
                messages=examples[-1],
            )
        if (~padding).sum(dim=1).tolist() != lengths:
            raise failure(
                "the attention mask does not tell padding from tokens",
                "fill attention_mask with 0 and leave the rest at 1",
                expected=lengths,
                found=(~padding).sum(dim=1).tolist(),
            )

    forall(trial, batches(subject.chats(), min_size=2), check)


def check_control_text_stays_text(collator: BaseCollator, trial: Trial) -> None:
    """Text that spells a control token becomes none, or is refused."""
    subject = Subject.of(collator)
    vocabulary = Vocabulary.of(subject.tokenizer)

    def control(sample: EncodedSample) -> list[str]:
        ids = sample.input_ids.numpy()
        found = ids[vocabulary.is_control(ids)]
        return list(subject.tokenizer.convert_ids_to_tokens(found.tolist()))

    innocent = control(subject.collator.encode(_asking(subject, "so")))

    def check(text: str) -> None:
        messages = _asking(subject, text)
        try:
            sample = subject.collator.encode(messages)
        except ConversationError:
            if subject.collator.control_text == "error":
                return
            raise
        found = control(sample)
        if found != innocent:
            raise failure(
                "text of the user became a control token",
                "encode what messages say as plain text, apart from what the template writes",
                messages=messages,
                sample=sample,
                collator=subject.collator,
                expected=innocent,
                found=found,
            )

    forall(trial, hostile_text(subject.collator.processor), check)


def check_the_answer_follows_the_generation_prompt(collator: BaseCollator, trial: Trial) -> None:
    """The model is trained to answer where it will be asked to."""
    del trial
    subject = Subject.of(collator)
    if not collator.needs_chat_template:
        raise NotApplicable("it has no chat template")
    messages = subject.chat("zqzq")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedTextWarning)
        rendered = subject.collator.render(Conversation.from_example(messages)).text
    prompts = _generation_prompts(subject.collator, messages[:-1])
    if not prompts:
        raise NotApplicable("its template writes no generation prompt")
    before = rendered[: rendered.rfind("zqzq")]
    if not any(asked.rstrip() in before for asked in prompts):
        raise failure(
            "the answer does not follow the prompt that asks for one",
            "let the chat template open an assistant message as add_generation_prompt does; are "
            "the roles swapped?",
            expected=prompts[0][-80:],
            found=before[-80:],
        )


def check_last_turn_alone(collator: BaseCollator, trial: Trial) -> None:
    """With `turns="last"`, the last answer trains and no other."""
    subject = Subject.of(collator)
    if subject.turns == 1:
        raise NotApplicable("it takes one answer")
    last = attrs.evolve(subject.collator, turns="last")

    def check(messages: Chat) -> None:
        sample = last.encode(messages)
        found = runs_of(sample.input_ids, sample.labels)
        if len(found) != 1 or not _same_text(subject, found[0][:-1], answers_of(messages)[-1]):
            raise failure(
                'with turns="last" something else than the last answer trains',
                "leave the weighing of turns to BaseCollator",
                messages=messages,
                sample=sample,
                collator=last,
            )

    forall(trial, subject.chats(), check)


def _same_text(subject: Subject, run: list[int], answer: str) -> bool:
    """Whether ids are those of an answer, but for the whitespace around it."""
    tokenizer = subject.tokenizer
    found = tokenizer.decode(run).strip()
    whole = tokenizer.decode(tokenizer.encode(answer, add_special_tokens=False)).strip()
    trimmed = tokenizer.decode(tokenizer.encode(answer.strip(), add_special_tokens=False)).strip()
    return found in (answer.strip(), whole, trimmed)


def _asking(subject: Subject, text: str) -> Chat:
    messages = subject.chat("Fine", system=subject.system)
    for message in messages:
        if message["role"] != "assistant":
            message["content"] = [*_media(message), _text(f"a{text}b")]
    return messages


def _media(message: dict[str, Any]) -> list[Any]:
    content = message["content"]
    return [] if isinstance(content, str) else [p for p in content if p["type"] != "text"]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _generation_prompts(collator: BaseCollator, messages: Chat) -> list[str]:
    """What the processor's own template asks with, for messages of parts and of strings."""
    flat = [{**message, "content": text_of(message)} for message in messages]
    found = []
    for form in (messages, flat):
        try:
            prompt, plain = (
                collator.processor.apply_chat_template(
                    form, tokenize=False, add_generation_prompt=asks, **collator.template_kwargs
                )
                for asks in (True, False)
            )
        except Exception:  # noqa: BLE001, S112  # templates raise anything
            continue
        if prompt != plain:
            found.append(str(prompt))
    return found
