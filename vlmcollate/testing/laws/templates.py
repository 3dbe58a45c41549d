"""How a chat template opens its turns, read off its prompts without any label strategy."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import CollateError
from vlmcollate.formats import read_example
from vlmcollate.prompt.templates import TEMPLATE_ERRORS, chat_template_of, wants_strings
from vlmcollate.testing.laws.failure_messages import text_of, with_text
from vlmcollate.testing.laws.for_all import Chat
from vlmcollate.testing.laws.subject import chat


@attrs.frozen(kw_only=True)
class Openings:
    """What stands before the words of a turn, behind those of the turn before.

    Attributes:
        user: Before the last question.
        earlier_answer: Before an answer that another question follows; `None` where only one
            answer is taken.
        answer: Before the last answer.
        asked: Behind the last question where an answer is asked for; `None` where nothing asks.
    """

    user: str
    earlier_answer: str | None
    answer: str
    asked: str | None

    def trained(self, *, is_last: bool) -> str | None:
        """What of an opening the model has to write itself; `None` where that is not known."""
        opening = self.answer if is_last else self.earlier_answer
        if opening is None or self.asked is None:
            return None
        if opening.startswith(self.asked):
            return opening.removeprefix(self.asked)
        return "" if self.asked.startswith(opening) else None


def openings_of(collator: BaseCollator) -> Openings | None:
    """How turns open, or `None` where no prompt is written."""
    for answers in (("No", "Yes"), ("Yes",)):
        for images in (0, 1):
            messages = [
                with_text(m, f"Zq{i}qZ") for i, m in enumerate(chat(*answers, images=images))
            ]
            prompt = _rendered(collator, messages)
            if all(prompt.count(text_of(m)) == 1 for m in messages):
                return _openings(collator, messages, prompt)
    return None


def _openings(collator: BaseCollator, messages: Chat, prompt: str) -> Openings:
    spans = [(prompt.find(text), prompt.find(text) + len(text)) for text in map(text_of, messages)]
    before = [
        prompt[a:b]
        for a, b in zip([0, *(e for _, e in spans)], [s for s, _ in spans], strict=False)
    ]
    return Openings(
        user=before[-2],
        earlier_answer=before[1] if len(messages) > 2 else None,
        answer=before[-1],
        asked=_asked(collator, messages[:-1])
        if collator.family.needs_chat_template
        else before[-1],
    )


def _asked(collator: BaseCollator, messages: Chat) -> str | None:
    """What the processor's own template asks with, for messages of parts or of strings."""
    processor = collator.processor
    flat = [{**message, "content": text_of(message)} for message in messages]
    likes_strings = wants_strings(processor, chat_template_of(processor), "user")
    for form in (flat, messages) if likes_strings else (messages, flat):
        try:
            prompt, plain = (
                str(
                    processor.apply_chat_template(
                        form, tokenize=False, add_generation_prompt=asks, **collator.template_kwargs
                    )
                )
                for asks in (True, False)
            )
        except TEMPLATE_ERRORS:
            continue
        words = text_of(messages[-1])
        if prompt != plain and words in prompt:
            return prompt[prompt.rfind(words) + len(words) :]
    return None


def _rendered(collator: BaseCollator, messages: Chat) -> str:
    try:
        return collator.render(read_example(messages)).text
    except CollateError:
        return ""
