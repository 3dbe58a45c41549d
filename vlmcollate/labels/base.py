"""What a label strategy is."""

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
    """What a strategy may look at beside the tokens.

    Attributes:
        conversation: The sample's conversation.
        render: Renders conversations as the collator does.
        encode: Tokenizes what was rendered, as the collator does.
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

    A strategy is a small frozen value. A turn holds every token that the model has to produce, to
    the one that ends it; which turns train, and with what weight, is the collator's to decide.
    What a strategy cannot place it refuses.
    """

    @abstractmethod
    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """Finds the assistant turns.

        Args:
            prompt: The encoded prompt of L tokens.
            context: The conversation behind it and the means to encode others.

        Returns:
            The turns in order, one for each assistant message that the prompt holds.

        Raises:
            LabelError: A turn cannot be placed for sure.
        """


def assistant_indices(conversation: Conversation) -> list[int]:
    """The indices of the assistant's messages."""
    return [i for i, message in enumerate(conversation.messages) if message.is_assistant]
