"""Finds the header that the answers of a template have, for turns before which it renders none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vlmcollate.conversation import Message, TextPart
from vlmcollate.errors import LabelError, SampleError
from vlmcollate.prompt.turn_headers import Kind, TurnHeaders, space_at_end
from vlmcollate.tokens.vocabulary import token_pattern

_USUAL: Kind = ("usual",)
"""The key of the header of answers to a question, of which no kind of turn has the form."""
_UNASKED: Kind = ("unasked",)
"""The same of the header of a template that writes no generation prompt."""

_NO_VARIABLES: Mapping[str, Any] = {}


@attrs.frozen(kw_only=True, eq=False)
class UsualHeaders(TurnHeaders):
    """The header of answers to a question; see `TurnHeaders` for its attributes."""

    def _header_of_another(
        self, at: int, first: int, error: LabelError, variables: Mapping[str, Any]
    ) -> tuple[int, str]:
        """Returns where the header of a turn begins, and the header, as another turn has it.

        Args:
            at: The end of the words before the turn, before which the template renders no prompt.
            first: The start of its words.
            error: What to raise if no other turn shows the header.
            variables: Further template variables.
        """
        opening, header = self._usual_header(error, variables)
        written = self.trace.text[at:first]
        ended = self._end_of_stop(written)
        found = written.find(header if header in written[ended:] else opening, ended)
        if not opening:
            ends = [m.end() for m in self.vocabulary.pattern.finditer(written)]
            found = ends[-1] if ends else 0
            # words of the template, such as a default system message, are no part of the turn
            found = -1 if written[found:].strip() else found
        marker = next(iter(self.vocabulary.pattern.findall(opening)[-1:]), "")
        if found < 0 and marker and self._has_own_marker(marker):
            # words before it end a question, such as a switch for thinking
            found, header = written.find(marker, ended), header[header.index(marker) :]
        if found < 0:
            raise error
        return at + found, header

    def _end_of_stop(self, text: str) -> int:
        """Returns the end of the last stop token in a text, or 0."""
        return max((m.end() for m in token_pattern(self.stop_tokens).finditer(text)), default=0)

    def _has_own_marker(self, header: str) -> bool:
        """Returns whether a header opens a turn as those of no other role do."""
        found = list(self.vocabulary.pattern.finditer(header))
        openers = [m.start() for m in found if m.group() in self.structure.openers]
        # where no token opens turns, the one that ends a question stands before an answer alone
        ends = [m.start() for m in found if m.group() in self.structure.tokens]
        if not openers and not ends:
            return False
        opener = max(openers or ends)
        end, others = 0, []
        for slot in self.trace.slots:
            before, end = self.trace.text[end : slot.start], slot.end
            if slot.message >= 0 and not self.conversation.messages[slot.message].is_assistant:
                others.append(before)
        return bool(others) and not any(header[opener:] in before for before in others)

    def _usual_header(self, error: LabelError, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Returns how the header of an answer to a question begins, and the header.

        Args:
            error: What to raise if the template renders no prompt behind a question.
            variables: Further template variables.
        """
        try:
            prompt = self._of_words(("user", "wombat"), upto=1, variables=variables)
        except SampleError:
            raise error from None
        behind = prompt.rpartition("wombat")[2] + self._unasked_header
        tokens = list(self.vocabulary.pattern.finditer(behind))
        openers = [i for i, m in enumerate(tokens) if m.group() in self.structure.openers]
        if not openers:  # the header is words, such as `Assistant:`, or nothing
            header = behind[tokens[-1].end() if tokens else 0 :].lstrip()
            return header, header
        ended = [i for i, m in enumerate(tokens) if m.group() in self.stop_tokens]
        opener = next((i for i in openers if ended and i > ended[-1]), openers[-1])
        # the role may stand before the token, as in `assistant<|role_sep|>`
        header = behind[tokens[opener - 1].end() if opener else 0 :].lstrip()
        token = tokens[opener].group()
        return header[: header.index(token) + len(token)], header

    def _behind_usual_header(self, k: int, start: int, first: int) -> int:
        """Returns the start of a turn without a header that its prompt lacks.

        Args:
            k: The turn.
            start: The end of its prompt, which may be that of the turn before.
            first: The start of its words.
        """
        own = self.trace.text[start:first].rstrip()
        usual = self._header_of_answers if own else ""
        is_header = own.endswith(usual.rstrip())
        if self.trace.last_before(k) is None:  # a question's end may stand before its header
            is_header = is_header or usual.rstrip().endswith(own)
        if not usual.strip() or not is_header:
            return start
        end, space = start + len(own), space_at_end(usual)
        return end + len(space) if self.trace.text.startswith(space, end) else end

    @property
    def _header_of_answers(self) -> str:
        """The end of the header of answers to a question, behind the end of the turn before."""
        if _USUAL not in self.known.headers:
            try:
                header = self._usual_header(LabelError("no question has a prompt"), {})[1]
            except LabelError:
                header = ""
            self.known.headers[_USUAL] = header[self._end_of_stop(header) :].lstrip()
        return self.known.headers[_USUAL]

    @property
    def _unasked_header(self) -> str:
        """The header of answers if the template writes no generation prompt, or an empty text.

        It is known only if it is that of questions but for the name of the role.
        """
        if self.structure.unasked.isdisjoint(self.structure.openers):
            return ""
        if _UNASKED not in self.known.headers:
            self.known.headers[_UNASKED] = self._read_unasked_header()
        return self.known.headers[_UNASKED]

    def _read_unasked_header(self) -> str:
        chat = (("user", "wombat"), ("assistant", "numbat"), ("user", "bilby"))
        try:
            prompt = self._of_words(*chat, upto=1).rpartition("wombat")[2]
            text = self._of_words(*chat)
        except SampleError:
            return ""
        before, _, behind = text.rpartition("wombat")[2].partition("numbat")
        between = behind.partition("bilby")[0]
        asked = between[self._end_of_stop(between) :].lstrip()
        header = asked.replace("user", "assistant")
        is_known = asked.count("user") == 1 and self.vocabulary.pattern.match(header)
        return header if is_known and before.startswith(prompt + header) else ""

    def _usual_words(self) -> str:
        """Returns what the template writes between the header of an answer and its words."""
        chat = (("user", "wombat"), ("assistant", "numbat"))
        try:
            asked = self._of_words(*chat, upto=1).rpartition("wombat")[2]
            between = self._of_words(*chat).rpartition("wombat")[2].partition("numbat")[0]
        except SampleError:
            return ""
        return between.removeprefix(asked) if between.startswith(asked) else ""

    def _of_words(
        self,
        *chat: tuple[str, str],
        upto: int | None = None,
        variables: Mapping[str, Any] = _NO_VARIABLES,
    ) -> str:
        """Renders a chat of roles and words, without tools."""
        messages = tuple(Message(role=role, content=(TextPart(word),)) for role, word in chat)
        asking = attrs.evolve(self.conversation, messages=messages, tools=None)
        return self._render_with(variables, asking, None, upto=upto)
