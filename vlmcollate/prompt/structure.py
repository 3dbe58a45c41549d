"""Separates the control tokens of a prompt's structure from those that text may write.

The tokenizer's special flags are not enough: one tokenizer declares `<think>` special, another does
not declare `<|user|>` special. Therefore the chat template renders a few short chats. Tokens around
the words of every role open and close turns, tokens that an image adds are media, and tokens that
occur only in an assistant's turn belong to answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import Any

import attrs

from vlmcollate.conversation import MediaKind
from vlmcollate.errors import SampleError
from vlmcollate.formats import read_example
from vlmcollate.prompt.marks import REASONING_KEYS
from vlmcollate.prompt.template_syntax import literals_with, without_comments
from vlmcollate.prompt.turn_ends import agreement
from vlmcollate.tokens.vocabulary import Vocabulary

Render = Callable[..., str]

_SYSTEM, _USER, _ANSWER, _TOOL, _AGAIN, _LAST = (
    {"role": role, "content": word}
    for role, word in (
        ("system", "quokka"),
        ("user", "wombat"),
        ("assistant", "numbat"),
        ("tool", "dunnart"),
        ("user", "bilby"),
        ("assistant", "potoroo"),
    )
)
_CALLING: tuple[dict[str, Any], ...] = tuple(
    {
        **_ANSWER,
        "tool_calls": [
            {"type": "function", "id": "call00000", "function": {"name": "f", "arguments": given}}
        ],
    }
    for given in ({"a": "b"}, '{"a": "b"}')  # some templates take one, some the other
)
_ROLE_NAMES = (("user", "assistant"), ("User", "Assistant"), ("USER", "ASSISTANT"))
_THINKING = [{**_ANSWER, key: "so"} for key in REASONING_KEYS]


@attrs.frozen(kw_only=True)
class Structure:
    """The purposes of a chat template's control tokens.

    Attributes:
        tokens: The tokens of roles, turn ends and media, which no text may write.
        unproven: Those of them that the template mentions, but wrote in no probe chat, so that a
            user may know better.
        written: The others that the template writes, which only an assistant's text may write.
        openers: The first tokens of turn headers; empty if the template does not show them.
        unasked: The tokens that the template writes before every answer, but at no generation
            prompt.
        never_asks: Whether the template ignores that a generation prompt is asked for.
    """

    tokens: frozenset[str]
    unproven: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()
    openers: frozenset[str] = frozenset()
    unasked: frozenset[str] = frozenset()
    never_asks: bool = False


@attrs.frozen
class _Turns:
    """The tokens of roles and turn ends, of answers, and of turn starts in the probe chats."""

    roles: frozenset[str]
    answers: frozenset[str]
    openers: frozenset[str]


@attrs.frozen(kw_only=True, eq=False)
class StructureReader:
    """Reads the structure of a chat template from its own renderings.

    Args:
        render: Renders a conversation: `render(conversation, marks, upto=None)`.
        vocabulary: The tokenizer's tokens.
        template: The chat template; empty if there is none.
        placeholders: The text that it writes for each kind of media.
        stop_tokens: The tokens that may end a turn.
        fixed: Further tokens that are always structure.
        named: The tokens that have a name in the processor, which are structure unless the template
            writes them only in answers.
        asks_always: Whether the template writes a generation prompt that was not asked for.
    """

    render: Render
    vocabulary: Vocabulary
    template: str
    placeholders: Mapping[MediaKind, str]
    stop_tokens: Iterable[str]
    fixed: Iterable[str]
    named: Iterable[str]
    asks_always: bool = False

    def __call__(self) -> Structure:
        """Returns the structure, or all special tokens if chats are refused."""
        mentioned = set(self.vocabulary.pattern.findall(without_comments(self.template)))
        special = {token for token in mentioned if self.vocabulary.is_special(token)}
        turns = self._turns() if self.template else None
        sure = {*self.stop_tokens, *self.placeholders.values(), *self.fixed}
        answers: set[str] = set()
        if turns is not None:
            sure |= turns.roles | self._media()
            answers = set(turns.answers) - sure
            answers |= self._tested((special | set(self.named)) - answers - sure)
        tokens = sure | ((special | set(self.named)) - answers)
        return Structure(
            tokens=frozenset(tokens),
            unproven=frozenset(tokens - sure - set(self.named) if turns is not None else ()),
            written=frozenset((mentioned | answers) - tokens),
            openers=frozenset() if turns is None else turns.openers,
            unasked=self._unasked(),
            never_asks=self._never_asks(),
        )

    def _tested(self, tokens: Collection[str]) -> set[str]:
        """Returns those of some tokens for which the template tests."""
        found = self.vocabulary.pattern.findall(" ".join(literals_with(self.template, tokens)))
        return {*found} & {*tokens}

    def _unasked(self) -> frozenset[str]:
        """Returns the tokens between a question and its answer that no generation prompt has."""
        if not self.template or self.asks_always:
            return frozenset()
        asked, answered = self._around(_USER, upto=1), self._around(_USER, _ANSWER)
        if asked is None or answered is None:
            return frozenset()
        return frozenset(answered[1]) - {*asked[-1]}

    def _never_asks(self) -> bool:
        """Returns whether a question is rendered alike with and without a generation prompt."""
        if not self.template or self.asks_always:
            return False
        question = read_example([_USER])
        try:
            return bool(self.render(question, None, upto=1) == self.render(question, None))
        except SampleError:
            return False

    def _turns(self) -> _Turns | None:
        """Returns the tokens of turns, or `None` if a probe chat is refused."""
        asked = self._around(_USER, _ANSWER, upto=1)
        alone = self._around(_USER)
        whole = self._around(_USER, _ANSWER, _AGAIN, _LAST)
        if asked is None or alone is None or whole is None:
            return None
        before, first, turned, last, end = *whole[:-1], self._closing(whole[-1])
        # the end of a user's turn; some templates write more at the end of a chat
        closed = alone[-1][: agreement(alone[-1], asked[-1])]
        unasked = whole[-1][len(end) :]  # a generation prompt that is always written
        is_asked = bool(unasked) and closed[-len(unasked) :] == unasked
        closed = closed[: -len(unasked)] if is_asked else self._closing(closed)
        if any(tokens[: len(closed)] != closed for tokens in (asked[-1], first, last)):
            return None
        prompt, *openings = (tokens[len(closed) :] for tokens in (asked[-1], first, last))
        opening = self._behind_end(turned, end, prompt[:1])
        if prompt and opening[:1] != prompt[:1]:  # turns may have more before their role
            openings = [t[t.index(prompt[0]) if prompt[0] in t else 0 :] for t in openings]
        if not prompt and openings[0]:  # of a template without generation prompt
            token = opening[0] if opening else ""
            is_header = not closed or openings[0][0] in (token, answer_header(token))
            prompt = openings[0] if is_header else []
        header = prompt[: len(opening)]  # the rest of the prompt is forced, such as <think>
        for tokens in filter(None, openings):
            header = header[: agreement(header, tokens)]
        if prompt[: len(opening)] and not header:
            return None
        roles = {*closed, *turned, *header, *end}
        answers = set(chain(*(tokens[len(header) :] for tokens in (prompt, *openings)))) - roles
        answers |= self._of_rich_answers(bool(end), roles)
        described = self._described()  # such as the form of an answer
        answers |= described - roles
        roles |= self._special(before) - answers
        roles |= self._of_other_roles(answers)
        openers = {*header[:1], *opening[:1]}
        return _Turns(frozenset(roles), frozenset(answers - roles), frozenset(openers))

    def _closing(self, tokens: list[str]) -> list[str]:
        """Returns the tokens behind a turn without those of a generation prompt."""
        if not self.asks_always:
            return tokens
        stops = set(self.stop_tokens)
        first = next((i for i, token in enumerate(tokens) if token in stops), 0)
        rest = (i for i, token in enumerate(tokens) if i >= first and token not in stops)
        return tokens[: next(rest, len(tokens))]

    def _of_rich_answers(self, is_closed: bool, roles: set[str]) -> set[str]:  # noqa: FBT001
        """Returns the tokens of rich answers, and adds a call's end to `roles`."""
        found: set[str] = set()
        for answer in (*_CALLING, *_THINKING):
            around = self._around(_USER, answer)
            if around is not None:
                roles |= set(self._closing(around[-1])[-1:] if is_closed else ())
                found |= {*around[1], *around[2]}
        return found - roles

    def _described(self) -> set[str]:
        """Returns the tokens between words of a system prompt of the template's own."""
        asked = read_example([_USER])
        system = self._around(_SYSTEM, _USER, _ANSWER)
        if system is None:
            return set()
        try:
            text = self.render(asked, None).partition(_USER["content"])[0]
        except SampleError:
            return set()
        around, found = {*system[0], *system[1]}, set[str]()
        runs = re.finditer(rf"(?:\s*(?:{self.vocabulary.pattern.pattern}))+", text)
        for run in list(runs)[1:-1]:  # those of its beginning and end are its header and its stop
            tokens = self.vocabulary.pattern.findall(run.group())
            found |= set(tokens) if around.isdisjoint(tokens) else set()
        return found

    def _of_other_roles(self, answers: set[str]) -> set[str]:
        """Returns the tokens around the words of system and tool messages."""
        found: set[str] = set()
        system = self._around(_SYSTEM, _USER, _ANSWER)
        if system is not None:
            found |= {*system[0], *system[1]}
        for call in _CALLING:
            result = self._around(_USER, call, _TOOL, _LAST)
            if result is not None:
                found |= self._special({*result[2], *result[3]})
        return found - answers

    def _media(self) -> set[str]:
        """Returns the tokens that the template writes for media."""
        found: set[str] = set()
        for kind in self.placeholders:
            text = {"type": "text", "text": _USER["content"]}
            shown = {"role": "user", "content": [{"type": kind, kind: "probe"}, text]}
            for answer in ([], [_ANSWER]):
                with_media = self._around(shown, *answer)
                without = self._around(_USER, *answer)
                if with_media is not None and without is not None:
                    found |= set(chain(*with_media)) - set(chain(*without))
        return found

    def _behind_end(self, tokens: list[str], end: list[str], opener: list[str]) -> list[str]:
        """Returns the tokens after an answer's end, which open the next user turn."""
        if opener and opener[0] in tokens:
            return tokens[tokens.index(opener[0]) :]
        same = agreement(tokens, end)
        if same or not end:
            return tokens[same:]
        stops = set(self.stop_tokens)
        at = next((i for i, token in enumerate(tokens) if token in stops), -1)
        return tokens[at + 1 :]

    def _special(self, tokens: Iterable[str]) -> set[str]:
        return {token for token in tokens if self.vocabulary.is_special(token)}

    def _around(self, *chat: dict[str, Any], upto: int | None = None) -> list[list[str]] | None:
        """Returns the control tokens before, between and after a chat's words.

        The result is `None` if the template refuses the chat, or does not keep its words in order.
        """
        try:
            text = self.render(read_example(list(chat)), None, upto=upto)
        except SampleError:
            return None
        found: list[list[str]] = []
        for message in chat[:upto]:
            content = message["content"]
            word = content if isinstance(content, str) else content[-1]["text"]
            before, word, text = text.partition(word)
            if not word:
                return None
            found.append(self.vocabulary.pattern.findall(before))
        return [*found, self.vocabulary.pattern.findall(text)]


def answer_header(text: str) -> str:
    """Returns the header of questions with the role of answers, or "" if it names no user.

    Args:
        text: The header, or its token, in which `user` may be capitalised.
    """
    if text.lower().count("user") != 1:
        return ""
    for role, name in _ROLE_NAMES:
        text = text.replace(role, name)
    return text
