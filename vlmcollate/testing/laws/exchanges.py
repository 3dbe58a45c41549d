"""Laws of tools, reasoning, completions, and images between texts.

The expected prompt is what the processor's own chat template writes.
"""

from __future__ import annotations

from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.prompt.direct import TEMPLATE_ERRORS
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.laws.answers import check_answers
from vlmcollate.testing.laws.failure_messages import (
    failure,
    media_of,
    parts_of,
    text_of,
    trained_runs,
)
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial
from vlmcollate.testing.laws.probes import accepts, probes
from vlmcollate.testing.laws.subject import Subject
from vlmcollate.testing.laws.templates import headers_of

_DESCRIPTION, _ARGUMENT, _RESULT, _REASONING = "Zqfinds", "Zqrome", "Zqsunny", "Zqponder"
_TRAINED = (_ARGUMENT, _REASONING)
"""The words that the model has to generate."""
_NAMES = {
    _DESCRIPTION: "the description of a tool",
    _ARGUMENT: "the argument of a tool call",
    _RESULT: "the result of a tool",
    _REASONING: "the reasoning of an answer",
}


def check_tools_and_reasoning_are_written(collator: BaseCollator, trial: Trial) -> None:
    """The prompt has all tool and reasoning text that the template writes."""
    del trial
    for subject, example, wanted in exchanges(collator):
        sample = subject.collator.encode(example)
        found = _decode(subject, sample.input_ids.tolist())
        for word in wanted:
            if word not in found:
                raise _failure(
                    f"{_NAMES[word]} is missing from the tokens, but the chat template writes it",
                    "keep tools and all keys of messages in `read`, and pass them to the template "
                    "in `render`",
                    subject,
                    example,
                    sample,
                    expected=word,
                )


def check_calls_train_and_results_do_not(collator: BaseCollator, trial: Trial) -> None:
    """Tool calls and reasoning train; tool schemas and results do not."""
    del trial
    for subject, example, wanted in exchanges(collator):
        sample = subject.collator.encode(example)
        prompt = _decode(subject, sample.input_ids.tolist())
        runs = trained_runs(sample.input_ids, sample.labels)
        trained = " ".join(_decode(subject, run) for run in runs)
        for word in wanted:
            if word in prompt and (word in trained) != (word in _TRAINED):
                is_trained = "is trained" if word in trained else "is not trained"
                raise _failure(
                    f"{_NAMES[word]} {is_trained}",
                    "train everything that the template writes for an assistant message, and "
                    "nothing of tools and their results",
                    subject,
                    example,
                    sample,
                    found=trained,
                )


def check_only_the_completion_trains(collator: BaseCollator, trial: Trial) -> None:
    """Only the completion trains, not the answers in its prompt."""
    del trial
    given = Subject.of(collator)
    subject = attrs.evolve(given, collator=attrs.evolve(given.collator, train_on="all_turns"))
    headers = headers_of(collator)
    for answers in (("Yes",), ("Zqfirst", "Yes"))[: min(subject.turns, 2)]:
        (*prompt, completion) = subject.chat(*answers)
        messages = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in prompt]
        sample = subject.collator.encode({"prompt": prompt, "completion": [completion]})
        check_answers(subject, [*messages, completion], sample, headers)


def check_media_stays_between_its_texts(collator: BaseCollator, trial: Trial) -> None:
    """Images between texts stay there if the template writes them there."""
    del trial
    subject = Subject.of(collator)
    for messages in probes(subject, "text, image, text"):
        wanted = [
            text_of({"content": [part]}).strip() if part["type"] == "text" else placeholder
            for part in parts_of(messages[0])
            if (placeholder := collator.traits.placeholders.get("image", ""))
            or part["type"] == "text"
        ]
        own = _template_prompt(collator, {"messages": messages})
        if own is None or not _in_order(own, wanted):
            continue
        found = collator.render(collator.read(messages)).text
        if not _in_order(found, wanted):
            raise failure(
                "the prompt does not keep the order of images and texts",
                "keep the order of parts in `read` and `render`",
                messages=messages,
                expected=wanted,
                found=found,
            )
        return
    raise NotApplicable("its template writes no images between texts")


def exchanges(collator: BaseCollator) -> list[tuple[Subject, dict[str, Any], list[str]]]:
    """Returns the accepted examples, each with the words in its prompt.

    Raises:
        NotApplicable: The template writes none of the words.
    """
    if not collator.family.needs_chat_template:
        raise NotApplicable("it has no chat template")
    wanted = []
    for example in (_tool_example(), _reasoning_example()):
        prompt = _template_prompt(collator, example) or ""
        wanted.append((example, [word for word in _NAMES if word in prompt]))
    if not any(words for _, words in wanted):
        raise NotApplicable("its chat template writes neither tools nor reasoning")
    subject = Subject.of(collator)
    if not subject.text_only:
        raise NotApplicable("it does not accept text without media")
    return [
        (subject, example, words)
        for example, words in wanted
        if words and accepts(subject.collator, example)
    ]


def _tool_example() -> dict[str, Any]:
    """Makes a question, a tool call, its result, and the answer."""
    parameters = {"type": "object", "properties": {"place": {"type": "string"}}}
    function = {"name": "look_up", "description": _DESCRIPTION, "parameters": parameters}
    call = {"name": "look_up", "arguments": {"place": _ARGUMENT}}
    return {
        "messages": [
            {"role": "user", "content": "How is the weather?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "id": "call00000", "function": call}],
            },
            {"role": "tool", "content": _RESULT, "name": "look_up", "tool_call_id": "call00000"},
            {"role": "assistant", "content": "It is warm."},
        ],
        "tools": [{"type": "function", "function": function}],
    }


def _reasoning_example() -> dict[str, Any]:
    """Makes a question and an answer with reasoning."""
    answer = {"role": "assistant", "content": "It is warm.", "reasoning_content": _REASONING}
    return {"messages": [{"role": "user", "content": "How is the weather?"}, answer]}


def _template_prompt(collator: BaseCollator, example: dict[str, Any]) -> str | None:
    """Renders an example with the processor's template, or returns `None`."""
    as_parts: Chat = [{**m, "content": parts_of(m)} for m in example["messages"]]
    bare: Chat = [
        {**m, "content": [{"type": p["type"]} if p in media_of(m) else p for p in m["content"]]}
        if media_of(m)
        else m
        for m in as_parts
    ]
    for messages in (example["messages"], bare):
        try:
            return str(
                collator.processor.apply_chat_template(
                    messages,
                    tools=example.get("tools"),
                    tokenize=False,
                    **collator.template_kwargs,
                )
            )
        except TEMPLATE_ERRORS:
            continue
    return None


def _in_order(text: str, pieces: list[str]) -> bool:
    """Whether a text holds the pieces one after the other."""
    start = 0
    for piece in pieces:
        found = text.find(piece, start)
        if found < 0:
            return False
        start = found + len(piece)
    return True


def _decode(subject: Subject, ids: list[int]) -> str:
    """Decodes ids without whitespace, which tokenizers may add between words."""
    return "".join(str(subject.tokenizer.decode(ids)).split())


def _failure(
    problem: str,
    remedy: str,
    subject: Subject,
    example: dict[str, Any],
    sample: EncodedSample,
    **more: Any,
) -> Exception:
    return failure(
        problem,
        remedy,
        messages=example["messages"],
        sample=sample,
        collator=subject.collator,
        **more,
    )
