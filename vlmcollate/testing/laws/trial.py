"""What a law has to go by: the collator, what it can do, and how failures are told."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import CollateError, SampleError
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.sample_encoder import DroppedTextWarning
from vlmcollate.testing.generators import conversations, described
from vlmcollate.view import mask_text

T = TypeVar("T")
Chat = list[dict[str, Any]]
_MOST_SHOWN = 700


class LawFailure(AssertionError):  # noqa: N818  # pytest shows it as the assertion it is
    """A collator breaks a law; the message says where, what was found and what to change."""


class NotApplicable(Exception):  # noqa: N818  # it is no error
    """A law has nothing to say of a collator; the message says why."""


@attrs.frozen(kw_only=True)
class Trial:
    """How hard a law tries.

    Attributes:
        examples: How many examples it draws.
        seed: Decides which.
    """

    examples: int = 10
    seed: int = 0


@attrs.frozen(kw_only=True, eq=False)
class Subject:
    """A collator and what it was seen to take.

    Attributes:
        collator: The collator.
        system: Whether a system message may come first.
        turns: The most answers that were tried and taken.
        images: The most pictures in a conversation that were taken.
        text_only: Whether a conversation without pictures is taken.
    """

    collator: BaseCollator
    system: bool
    turns: int
    images: int
    text_only: bool

    @classmethod
    def of(cls, collator: BaseCollator) -> Subject:
        """Finds out what a collator takes.

        Raises:
            LawFailure: It takes not even one question and its answer.
        """
        open_ended = attrs.evolve(collator, max_length=None, on_overlong="raise")
        text_only, images = _takes(open_ended, chat()), 0
        for number in (1, 2):
            if "image" in collator.placeholders and _takes(open_ended, chat(images=number)):
                images = number
        if not text_only and not images:
            error = _error_of(open_ended, chat()) or _error_of(open_ended, chat(images=1))
            raise LawFailure(
                f"the collator takes not even one question and its answer: {error}\n"
                "what to change: mend what the error names; most often it is the chat template"
            )
        least = 0 if text_only else 1
        return cls(
            collator=open_ended,
            system=_takes(open_ended, chat(images=least, system=True)),
            turns=3 if _takes(open_ended, chat("Yes", "No", images=least)) else 1,
            images=images,
            text_only=text_only,
        )

    def chats(self, **options: Any) -> st.SearchStrategy[Chat]:
        """Conversations that the collator takes."""
        known: dict[str, Any] = {
            "max_turns": self.turns,
            "system": self.system,
            "min_images": 0 if self.text_only else 1,
            "max_images": self.images,
        }
        return conversations(**{**known, **options})

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.collator.processor.tokenizer

    def chat(self, *answers: str, images: int = 0, system: bool = False) -> Chat:
        """A conversation with at least the pictures that it takes."""
        return chat(*answers, images=max(images, 0 if self.text_only else 1), system=system)


def chat(*answers: str, images: int = 0, system: bool = False) -> Chat:
    """A conversation of plain questions, with pictures in the first one."""
    messages: Chat = [{"role": "system", "content": "Be kind."}] if system else []
    for number, answer in enumerate(answers or ("A cat",)):
        pictures = [
            {"type": "image", "image": Image.new("RGB", (56 + 28 * i, 56), "teal")}
            for i in range(0 if number else images)
        ]
        question = {"type": "text", "text": f"What is number {number}?"}
        messages += [
            {"role": "user", "content": [*pictures, question]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
    return messages


def forall(trial: Trial, strategy: st.SearchStrategy[T], body: Callable[[T], None]) -> None:
    """Tries a law on drawn examples, and shows the smallest that breaks it."""

    @seed(trial.seed)
    @settings(
        max_examples=trial.examples,
        deadline=None,
        database=None,
        derandomize=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(strategy)
    def tried(value: T) -> None:
        body(value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedTextWarning)
        try:
            tried()
        except (LawFailure, CollateError) as error:
            error.__notes__ = []  # the message has the example
            if isinstance(error, LawFailure):
                raise
            raise LawFailure(
                f"the collator refuses a conversation of a kind that it takes: {error}\n"
                "what to change: see the error; a law draws only what plain probes were taken for"
            ) from error


def failure(
    problem: str,
    change: str,
    *,
    messages: Chat | None = None,
    sample: EncodedSample | None = None,
    collator: BaseCollator | None = None,
    expected: object = None,
    found: object = None,
) -> LawFailure:
    """A law's failure, told for whoever has to mend it.

    Args:
        problem: What is wrong, with the place.
        change: What to change.
        messages: The conversation.
        sample: What it was encoded to, whose trained tokens are shown in double brackets.
        collator: What encoded it.
        expected: What should have been found.
        found: What was found.
    """
    lines = [problem]
    if expected is not None or found is not None:
        lines += [f"expected: {expected!r}", f"found:    {found!r}"]
    if sample is not None and collator is not None:
        shown = mask_text(sample, collator.processor, brackets=True).plain.strip()
        if len(shown) > _MOST_SHOWN:
            shown = f"{shown[: _MOST_SHOWN // 2]} ... {shown[-_MOST_SHOWN // 2 :]}"
        lines += ["tokens, trained ones in [[ ]]:", _indented(shown)]
        lines += [f"label strategy: {sample.label_strategy or type(collator.labels).__name__}"]
    if messages is not None:
        lines += ["conversation:", _indented(described(messages))]
    lines.append(f"what to change: {change}")
    return LawFailure("\n".join(lines))


def runs_of(ids: Tensor, labels: Tensor) -> list[list[int]]:
    """The runs of trained tokens, as ids."""
    runs: list[list[int]] = []
    inside = False
    for token, label in zip(ids.tolist(), labels.tolist(), strict=True):
        if label != IGNORE_INDEX:
            if not inside:
                runs.append([])
            runs[-1].append(token)
        inside = label != IGNORE_INDEX
    return runs


def answers_of(messages: Chat) -> list[str]:
    """What the assistant says."""
    return [text_of(message) for message in messages if message["role"] == "assistant"]


def text_of(message: dict[str, Any]) -> str:
    """The text of a message."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def same(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    """Whether tensors are equal in dtype and value."""
    return all(
        a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
        for a, b in zip(left, right, strict=True)
    )


def _takes(collator: BaseCollator, messages: Chat) -> bool:
    return _error_of(collator, messages) is None


def _error_of(collator: BaseCollator, messages: Chat) -> Exception | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedTextWarning)
        try:
            collator.encode(messages)
        except (SampleError, CollateError) as error:
            return error
    return None


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
