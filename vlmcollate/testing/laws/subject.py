"""The kinds of conversation that a collator accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from hypothesis import strategies as st

from vlmcollate.collator import BaseCollator
from vlmcollate.testing.generators import conversations, tinted_image, weight_of
from vlmcollate.testing.laws.for_all import Chat, LawFailure

_TURN_LIMIT = 5
"""The maximum number of answers in a drawn conversation."""


class NothingAccepted(LawFailure):
    """The collator refuses one question and its answer."""


@attrs.frozen(kw_only=True, eq=False)
class Subject:
    """A collator and the kinds of conversation that it accepts.

    Attributes:
        collator: The collator, without `max_length`, dummy media and bytes.
        system: Whether it accepts a system message.
        turns: The maximum number of answers in a drawn conversation.
        images: The maximum number of images that it accepted in a conversation.
        text_only: Whether it accepts a conversation without images.
        refused: The kinds of conversation that it refused, each with the conversation and the
            error.
    """

    collator: BaseCollator
    system: bool
    turns: int
    images: int
    text_only: bool
    refused: Mapping[str, tuple[Chat, Exception]]

    @classmethod
    def of(cls, collator: BaseCollator) -> Subject:
        """Finds the kinds of conversation that a collator accepts.

        Raises:
            NothingAccepted: The collator does not accept one question and its answer.
        """
        if _LAST and _LAST[0] is collator:
            last: Subject = _LAST[1]
            return last
        bare: dict[str, Any] = {
            "max_length": None,
            "on_overlong": "raise",
            "dummy_media": "never",
            "counts": True,
            "pixels": "float32" if collator.pixels == "uint8" else collator.pixels,
        }
        subject = cls._probed(attrs.evolve(collator, **bare))
        _LAST[:] = [collator, subject]
        return subject

    @classmethod
    def _probed(cls, collator: BaseCollator) -> Subject:
        refused: dict[str, tuple[Chat, Exception]] = {}

        def accepts(kind: str, messages: Chat) -> bool:
            error = _error_of(collator, messages)
            if error is not None:
                refused[kind] = messages, error
            return error is None

        text_only, images = accepts("text alone", chat()), 0
        if "image" in collator.traits.placeholders and accepts("an image", chat(images=1)):
            more = (number for number in (3, 2) if accepts("several images", chat(images=number)))
            images = next(more, 1)
        if not text_only and not images:
            error = next(iter(refused.values()))[1]
            raise NothingAccepted(
                f"the collator refuses one question and its answer: {error}\n"
                "what to change: fix the cause of the error, which is most often the chat template"
            )
        least = 0 if text_only else 1
        several = accepts("two answers", chat("Yes", "No", images=least))
        return cls(
            collator=collator,
            system=accepts("a system message", chat(images=least, system=True)),
            turns=_TURN_LIMIT if several else 1,
            images=images,
            text_only=text_only,
            refused=refused,
        )

    def chats(self, **options: Any) -> st.SearchStrategy[Chat]:
        """Draws conversations of the accepted kinds."""
        known: dict[str, Any] = {
            "max_turns": self.turns,
            "system": self.system,
            "min_images": 0 if self.text_only else 1,
            "max_images": self.images,
            "strings": True,
        }
        drawn = conversations(**{**known, **options})
        if self.collator.train_on == "all_turns":
            return drawn
        return drawn.filter(lambda messages: weight_of(messages[-1]) > 0)  # else nothing may train

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the collator's processor."""
        return self.collator.processor.tokenizer

    def chat(self, *answers: str, images: int = 0, system: bool = False) -> Chat:
        """Makes a conversation with the images that the collator requires."""
        return chat(*answers, images=max(images, 0 if self.text_only else 1), system=system)


_LAST: list[Any] = []
"""The last collator that was probed, and its `Subject`."""


def chat(*answers: str, images: int = 0, system: bool = False) -> Chat:
    """Makes a conversation with these answers, and images at its start."""
    messages: Chat = [{"role": "system", "content": "Be kind."}] if system else []
    for number, answer in enumerate(answers or ("A cat",)):
        media = [
            {"type": "image", "image": tinted_image(56 + 28 * (i % 2), 56, 60 * i)}
            for i in range(0 if number else images)
        ]
        question = {"type": "text", "text": f"What is number {number}?"}
        messages += [
            {"role": "user", "content": [*media, question]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
    return messages


def _error_of(collator: BaseCollator, messages: Chat) -> Exception | None:
    try:
        collator.encode(messages)
    except Exception as error:  # noqa: BLE001  # whatever a collator raises is a refusal
        return error
    return None
