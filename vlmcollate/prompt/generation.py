"""Renders the prompt from which a model generates an answer."""

from __future__ import annotations

import attrs

from vlmcollate.conversation import Conversation
from vlmcollate.errors import ConversationError
from vlmcollate.prompt.chat import ChatRenderer
from vlmcollate.prompt.marks import Marks
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.prompt.template_syntax import tested_literals
from vlmcollate.prompt.templates import chat_template_of, unseparable
from vlmcollate.tokens.vocabulary import Vocabulary


def rendered_prompt(renderer: ChatRenderer, conversation: Conversation) -> Rendering:
    """Renders the messages of a conversation with a generation prompt.

    Args:
        renderer: The renderer of conversations.
        conversation: The messages before the answer, the last of which is no answer.

    Raises:
        ConversationError: The template refuses the conversation, or its own text depends on the
            conversation's strings.
        MediaMismatchError: The template wrote more or fewer placeholders than there are media.
    """
    template, upto = chat_template_of(renderer.processor), len(conversation.messages)
    vocabulary = Vocabulary.known(renderer.processor.tokenizer)
    plain = renderer.render(conversation, None, upto=upto, template=template)
    for literals in (None, tested_literals(template)):
        marks = Marks(conversation, vocabulary.pattern, literals)
        trace = marks.read(renderer.render(conversation, marks, upto=upto, template=template))
        if trace is not None and trace.text == plain:
            return renderer.placed(conversation, trace)
    raise ConversationError(unseparable(plain))


def before_the_answer(rendering: Rendering) -> Rendering:
    """Returns the part of a rendering up to its last turn, without turns.

    Raises:
        LabelError: The turn cannot be placed.
    """
    if rendering.turn_error is not None:
        raise rendering.turn_error
    end = rendering.turns[-1].start
    return attrs.evolve(
        rendering,
        text=rendering.text[:end],
        caller_spans=tuple(span for span in rendering.caller_spans if span.end <= end),
        media=tuple(span for span in rendering.media if span.end <= end),
        turns=(),
        notes=(),
    )
