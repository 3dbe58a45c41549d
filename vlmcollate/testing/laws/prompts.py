"""Laws of the prompt: what the template makes of what was said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from hypothesis import strategies as st

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import CollateError, ConversationError
from vlmcollate.formats import read_example
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.generators import hostile_text, texts
from vlmcollate.testing.laws.failure_messages import failure, media_of, unsaid, with_text
from vlmcollate.testing.laws.for_all import Chat, LawFailure, NotApplicable, Trial, forall
from vlmcollate.testing.laws.subject import Subject, chat
from vlmcollate.testing.laws.templates import openings_of
from vlmcollate.tokens.vocabulary import Vocabulary

_MEND = "mend the chat template, or `render`, so that it writes every message once, as it was said"


class Words(NamedTuple):
    """What a message says, and how that begins: with letters that nothing else of it holds."""

    message: int
    text: str
    mark: str


def check_prompt_preserves_messages(collator: BaseCollator, trial: Trial) -> None:
    """The prompt has the text and media of each message once, in order."""
    plain = _richest(collator)

    def check(said: list[str]) -> None:
        letters = unsaid(map(str.casefold, said)).capitalize()  # of both cases, as that may change
        words = [
            Words(i, f"{letters}{i}x {text} {i}{letters}", f"{letters}{i}x")
            for i, text in enumerate(said)
        ]
        messages = [with_text(m, w.text) for m, w in zip(plain, words, strict=True)]
        prompt = _rendered(collator, messages)
        error = _first_fault(collator, messages, words, prompt)
        if error is not None:
            raise error

    drawn = st.lists(texts(), min_size=len(plain), max_size=len(plain))
    forall(trial, drawn, check)


def check_roles_have_distinct_headers(collator: BaseCollator, trial: Trial) -> None:
    """The header of a user turn differs from that of an answer."""
    del trial
    opening = openings_of(collator)
    if opening is None or opening.earlier_answer is None:
        raise NotApplicable("it takes one answer")
    if opening.user == opening.earlier_answer:
        raise failure(
            "the template opens the user's turn as it opens an answer, so that the model cannot "
            "tell who speaks",
            "let the chat template write each message's own role",
            expected="two openings",
            found=opening.user,
        )


def check_the_answer_follows_the_generation_prompt(collator: BaseCollator, trial: Trial) -> None:
    """Training answers begin where generation begins."""
    del trial
    if not collator.family.needs_chat_template:
        raise NotApplicable("it has no chat template")
    opening = openings_of(collator)
    if opening is None:
        raise NotApplicable("it writes no prompt at all")
    if opening.asked is None:
        raise NotApplicable("its template writes no generation prompt")
    asked, answer, user = opening.asked, opening.answer, opening.user
    if _agree(asked, answer):
        return
    if _agree(asked, user):
        problem = (
            "the template asks for an answer with the words that open a user's turn: are the roles "
            "swapped, or does the generation prompt name the wrong role?"
        )
    else:
        problem = "the answer does not follow the prompt that asks for one"
    raise failure(
        problem,
        "let the chat template open an assistant message as add_generation_prompt does",
        expected=asked,
        found=answer,
    )


def check_control_text_stays_text(collator: BaseCollator, trial: Trial) -> None:
    """Text that spells a special token stays text, or is refused."""
    subject = Subject.of(collator)
    vocabulary = Vocabulary.of(subject.tokenizer)
    allowed = subject.collator.allowed_special_tokens

    def control(sample: EncodedSample) -> list[str]:
        ids = sample.input_ids.numpy()
        found = ids[vocabulary.is_control(ids)]
        tokens = subject.tokenizer.convert_ids_to_tokens(found.tolist())
        return [token for token in tokens if token not in allowed]

    innocent = control(subject.collator.encode(_asking(subject, "so")))

    def check(text: str) -> None:
        messages = _asking(subject, text)
        try:
            sample = subject.collator.encode(messages)
        except ConversationError:
            if subject.collator.special_tokens_in_text == "error":
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


def _asking(subject: Subject, text: str) -> Chat:
    messages = subject.chat("Fine", system=subject.system)
    return [m if m["role"] == "assistant" else with_text(m, f"a{text}b") for m in messages]


def _agree(asked: str, opening: str) -> bool:
    """Whether a turn opens as it is asked for, but for whitespace and for what is forced."""
    return asked.strip().startswith(opening.strip()) or opening.strip().startswith(asked.strip())


def _richest(collator: BaseCollator) -> Chat:
    """The fullest plain conversation that is rendered at all."""
    for images, answers, system in product((1, 0), (("Yes", "No"), ("Yes",)), (True, False)):
        if images and "image" not in collator.traits.placeholders:
            continue
        messages = chat(*answers, images=images, system=system)
        try:
            _rendered(collator, messages)
        except CollateError:
            continue
        return messages
    raise NotApplicable("it writes no prompt at all")


def _rendered(collator: BaseCollator, messages: Chat) -> str:
    return collator.render(read_example(messages)).text


def _pieces(
    collator: BaseCollator, messages: Chat, words: list[Words]
) -> Iterator[tuple[Words, str, bool]]:
    """What has to stand in the prompt, in order: the message, the text, whether it is media."""
    for message, said in zip(messages, words, strict=True):
        for part in media_of(message):
            yield said, collator.traits.placeholders[part["type"]], True
        yield said, said.text, False


def _first_fault(
    collator: BaseCollator, messages: Chat, words: list[Words], prompt: str
) -> LawFailure | None:
    told: dict[str, Any] = {"messages": messages, "found": prompt}
    at = 0
    for said, text, is_media in _pieces(collator, messages, words):
        found = prompt.find(text, at)
        if found < 0:
            problem = _missing_media(said, at) if is_media else _missing(said, prompt, words)
            return failure(problem, _MEND, expected=text, **told)
        at = found + len(text)
    for said in words:
        first = prompt.find(said.mark)
        again = prompt.find(said.mark, first + 1)
        if again >= 0:
            where = _turn_at(collator, prompt, words, again)
            other = "there twice" if where == said.message else f"in the turn of messages[{where}]"
            return failure(
                f"the words of messages[{said.message}] stand {other}",
                _MEND,
                **told,
            )
    return None


def _missing_media(said: Words, at: int) -> str:
    before = f" behind the words of messages[{said.message - 1}]" if at else ""
    return f"the picture of messages[{said.message}] is not written{before}"


def _missing(said: Words, prompt: str, words: list[Words]) -> str:
    name = f"the words of messages[{said.message}]"
    if said.text in prompt:
        earlier = [w for w in words if w.message < said.message]
        if all(prompt.find(w.text) < prompt.find(said.text) for w in earlier):
            return f"{name} stand before its picture, which was shown before them"
        return f"{name} stand before those of messages[{earlier[-1].message}]"
    if said.text.casefold() in prompt.casefold() or said.mark.casefold() in prompt.casefold():
        return f"{name} are changed"
    return f"{name} are not written"


def _turn_at(collator: BaseCollator, prompt: str, words: list[Words], at: int) -> int:
    """The message in whose turn a character of the prompt stands."""
    starts = [(prompt.find(said.mark), said.message) for said in words]
    before = max((start, message) for start, message in starts if start < at)[1]
    later = [(start, message) for start, message in starts if start > at]
    control = Vocabulary.of(collator.processor.tokenizer).pattern
    between = prompt[at : min(later)[0]] if later else ""
    if later and not re.search(control, between):
        return min(later)[1]
    return before
