"""Labels from the template's own {% generation %} blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs
from transformers.utils.chat_template_utils import render_jinja_template

from vlmcollate.errors import LabelError
from vlmcollate.labels.base import LabelContext, LabelStrategy
from vlmcollate.prompt.direct import TEMPLATE_ERRORS, chat_template_of
from vlmcollate.prompt.encoder import EncodedPrompt, Turn
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.templates import is_template_error


@attrs.frozen
class GenerationTagLabels(LabelStrategy):
    """Trains the turns that the template marks with {% generation %}.

    The blocks select the turns that train; each must contain all words of one turn and none of
    another. The trained tokens follow the label rule: they exclude the generation prompt, include
    the stop token, and exclude the whitespace after it.
    """

    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """Finds the assistant turns; see `LabelStrategy`.

        Raises:
            LabelError: The template has no such block, or one that does not fit a turn, for
                example because it is inside a macro, a filter or a set block.
        """
        turns = prompt.turns
        matched = {self._turn_of(block, prompt) for block in self._blocks(prompt, context)}
        return [turn for turn in turns if turn.message in matched]

    def _blocks(self, prompt: EncodedPrompt, context: LabelContext) -> list[tuple[int, int]]:
        template = chat_template_of(context.processor)
        if not re.search(r"{%-?\s*generation\s*-?%}", template):
            raise LabelError("the chat template has no {% generation %} block")
        chat, tools = context.render.inputs(context.conversation)
        variables = {**context.render.template_kwargs, **context.conversation.template_kwargs}
        try:
            (text,), (blocks,) = render_jinja_template(
                [chat],
                tools=tools,
                chat_template=template,
                return_assistant_tokens_mask=True,
                **{**context.processor.tokenizer.special_tokens_map, **variables},
            )
        except TEMPLATE_ERRORS as error:
            if not is_template_error(error):
                raise
            raise LabelError(
                f"the chat template cannot be rendered while its blocks are tracked: {error}"
            ) from error
        if not blocks:
            raise LabelError("the chat template rendered none of its {% generation %} blocks")
        whole = context.render.completed(text, context.conversation)
        if whole != prompt.rendering.text:
            raise LabelError("the chat template renders differently while its blocks are tracked")
        before = whole.index(text)
        return [(int(a) + before, int(b) + before) for a, b in blocks]

    def _turn_of(self, block: tuple[int, int], prompt: EncodedPrompt) -> int:
        start, end = block
        owners = [t for t in prompt.rendering.turns if start < t.end and t.start <= end]
        words = [g for g in prompt.rendering.caller_spans if g.start < end and start < g.end]
        if len(owners) == 1 and _fits(block, owners[0], words, prompt):
            return owners[0].message
        raise LabelError(
            "a {% generation %} block does not fit a turn: found "
            f"{prompt.rendering.text[start:end]!r:.80}, expected all words of one turn"
        )


def _fits(block: tuple[int, int], turn: Span, words: Sequence[Span], prompt: EncodedPrompt) -> bool:
    own = [g for g in prompt.rendering.caller_spans if g.message == turn.message]
    return words == own and all(block[0] <= g.start and g.end <= block[1] for g in own)
