"""Writes plain text with media for continued pretraining, without a chat template."""

from __future__ import annotations

import attrs

from vlmcollate.conversation import Conversation, MediaKind, MediaPart, Message, TextPart
from vlmcollate.errors import SampleError
from vlmcollate.prompt.chat import ChatRenderer
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.plain import PromptWriter
from vlmcollate.prompt.rendering import CallerSpan, Rendering
from vlmcollate.tokens.vocabulary import Vocabulary


@attrs.frozen(kw_only=True, eq=False)
class PlainTextRenderer:
    """Writes plain texts: their words, their media, and the token that ends them.

    The control tokens around media are those that the chat template writes around media between two
    words of a user. The tokenizer adds its begin-of-sequence token later, as to any text.

    Args:
        renderer: The renderer of chats.
        end_token: The token that ends a text; empty if there is none.
    """

    renderer: ChatRenderer
    end_token: str
    _around: dict[MediaKind, tuple[str, str]] = attrs.field(factory=dict, init=False)

    def __call__(self, conversation: Conversation) -> Rendering:
        """Renders one text, all of which is one turn."""
        writer = PromptWriter()
        for part in conversation.messages[0].content:
            if isinstance(part, TextPart):
                writer.give(part.text, 0)
                continue
            before, after = self._tokens_around(part.kind)
            writer.write(before)
            writer.place(self.renderer.placeholders[part.kind], part.kind, 0)
            writer.write(after)
        writer.write(self.end_token)
        rendering = writer.finish()
        return attrs.evolve(rendering, turns=(Span(0, len(rendering.text), 0),))

    def _tokens_around(self, kind: MediaKind) -> tuple[str, str]:
        """Returns the template's text before and behind media, from and to a control token."""
        if kind not in self._around:
            self._around[kind] = self._read_around(kind)
        return self._around[kind]

    def _read_around(self, kind: MediaKind) -> tuple[str, str]:
        parts = (TextPart("wombat"), MediaPart(kind, "probe", ""), TextPart("quokka"))
        probe = self.renderer(Conversation(messages=(Message(role="user", content=parts),)))
        (media,), words = probe.media, [span for span in probe.caller_spans if span.message == 0]
        if not _are_around(words, media):
            return "", ""  # the template moves media to the beginning of a message
        pattern = Vocabulary.known(self.renderer.processor.tokenizer).pattern
        before = probe.text[words[0].end : media.start]
        after = probe.text[media.end : words[1].start]
        first = next((match.start() for match in pattern.finditer(before)), len(before))
        last = max((match.end() for match in pattern.finditer(after)), default=0)
        return before[first:], after[:last]


def written_behind(renderer: ChatRenderer, kind: MediaKind) -> str:
    """Returns what a chat template writes behind media in an answer, up to the next words.

    Args:
        renderer: The renderer of chats.
        kind: The kind of media.

    Returns:
        The text; empty if the template writes no media in answers.
    """
    parts = (TextPart("wombat"), MediaPart(kind, "probe", ""), TextPart("quokka"))
    asked = Message(role="user", content=(TextPart("dunnart"),))
    answer = Message(role="assistant", content=parts)
    try:
        probe = renderer(Conversation(messages=(asked, answer)))
    except SampleError:
        return ""
    (media,) = probe.media
    starts = [span.start for span in probe.caller_spans if span.start >= media.end]
    return probe.text[media.end : min(starts, default=media.end)]


def _are_around(words: list[CallerSpan], media: Span) -> bool:
    return len(words) == 2 and words[0].end <= media.start and media.end <= words[1].start
