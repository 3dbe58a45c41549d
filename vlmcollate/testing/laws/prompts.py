"""Laws of the prompt that the chat template writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import attrs
from hypothesis import strategies as st

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import CollateError, ConversationError
from vlmcollate.formats import read_example
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.prompt.template_syntax import switches_of
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.generators import hostile_text, texts
from vlmcollate.testing.laws.failure_messages import failure, media_of, unused_letters, with_text
from vlmcollate.testing.laws.for_all import Chat, LawFailure, NotApplicable, Trial, forall
from vlmcollate.testing.laws.subject import Subject, chat
from vlmcollate.testing.laws.templates import Headers, headers_of
from vlmcollate.tokens.vocabulary import Vocabulary

_GLOBAL = ("system", "developer")
"""The roles whose messages a template may write behind other turns, if a note says so."""
_REMEDY = "let the chat template, or `render`, write every message once and unchanged"


class MarkedText(NamedTuple):
    """The text of a message, and its first letters, which are unique."""

    message: int
    text: str
    mark: str


def check_prompt_preserves_messages(collator: BaseCollator, trial: Trial) -> None:
    """The prompt has the text and media of each message once, in order, but for noted moves."""
    plain = _fullest_conversation(collator)

    def check(drawn: list[str]) -> None:
        unused = unused_letters(map(str.casefold, drawn)).capitalize()  # to notice a changed case
        marked = [
            MarkedText(i, f"{unused}{i}x {text} {i}{unused}", f"{unused}{i}x")
            for i, text in enumerate(drawn)
        ]
        messages = [with_text(m, t.text) for m, t in zip(plain, marked, strict=True)]
        rendering = _rendered(collator, messages)
        moves = any(note.kind == "moved" for note in rendering.notes)
        error = _first_failure(collator, messages, marked, rendering.text, moves=moves)
        if error is not None:
            raise error

    one_text_per_message = st.lists(texts(), min_size=len(plain), max_size=len(plain))
    forall(trial, one_text_per_message, check)


def check_roles_have_distinct_headers(collator: BaseCollator, trial: Trial) -> None:
    """The header of a user turn differs from that of an answer."""
    del trial
    headers = headers_of(collator)
    if headers is None or headers.earlier_answer is None:
        raise NotApplicable("it accepts only one answer")
    if headers.user == headers.earlier_answer:
        raise failure(
            "the headers of a user turn and an answer are equal, so the model cannot distinguish "
            "the roles",
            "let the chat template write the role of each message",
            expected="two headers",
            found=headers.user,
        )


def check_the_answer_follows_the_generation_prompt(collator: BaseCollator, trial: Trial) -> None:
    """Training answers begin where generation begins."""
    del trial
    if not collator.family.needs_chat_template:
        raise NotApplicable("it has no chat template")
    headers = headers_of(collator)
    if headers is None:
        raise NotApplicable("it writes no prompt")
    if headers.generation_prompt is None:
        raise NotApplicable("its template writes no generation prompt")
    if _agree(headers.generation_prompt, headers.answer):
        if collator.off_prompt == "error":
            _check_whole_prompt(collator, headers)
        return
    if _agree(headers.generation_prompt, headers.user):
        problem = (
            "the generation prompt equals the header of a user turn: are the roles swapped, or "
            "does the generation prompt name the wrong role?"
        )
    else:
        problem = "the header of an answer differs from the generation prompt"
    raise failure(
        problem,
        "let the chat template write the same header for an assistant message as for "
        "add_generation_prompt",
        expected=headers.generation_prompt,
        found=headers.answer,
    )


def _check_whole_prompt(collator: BaseCollator, headers: Headers) -> None:
    """Refuses a collator that trains an answer without the end of its generation prompt."""
    found = [headers]
    for switch in switches_of(chat_template_of(collator.processor)):
        variables = {**collator.template_kwargs, **switch}
        found += filter(None, [headers_of(attrs.evolve(collator, template_kwargs=variables))])
    prompts = [other.generation_prompt or "" for other in found]
    if any(headers.answer.strip().startswith(prompt.strip()) for prompt in prompts):
        return
    try:
        collator.encode(chat("Yes"))
    except CollateError:
        return
    raise failure(
        "the last answer trains without the end of the generation prompt, so where generation "
        "never starts",
        'refuse it, or set off_prompt="train"',
        expected=headers.generation_prompt,
        found=headers.answer,
    )


def check_special_tokens_in_text(collator: BaseCollator, trial: Trial) -> None:
    """Text that spells a special token stays text, or is refused."""
    subject = Subject.of(collator)
    vocabulary = Vocabulary.of(subject.tokenizer)
    allowed = subject.collator.allowed_special_tokens

    def special_tokens(sample: EncodedSample) -> list[str]:
        ids = sample.input_ids.numpy()
        found = ids[vocabulary.is_control(ids)]
        tokens = subject.tokenizer.convert_ids_to_tokens(found.tolist())
        return [token for token in tokens if token not in allowed]

    expected = special_tokens(subject.collator.encode(_asking(subject, "so")))

    def check(text: str) -> None:
        messages = _asking(subject, text)
        try:
            sample = subject.collator.encode(messages)
        except ConversationError:
            if subject.collator.special_tokens_in_text == "error":
                return
            raise
        found = special_tokens(sample)
        if found != expected:
            raise failure(
                "text of a message became a special token",
                "encode the text of messages as plain text, separately from the template's text",
                messages=messages,
                sample=sample,
                collator=subject.collator,
                expected=expected,
                found=found,
            )

    forall(trial, hostile_text(subject.collator.processor), check)


def _asking(subject: Subject, text: str) -> Chat:
    """Makes a conversation whose system message and question hold a text."""
    messages = subject.chat("Fine", system=subject.system)
    return [m if m["role"] == "assistant" else with_text(m, f"a{text}b") for m in messages]


def _agree(generation_prompt: str, header: str) -> bool:
    """Whether one text starts with the other, apart from whitespace."""
    one, other = generation_prompt.strip(), header.strip()
    return one.startswith(other) or other.startswith(one)


def _fullest_conversation(collator: BaseCollator) -> Chat:
    """Returns the accepted conversation with the most kinds of content."""
    for images, answers, system in product((1, 0), (("Yes", "No"), ("Yes",)), (True, False)):
        if images and "image" not in collator.traits.placeholders:
            continue
        messages = chat(*answers, images=images, system=system)
        try:
            _rendered(collator, messages)
        except CollateError:
            continue
        return messages
    raise NotApplicable("it writes no prompt")


def _rendered(collator: BaseCollator, messages: Chat) -> Rendering:
    return collator.render(read_example(messages))


def _pieces(
    collator: BaseCollator, messages: Chat, marked: list[MarkedText]
) -> Iterator[tuple[MarkedText, str, bool]]:
    """Yields the expected texts in order, and whether each is media."""
    for message, text in zip(messages, marked, strict=True):
        for part in media_of(message):
            yield text, collator.traits.placeholders[part["type"]], True
        yield text, text.text, False


def _first_failure(
    collator: BaseCollator,
    messages: Chat,
    marked: list[MarkedText],
    prompt: str,
    *,
    moves: bool,
) -> LawFailure | None:
    """Returns the first failure of a prompt, or `None`.

    Args:
        collator: The collator.
        messages: The conversation.
        marked: Its texts.
        prompt: Its prompt.
        moves: Whether the collator reports that the template moves the system message.
    """
    context: dict[str, Any] = {"messages": messages, "found": prompt}
    start = 0
    for text, piece, is_media in _pieces(collator, messages, marked):
        if moves and messages[text.message]["role"] in _GLOBAL and piece in prompt:
            continue
        found = prompt.find(piece, start)
        if found < 0:
            missing = _missing_media(text, start) if is_media else _missing(text, prompt, marked)
            return failure(missing, _REMEDY, expected=piece, **context)
        start = found + len(piece)
    for text in marked:
        first = prompt.find(text.mark)
        again = prompt.find(text.mark, first + 1)
        if again >= 0:
            turn = _turn_at(collator, prompt, marked, again)
            place = (
                "twice in its turn" if turn == text.message else f"in the turn of messages[{turn}]"
            )
            problem = f"the text of messages[{text.message}] occurs {place}"
            return failure(problem, _REMEDY, **context)
    return None


def _missing_media(text: MarkedText, start: int) -> str:
    after = f" after the text of messages[{text.message - 1}]" if start else ""
    return f"the placeholder of the image in messages[{text.message}] is missing{after}"


def _missing(text: MarkedText, prompt: str, marked: list[MarkedText]) -> str:
    name = f"the text of messages[{text.message}]"
    if text.text in prompt:
        earlier = [other for other in marked if other.message < text.message]
        if all(prompt.find(other.text) < prompt.find(text.text) for other in earlier):
            return f"{name} precedes its image, but the message has the image first"
        return f"{name} precedes that of messages[{earlier[-1].message}]"
    folded = prompt.casefold()
    if text.text.casefold() in folded or text.mark.casefold() in folded:
        return f"{name} is changed"
    return f"{name} is missing"


def _turn_at(collator: BaseCollator, prompt: str, marked: list[MarkedText], place: int) -> int:
    """Returns the message whose turn holds a character of the prompt."""
    starts = [(prompt.find(text.mark), text.message) for text in marked]
    before = max((start, message) for start, message in starts if start < place)[1]
    later = [(start, message) for start, message in starts if start > place]
    special_token = Vocabulary.of(collator.processor.tokenizer).pattern
    between = prompt[place : min(later)[0]] if later else ""
    if later and not re.search(special_token, between):
        return min(later)[1]
    return before
