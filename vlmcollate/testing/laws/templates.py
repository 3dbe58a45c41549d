"""Finds the headers of a chat template in its prompts, without any label strategy."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import CollateError
from vlmcollate.formats import read_example
from vlmcollate.prompt.direct import TEMPLATE_ERRORS, chat_template_of
from vlmcollate.prompt.templates import wants_strings
from vlmcollate.testing.laws.failure_messages import text_of, with_text
from vlmcollate.testing.laws.for_all import Chat
from vlmcollate.testing.laws.subject import chat


@attrs.frozen(kw_only=True)
class Headers:
    """The template's text between the text of two messages.

    Attributes:
        user: The header of the last question.
        earlier_answer: The header of an answer that another question follows; `None` if only one
            answer is accepted.
        answer: The header of the last answer.
        generation_prompt: The text after the last question with `add_generation_prompt`; `None` if
            the template writes none.
    """

    user: str
    earlier_answer: str | None
    answer: str
    generation_prompt: str | None

    def trained(self, *, is_last: bool) -> str | None:
        """Returns the generated part of a header; `None` if it is unknown."""
        header = self.answer if is_last else self.earlier_answer
        if header is None or self.generation_prompt is None:
            return None
        if header.startswith(self.generation_prompt):
            return header.removeprefix(self.generation_prompt)
        return "" if self.generation_prompt.startswith(header) else None

    @property
    def depends_on_the_chat(self) -> bool:
        """Whether the header of an answer depends on the messages around it."""
        return self.earlier_answer not in (None, self.answer)

    def trained_behind(self, written: str, *, is_last: bool) -> str | None:
        """Returns the generated part of the header that a text ends with.

        Args:
            written: What the template writes up to the words of an answer.
            is_last: Whether it is the last answer; this decides if no known header ends the text.
        """
        headers = {True: self.answer, False: self.earlier_answer or ""}
        found = [last for last, header in headers.items() if header and written.endswith(header)]
        longest = max(found, key=lambda last: len(headers[last]), default=is_last)
        return self.trained(is_last=longest)


def headers_of(collator: BaseCollator) -> Headers | None:
    """Returns the headers of a collator's prompts, or `None`."""
    for answers in (("No", "Yes"), ("Yes",)):
        for images in (0, 1):
            messages = [
                with_text(m, f"Zq{i}qZ") for i, m in enumerate(chat(*answers, images=images))
            ]
            prompt = _rendered(collator, messages)
            if all(prompt.count(text_of(m)) == 1 for m in messages):
                return _read_headers(collator, messages, prompt)
    return None


def _read_headers(collator: BaseCollator, messages: Chat, prompt: str) -> Headers:
    spans = [(prompt.find(text), prompt.find(text) + len(text)) for text in map(text_of, messages)]
    before = [
        prompt[a:b]
        for a, b in zip([0, *(e for _, e in spans)], [s for s, _ in spans], strict=False)
    ]
    return Headers(
        user=before[-2],
        earlier_answer=before[1] if len(messages) > 2 else None,
        answer=before[-1],
        generation_prompt=_generation_prompt(collator, messages[:-1])
        if collator.family.needs_chat_template
        else before[-1],
    )


def _generation_prompt(collator: BaseCollator, messages: Chat) -> str | None:
    """Returns the generation prompt of the template, or `None`."""
    processor = collator.processor
    flat = [{**message, "content": text_of(message)} for message in messages]
    strings_first = wants_strings(processor, chat_template_of(processor), "user")
    for form in (flat, messages) if strings_first else (messages, flat):
        try:
            prompt, plain = (
                str(
                    processor.apply_chat_template(
                        form, tokenize=False, add_generation_prompt=add, **collator.template_kwargs
                    )
                )
                for add in (True, False)
            )
        except TEMPLATE_ERRORS:
            continue
        question = text_of(messages[-1])
        if prompt != plain and question in prompt:
            return prompt[prompt.rfind(question) + len(question) :]
    return None


def _rendered(collator: BaseCollator, messages: Chat) -> str:
    try:
        return collator.render(read_example(messages)).text
    except CollateError:
        return ""
