"""Finds the header that the answers of a template have, for turns before which it renders none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vlmcollate.conversation import Message, TextPart
from vlmcollate.errors import LabelError, SampleError
from vlmcollate.prompt.structure import answer_header
from vlmcollate.prompt.turn_headers import TurnHeaders, space_at_end, space_at_start
from vlmcollate.tokens.vocabulary import token_pattern

_USUAL = "usual", ""
"""The key of the header of answers to a question."""
_UNASKED = "unasked", ""
"""The same of the header of a template that writes no generation prompt."""

_NO_VARIABLES: Mapping[str, Any] = {}
_THREE = (("user", "wombat"), ("assistant", "numbat"), ("user", "bilby"))
_UNKNOWN = "\0"


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
        marker = self._own_marker(opening) if found < 0 else ""
        if marker:  # words before it end a question, such as a switch for thinking
            found, header = written.rfind(marker, ended), header[header.index(marker) :]
        if found < 0:
            raise error
        return at + found, header

    def _end_of_stop(self, text: str) -> int:
        """Returns the end of the last stop token in a text, or 0."""
        return max((m.end() for m in token_pattern(self.stop_tokens).finditer(text)), default=0)

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
        behind = prompt.rpartition("wombat")[2] + (self._unasked_header or "")
        tokens = list(self.vocabulary.pattern.finditer(behind))
        openers = [i for i, m in enumerate(tokens) if m.group() in self.structure.openers]
        if not openers:  # the header is words, such as `Assistant:`, or nothing
            header = self._asked_header() or behind[tokens[-1].end() if tokens else 0 :].lstrip()
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
        bare = usual.rstrip()
        if not bare:
            return start
        begun = len(space_at_start(own)) + len(bare)
        if own[:begun].endswith(bare):
            end = start + begun
        elif own.endswith(bare):
            end = start + len(own)
        elif self.trace.last_before(k) is None and bare.endswith(own):
            end = start + len(own)  # a question's end may stand before its header
        else:
            return start
        space = space_at_end(usual)
        return end + len(space) if self.trace.text.startswith(space, end) else end

    @property
    def _header_of_answers(self) -> str:
        """The end of the header of answers to a question, behind the end of the turn before."""
        if _USUAL not in self.known.of_probes:
            try:
                header = self._usual_header(LabelError("no question has a prompt"), {})[1]
            except LabelError:
                header = ""
            self.known.of_probes[_USUAL] = header[self._end_of_stop(header) :].lstrip()
        return self.known.of_probes[_USUAL]

    def _asked_header(self) -> str:
        """Returns what a template writes as a prompt, and not as the end of a turn."""
        chat = ("user", "wombat"), ("assistant", "numbat")
        try:
            closed, asked = self._of_words(chat[0]), self._of_words(chat[0], upto=1)
            if asked == closed and not self.structure.never_asks:  # it is always written
                behind = self._of_words(*chat).rpartition("numbat")[2]
                return behind[self._end_of_stop(behind) :].lstrip()
        except SampleError:
            return ""
        return asked[len(closed) :].lstrip() if asked.startswith(closed) else ""

    def _own_marker(self, opening: str) -> str:
        """Returns the last token of how a header begins, or "" if questions have it, too."""
        key = "marker", opening
        if key not in self.known.of_probes:
            marker = next(iter(self.vocabulary.pattern.findall(opening)[-1:]), "")
            between = self._before_another_question()
            self.known.of_probes[key] = marker if between and marker not in between else ""
        return self.known.of_probes[key]

    def _before_another_question(self) -> str:
        """Returns what the template writes between an answer and the next question."""
        try:
            text = self._of_words(*_THREE)
        except SampleError:
            return ""
        return text.rpartition("numbat")[2].rpartition("bilby")[0]

    @property
    def _unasked_header(self) -> str | None:
        """The header of answers of a template that writes no generation prompt.

        It is empty if there is none, or if the template writes a prompt, and `None` if it is
        unknown, as it is not that of questions with the name of the other role.
        """
        if not self.structure.never_asks:
            return ""
        if _UNASKED not in self.known.of_probes:
            header = self._read_unasked_header()
            self.known.of_probes[_UNASKED] = _UNKNOWN if header is None else header
        found = self.known.of_probes[_UNASKED]
        return None if found == _UNKNOWN else found

    def _unasked_of(self, k: int, start: int, header: str, where: str) -> str:
        """Returns the header of turn `k` behind a generation prompt that lacks it, if any.

        Args:
            k: The turn.
            start: The end of its prompt.
            header: The text from the words before the turn to there.
            where: The path of its message.
        """
        unasked = self._unasked_header
        if unasked and header.endswith(unasked):  # of an earlier turn of its kind
            return ""
        if unasked and self.trace.text.startswith(unasked, start):
            return unasked
        between = self.trace.text[start : self._until_words(k, start)]
        tokens = self.vocabulary.pattern.findall(between)
        special = [token for token in tokens if self.vocabulary.is_special(token)]
        if unasked == "":
            is_unasked = special and special[0] in self.structure.unasked
            if not is_unasked or self._is_prompted(k, header):
                return ""
        if not between.strip():
            return ""
        raise LabelError(
            f"the template has no generation prompt, so it is unknown whether the model writes "
            f"{''.join(special) or between.strip()!r}; use another label strategy",
            where=where,
        )

    def _is_prompted(self, k: int, header: str) -> bool:
        """Returns whether what stands before turn `k`, or one like it, is a generation prompt."""
        messages = self.conversation.messages[: self._first_of_kinds[self._kind(k)]]
        closed = (
            self._read(attrs.evolve(self.conversation, messages=messages)) if messages else None
        )
        if closed is None:
            return False
        words = max((slot.end for slot in closed.slots), default=0)
        return not closed.text[words:].endswith(header)

    def _until_words(self, k: int, start: int) -> int:
        """Returns the start of the words of turn `k`, or of its stop token if it has none."""
        if self.trace.of(k):
            return self.trace.of(k)[0].start
        later = self.trace.first_after(k)
        limit = later.start if later else len(self.trace.text)
        found = token_pattern(self.stop_tokens).search(self.trace.text, start, limit)
        return found.start() if found else start

    def _read_unasked_header(self) -> str | None:
        try:
            prompt = self._of_words(*_THREE, upto=1).rpartition("wombat")[2]
            before = self._of_words(*_THREE).rpartition("wombat")[2].partition("numbat")[0]
        except SampleError:
            return None
        if not before.startswith(prompt):
            return None
        written = before[len(prompt) :]
        if not written.strip():
            return ""
        between = self._before_another_question()
        header = answer_header(between[self._end_of_stop(between) :].lstrip())
        rest = written[len(header) :].lstrip()
        # other words may belong to the header, or to each answer
        is_known = not rest or self.vocabulary.pattern.match(rest) is not None
        return header if header and written.startswith(header) and is_known else None

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
        return self._render_with(variables, asking, None, self.probe, upto=upto)
