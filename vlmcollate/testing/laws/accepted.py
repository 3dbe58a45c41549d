"""Laws of the accepted examples, on which the other laws depend."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConversationError, MediaError
from vlmcollate.prompt.direct import TEMPLATE_ERRORS
from vlmcollate.testing.laws.failure_messages import failure, parts_of, text_of
from vlmcollate.testing.laws.for_all import EDITED, Chat, Trial, equal, forall
from vlmcollate.testing.laws.probes import probes, six_rows
from vlmcollate.testing.laws.subject import Subject

Row = tuple[Chat, dict[str, Any]]
"""Messages, and the other keys of their dict; without any, the messages are the example."""
_PROBES = ("text, image, text", "two parts", "five images", "a video", "an audio clip")


def check_accepts_a_plain_question(collator: BaseCollator, trial: Trial) -> None:
    """A question and its answer can be encoded, with and without an image."""
    del trial
    Subject.of(collator)


def check_input_is_unchanged(collator: BaseCollator, trial: Trial) -> None:
    """Examples are never modified, whether lists or dicts, strings or parts."""
    subject = Subject.of(collator)

    def check(drawn: list[Row]) -> None:
        examples: list[Any] = [{"messages": m, **more} if more else m for m, more in drawn]
        rows = copy.deepcopy(examples)
        _check_unchanged("collating", subject.collator, rows, examples)
        _check_unchanged("collating a second time", subject.collator, rows, examples)
        for row in range(len(examples)):
            one, before = rows[row : row + 1], examples[row : row + 1]
            _check_unchanged("encoding", lambda given: subject.collator.encode(*given), one, before)

    also: list[list[Row]] = [
        [(messages, {"id": number} if number % 2 else {})]
        for number, messages in enumerate(probes(subject, *_PROBES))
    ]
    also += [[(messages, {}) for messages in six_rows(subject)]]
    also += [[(subject.chat("Yes", images=subject.images), {"id": 7})]]
    if subject.text_only:
        parrot: Chat = [{**m, "content": parts_of(m)[-1]["text"]} for m in subject.chat("Yes")]
        also += [[(parrot, {}), (copy.deepcopy(parrot), {"id": 7})]]
    row = st.tuples(subject.chats(weights=True), st.sampled_from([{}, {"id": 7}]))
    forall(trial, st.lists(row, min_size=1, max_size=3), check, also=also)


def _check_unchanged(action: str, read: Any, rows: list[Any], before: list[Any]) -> None:
    """Checks that rows do not change when they are read or refused."""
    raised: Exception | None = None
    try:
        read(rows)
    except Exception as error:  # noqa: BLE001  # raised below, unless a row was changed
        raised = error
    if not equal(rows, before):
        row = _first_difference(rows, before)
        example = before[row]
        now: Any = rows[row] if row < len(rows) else None
        shown = (example, now)
        if isinstance(example, list) and isinstance(now, list) and len(now) == len(example):
            message = _first_difference(now, example)
            shown = (example[message], now[message])
        changed = failure(
            f"{action} changes the example, which the next epoch reads again",
            "copy the messages before you change them",
            messages=example["messages"] if isinstance(example, dict) else example,
            expected=shown[0],
            found=shown[1],
        )
        changed.root = EDITED
        raise changed
    if raised is not None:
        raise raised


def check_accepts_what_the_template_accepts(collator: BaseCollator, trial: Trial) -> None:
    """What the template accepts is encoded or refused on purpose.

    No other law checks a kind of conversation that the collator refuses. A refusal is on purpose if
    the processor's own template raises. For several images, and for models without a chat template,
    it is also on purpose if the error is a `ConversationError` or a `MediaError`.
    """
    del trial
    subject = Subject.of(collator)
    for kind, (messages, error) in subject.refused.items():
        may_refuse = not collator.family.needs_chat_template or kind == "several images"
        is_refusal = isinstance(error, ConversationError | MediaError) and kind != "an image"
        if (may_refuse and is_refusal) or _template_refuses(collator, messages):
            continue
        raise failure(
            f"the collator refuses {kind}, so no other law checks it: "
            f"{type(error).__name__}: {error}",
            "fix the cause of the error; if the model does not support this, let the chat template "
            "refuse it with raise_exception(...), or remove the media from `placeholders`",
            messages=messages,
        )


def _first_difference(now: list[Any], before: list[Any]) -> int:
    """Returns the index of the first item that differs from the copy."""
    pairs = enumerate(zip(now, before, strict=False))
    return next((at for at, pair in pairs if not equal(*pair)), 0)


def _template_refuses(collator: BaseCollator, messages: Chat) -> bool:
    """Whether the template raises for content as parts and as strings."""
    if not collator.family.needs_chat_template:
        return False
    flat = [{**message, "content": text_of(message)} for message in messages]
    for form in (messages, flat):
        try:
            collator.processor.apply_chat_template(form, tokenize=False, **collator.template_kwargs)
        except TEMPLATE_ERRORS:
            continue
        return False
    return True
