"""What a collator was seen to take, and what it refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from hypothesis import strategies as st

from vlmcollate.collator import BaseCollator
from vlmcollate.testing.generators import conversations, picture
from vlmcollate.testing.laws.for_all import Chat, LawFailure

_MOST_TURNS = 5


class NothingTaken(LawFailure):
    """The collator takes not even one question and its answer, so that no law can be tried."""


@attrs.frozen(kw_only=True, eq=False)
class Subject:
    """A collator and what it was seen to take.

    Attributes:
        collator: The collator, without a limit to lengths or media that stands in.
        system: Whether a system message may come first.
        turns: The most answers that are drawn.
        images: The most pictures in a conversation that were taken.
        text_only: Whether a conversation without pictures is taken.
        refused: Why not, for what of that was tried and not taken; with the conversation.
    """

    collator: BaseCollator
    system: bool
    turns: int
    images: int
    text_only: bool
    refused: Mapping[str, tuple[Chat, Exception]]

    @classmethod
    def of(cls, collator: BaseCollator) -> Subject:
        """Finds out what a collator takes.

        Raises:
            NothingTaken: It takes not even one question and its answer.
        """
        if _SEEN and _SEEN[0] is collator:
            seen: Subject = _SEEN[1]
            return seen
        bare: dict[str, Any] = {
            "max_length": None,
            "on_overlong": "raise",
            "dummy_media": "never",
        }
        subject = cls._probed(attrs.evolve(collator, **bare))
        _SEEN[:] = [collator, subject]
        return subject

    @classmethod
    def _probed(cls, collator: BaseCollator) -> Subject:
        refused: dict[str, tuple[Chat, Exception]] = {}

        def takes(what: str, messages: Chat) -> bool:
            error = _error_of(collator, messages)
            if error is not None:
                refused[what] = messages, error
            return error is None

        text_only, images = takes("text alone", chat()), 0
        if "image" in collator.traits.placeholders and takes("a picture", chat(images=1)):
            more = (number for number in (3, 2) if takes("several pictures", chat(images=number)))
            images = next(more, 1)
        if not text_only and not images:
            error = next(iter(refused.values()))[1]
            raise NothingTaken(
                f"the collator takes not even one question and its answer: {error}\n"
                "what to change: mend what the error names; most often it is the chat template"
            )
        least = 0 if text_only else 1
        several = takes("two answers", chat("Yes", "No", images=least))
        return cls(
            collator=collator,
            system=takes("a system message", chat(images=least, system=True)),
            turns=_MOST_TURNS if several else 1,
            images=images,
            text_only=text_only,
            refused=refused,
        )

    def chats(self, **options: Any) -> st.SearchStrategy[Chat]:
        """Conversations that the collator takes, some with their content as strings."""
        known: dict[str, Any] = {
            "max_turns": self.turns,
            "system": self.system,
            "min_images": 0 if self.text_only else 1,
            "max_images": self.images,
            "strings": True,
        }
        return conversations(**{**known, **options})

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.collator.processor.tokenizer

    def chat(self, *answers: str, images: int = 0, system: bool = False) -> Chat:
        """A conversation with at least the pictures that it takes."""
        return chat(*answers, images=max(images, 0 if self.text_only else 1), system=system)


_SEEN: list[Any] = []
"""The collator that was probed last, and what came of it."""


def chat(*answers: str, images: int = 0, system: bool = False) -> Chat:
    """A conversation of plain questions, with pictures in the first one."""
    messages: Chat = [{"role": "system", "content": "Be kind."}] if system else []
    for number, answer in enumerate(answers or ("A cat",)):
        pictures = [
            {"type": "image", "image": picture(56 + 28 * (i % 2), 56, 60 * i)}
            for i in range(0 if number else images)
        ]
        question = {"type": "text", "text": f"What is number {number}?"}
        messages += [
            {"role": "user", "content": [*pictures, question]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
    return messages


def _error_of(collator: BaseCollator, messages: Chat) -> Exception | None:
    try:
        collator.encode(messages)
    except Exception as error:  # noqa: BLE001  # a collator may raise anything
        return error
    return None
