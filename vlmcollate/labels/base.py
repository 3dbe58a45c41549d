"""The interface of label strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import attrs

from vlmcollate.conversation import Conversation
from vlmcollate.prompt.chat import ChatRenderer
from vlmcollate.prompt.encoder import EncodedPrompt, PromptEncoder, Turn
from vlmcollate.validators import WithOptions


@attrs.frozen(kw_only=True, eq=False)
class LabelContext:
    """The information for a strategy besides the tokens.

    Attributes:
        conversation: The sample's conversation.
        render: The collator's renderer of conversations.
        encode: The collator's encoder of rendered prompts.
        stop_ids: The ids of the tokens that may end an assistant turn.
    """

    conversation: Conversation
    render: ChatRenderer
    encode: PromptEncoder
    stop_ids: Sequence[int]

    @property
    def processor(self) -> Any:
        """The collator's processor."""
        return self.encode.processor


class LabelStrategy(WithOptions, ABC):
    """Finds the assistant turns of one conversation in its tokens.

    A strategy is a small frozen value. A turn contains every token that the model must produce,
    including its stop token. The collator decides which turns train, and with what weight. A
    strategy raises an error for a turn that it cannot locate.
    """

    @abstractmethod
    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """Finds the assistant turns.

        Args:
            prompt: The encoded prompt of L tokens.
            context: Its conversation, and the means to encode others.

        Returns:
            The turns in order, one for each assistant message in the prompt.

        Raises:
            LabelError: A turn cannot be located with certainty.
        """


def assistant_indices(conversation: Conversation) -> list[int]:
    """Returns the indices of the assistant's messages."""
    return [i for i, message in enumerate(conversation.messages) if message.is_assistant]
