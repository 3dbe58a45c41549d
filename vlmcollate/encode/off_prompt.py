"""Refuses last turns that lack the end of their generation prompt."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from vlmcollate.conversation import Conversation
from vlmcollate.encode.prompt_tools import PromptTools
from vlmcollate.errors import SampleError
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.prompt.marks import REASONING_KEYS
from vlmcollate.prompt.notes import TurnNote
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.prompt.template_syntax import switches_of
from vlmcollate.prompt.turn_headers import OffPromptError
from vlmcollate.sample import IGNORE_INDEX, EncodedSample


def lacking_prompt(rendering: Rendering) -> TurnNote | None:
    """Returns the note on a last turn that lacks the end of its generation prompt, or `None`."""
    found = () if rendering.turn_error is not None else rendering.notes
    return next((n for n in found if n.kind == "off_prompt" and n.has_last), None)


def check_last_turn(
    sample: EncodedSample, rendering: Rendering, conversation: Conversation, tools: PromptTools
) -> None:
    """Refuses a sample whose last turn trains where generation never starts.

    Args:
        sample: The labelled sample.
        rendering: Its prompt.
        conversation: The conversation.
        tools: The tools of the prompt.

    Raises:
        OffPromptError: The last turn trains and lacks the end of its generation prompt.
    """
    note = lacking_prompt(rendering)
    if note is None:
        return
    last = note.messages[-1]
    if not ((sample.labels != IGNORE_INDEX) & (sample.message_ids == last)).any():
        return
    turn = next(turn for turn in rendering.turns if turn.message == last)
    remedies = [
        *_reasoning(note.detail, conversation, last, tools),
        *_switch(conversation, tools),
        *_kept_block(conversation, tools),
        "use a chat template whose turns and prompt agree",
    ]
    found = rendering.text[turn.start : turn.end][:40]
    raise OffPromptError(
        "the last turn lacks the end of its generation prompt, where the model starts to write: "
        f"found {found!r}, expected {note.detail!r} before it; "
        f'{", ".join(remedies)}, or set off_prompt="train" to train it nonetheless',
        where=f"messages[{last}]",
    )


def _reasoning(
    missing: str, conversation: Conversation, last: int, tools: PromptTools
) -> Iterator[str]:
    """Yields the remedy if the missing text opens reasoning that the answer may have."""
    form = tools.reasoning
    if form is None or not {*REASONING_KEYS}.isdisjoint(conversation.messages[last].extra):
        return
    if form.opening in missing and form.closing not in missing:
        yield f"give the answer its reasoning as {form.key!r}"


def _switch(conversation: Conversation, tools: PromptTools) -> Iterator[str]:
    """Yields the first template variable with which the last turn follows its prompt."""
    for switch in switches_of(chat_template_of(tools.renderer.processor)):
        own = {**conversation.template_kwargs, **switch}
        given = attrs.evolve(conversation, template_kwargs=own)
        try:
            rendering = tools.finished(tools.renderer(given), given)
        except SampleError:
            continue
        if rendering.turn_error is None and lacking_prompt(rendering) is None:
            yield f"set template_kwargs={dict(switch)!r}"
            return


def _kept_block(conversation: Conversation, tools: PromptTools) -> Iterator[str]:
    """Yields the remedy if the turn lost what its prompt holds of a block without reasoning."""
    if tools.drops_empty_reasoning and lacking_prompt(tools.renderer(conversation)) is None:
        yield 'set empty_reasoning="mask"'
