"""Reads facts off the source of a chat template.

Parsing a long template takes longer than all of its probe chats. Therefore only the statements that
may matter to a question are parsed: whatever is asked for lies within single statements, or within
the blocks of the conditions that test for the generation prompt. A template whose statements cannot
be separated is parsed as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import attrs
import jinja2
import jinja2.ext
import jinja2.meta
from jinja2 import nodes

from vlmcollate.errors import ConfigError
from vlmcollate.prompt.varying_names import defaults_of, prompts_vary

_PROMPT_VARIABLE = "add_generation_prompt"
_ASKED = nodes.Name(_PROMPT_VARIABLE, "load")
_STRING = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_BODY = rf"(?:[^'\"]|{_STRING})*?"
_CODE = re.compile(
    rf"\{{#.*?#\}}|\{{\{{[-+]?(?P<output>{_BODY})[-+]?\}}\}}|\{{%[-+]?(?P<tag>{_BODY})[-+]?%\}}",
    re.DOTALL,
)
_RAW = re.compile(r"\{%[-+]?\s*raw\b")
_STRINGS = re.compile(_STRING, re.DOTALL)
_ESCAPED = re.compile(r"\\[^nrt'\"\\/]")
_ADJACENT = re.compile(r"['\"]\s*['\"]")
_QUOTED = re.compile(r"[\n\r\t'\"\\]")
_ASSIGNMENT = re.compile(r"\s*set\s([\w\s.,()]+?)=(?!=)")
_ATTRIBUTE = re.compile(
    r"\s*set\s+(\w+)\s*\.\s*\w+\s*=(?!=)"
)  # of a namespace, which binds no name
_LOOP = re.compile(r"\s*for\s([\w\s,()]+?)\sin\s")
_TARGET = re.compile(r"(?<![\w.])\w+\b(?!\s*\.)")
_ENDS = {word: f"end{word}" for word in ("if", "for", "macro", "call", "filter", "with")}
_BINDERS = ("macro", "call", "with")
_MARKERS = ("else", "break", "continue", "generation", "endset", "endgeneration", *_ENDS.values())


class _UnknownStatementError(Exception):
    """A statement whose end or content is not known from its first word."""


@attrs.frozen
class _Statement:
    """One statement of a template: an output, or a tag with its first word."""

    body: str
    word: str = ""

    @property
    def strings(self) -> list[str]:
        """The values of its strings."""
        found: list[str] = []
        end = -1
        for match in _STRINGS.finditer(self.body):
            value = _unescaped(match.group())
            if found and not self.body[end : match.start()].strip():
                found[-1] += value  # strings that follow each other are one to Jinja
            else:
                found.append(value)
            end = match.end()
        return found

    @property
    def hides_words(self) -> bool:
        """Whether a string may hold a word that its source does not show."""
        if _ESCAPED.search(self.body) is not None:
            return True
        may_join = _ADJACENT.search(self.body) is not None
        return may_join and len(self.strings) < len(_STRINGS.findall(self.body))

    @property
    def source(self) -> str:
        """The statement as it stands in a template."""
        return f"{{% {self.body} %}}" if self.word else f"{{{{ {self.body} }}}}"

    @property
    def opens(self) -> bool:
        """Whether a later statement closes it."""
        if self.word == "set":
            return _ASSIGNMENT.match(self.body) is None
        return self.word in _ENDS or self.word == "generation"

    @property
    def alone(self) -> str:
        """The statement as a whole block, without its content."""
        if not self.word:
            return self.source
        if self.word == "elif":
            return attrs.evolve(self, body=self.body.replace("elif", "if", 1), word="if").alone
        if self.word in _MARKERS:
            return ""
        if self.word not in _ENDS and self.word != "set":
            raise _UnknownStatementError(self.word)
        return self.source + (f"{{% end{self.word} %}}" if self.opens else "")

    @property
    def bound(self) -> list[str]:
        """The names that an assignment or a loop binds."""
        found = _ASSIGNMENT.match(self.body) or _LOOP.match(self.body)
        return _TARGET.findall(found[1]) if found is not None and self.word else []

    @property
    def binds_otherwise(self) -> bool:
        """Whether it may bind names that are not among `bound`."""
        if self.word in _BINDERS:
            return True
        is_bound = self.bound or _ATTRIBUTE.match(self.body)
        return self.word in ("set", "for") and not is_bound


@lru_cache(maxsize=16)
def _statements(template: str) -> tuple[_Statement, ...] | None:
    """Returns the statements of a template, or `None` if they cannot be separated."""
    if _RAW.search(template):
        return None
    found = []
    for match in _CODE.finditer(template):
        if match["tag"] is not None:
            found.append(_Statement(match["tag"], match["tag"].split(maxsplit=1)[0]))
        elif match["output"] is not None:
            found.append(_Statement(match["output"]))
    return tuple(found)


def without_comments(template: str) -> str:
    """Returns a template without its comments, unless it has parts that are no code."""
    if _RAW.search(template):
        return template
    return _CODE.sub(lambda m: "" if m.group().startswith("{#") else m.group(), template)


def _tree_of(
    template: str, choose: Callable[[Sequence[_Statement]], Iterator[str]]
) -> nodes.Template:
    """Parses the chosen parts of a template, or all of it if they cannot be parsed."""
    statements = _statements(template)
    if statements is None:
        return _parse(template)
    try:
        return _parse("".join(choose(statements)))
    except (_UnknownStatementError, ConfigError):
        return _parse(template)


def _with_words(template: str, words: Collection[str]) -> nodes.Template:
    """Parses the statements that hold one of some words."""

    def chosen(statements: Sequence[_Statement]) -> Iterator[str]:
        for statement in statements:
            if any(word in statement.body for word in words) or statement.hides_words:
                yield statement.alone

    return _tree_of(template, chosen)


@lru_cache
def prompt_is_constant(template: str) -> bool:
    """Returns whether the generation prompt depends only on variables."""
    # parsing all of Gemma 4's template takes 20 ms
    changed = {m[1] for s in _statements(template) or () if (m := _ATTRIBUTE.match(s.body))}
    if changed:
        tests = filter(_asks, _conditions(_tree_of(template, _around_prompts)))
        if any(name.name in changed for node in tests for name in node.find_all(nodes.Name)):
            return False
    return not prompts_vary(_parse(template), _PROMPT_VARIABLE)


@lru_cache
def is_of_prompts(template: str, name: str) -> bool:
    """Returns whether a variable decides about nothing but generation prompts."""
    tree = _parse(template)
    names = list(tree.find_all(nodes.Name))
    if any(n.name == _PROMPT_VARIABLE and n.ctx != "load" for n in names):
        return False
    readers: list[nodes.Node] = [
        node
        for node in tree.find_all(nodes.Assign)
        if isinstance(node.target, nodes.Name) and node.target.name == name  # such as a default
    ]
    for node in _conditions(tree):
        if _ASKED in _conjuncts(node.test):
            body = node.body if isinstance(node, nodes.If) else [node.expr1]
            readers += [nodes.Output([node.test]), *(nodes.Output([part]) for part in body)]
    of_prompts = {id(n) for reader in readers for n in reader.find_all(nodes.Name)}
    return all(id(n) in of_prompts for n in names if n.name == name)


def _conditions(tree: nodes.Template) -> Iterator[nodes.If | nodes.CondExpr]:
    yield from tree.find_all(nodes.If)
    yield from tree.find_all(nodes.CondExpr)


def _conjuncts(test: nodes.Node) -> list[nodes.Node]:
    """Returns the conditions that all have to hold for a test to hold."""
    if isinstance(test, nodes.And):
        return [*_conjuncts(test.left), *_conjuncts(test.right)]
    return [test]


def _around_prompts(statements: Sequence[_Statement]) -> Iterator[str]:
    """Yields the blocks that test for the generation prompt, and all names that are bound."""
    done = 0
    for i, statement in enumerate(statements):
        if i < done:
            continue
        if _PROMPT_VARIABLE not in statement.body:
            yield statement.alone if statement.binds_otherwise else ""
        elif statement.word not in ("if", "elif"):
            yield statement.alone
        else:
            done = _end_of(statements, i)
            yield statement.source.replace("elif", "if", 1 if statement.word == "elif" else 0)
            yield from (inner.source for inner in statements[i + 1 : done])
            yield "{% endif %}"


def _end_of(statements: Sequence[_Statement], i: int) -> int:
    """Returns the statement that ends the block of a condition."""
    depth = 0
    ends = ("elif", "else") if statements[i].word == "elif" else ()
    for j in range(i + 1, len(statements)):
        word = statements[j].word
        if not depth and word in ("endif", *ends):
            return j
        depth += statements[j].opens - word.startswith("end")
    raise _UnknownStatementError(statements[i].word)


def _asks(node: Any) -> bool:
    """Returns whether a condition tests for the generation prompt."""
    names = [node.test] if isinstance(node.test, nodes.Name) else node.test.find_all(nodes.Name)
    return any(name.name == _PROMPT_VARIABLE for name in names)


_SWITCHES: dict[str, tuple[Any, ...]] = {
    "enable_thinking": (False, True),
    "thinking": (False, True),
    "reasoning_effort": ("none", "low", "medium", "high"),
}
"""The variables by which published templates turn thinking on and off, with their values."""
_SWITCH = re.compile(rf"(?<![\w.])(?:{'|'.join(_SWITCHES)})\b")


@lru_cache
def switches_of(template: str) -> tuple[Mapping[str, Any], ...]:
    """Returns the values of a template's switches for thinking, one variable at a time."""
    if not _SWITCH.search(template):
        return ()

    def chosen(statements: Sequence[_Statement]) -> Iterator[str]:
        yield from (s.alone for s in statements if _SWITCH.search(s.body))

    names = {name.name for name in _tree_of(template, chosen).find_all(nodes.Name)}
    return tuple(
        {name: value} for name, values in _SWITCHES.items() if name in names for value in values
    )


@lru_cache
def other_switches_of(template: str) -> tuple[Mapping[str, Any], ...]:
    """Returns those of `switches_of` that are not what the template takes for a missing value."""
    switches = switches_of(template)
    defaults = defaults_of(_parse(template)) if switches and "default" in template else {}
    return tuple(
        switch
        for switch in switches
        # `False` equals 0, which a template may tell apart
        if all(repr(value) != repr(defaults.get(name, ...)) for name, value in switch.items())
    )


@lru_cache
def variables_of(template: str) -> frozenset[str]:
    """Returns the variables that a template reads and does not set."""
    return frozenset(jinja2.meta.find_undeclared_variables(_parse(template)))


@lru_cache
def literals_of(template: str) -> frozenset[str]:
    """Returns the strings in a template's calls, comparisons and filters."""
    return _literals(_with_words(template, ("'", '"')))


def literals_with(template: str, words: Collection[str]) -> frozenset[str]:
    """Returns those of `literals_of` that hold one of some words."""
    if not words:
        return frozenset()
    if any(_QUOTED.search(word) for word in words):
        return frozenset(x for x in literals_of(template) if any(word in x for word in words))
    found = _literals(_with_words(template, words))
    return frozenset(literal for literal in found if any(word in literal for word in words))


def _literals(tree: nodes.Template) -> frozenset[str]:
    found: set[str] = set()
    for parent in tree.find_all((nodes.Call, nodes.Compare, nodes.Filter)):
        found |= {c.value for c in parent.find_all(nodes.Const) if isinstance(c.value, str)}
    return _no_words(found)


def _no_words(strings: Collection[str]) -> frozenset[str]:
    """Returns the strings, without outer whitespace, that are no words."""
    return frozenset(t.strip() for t in strings if re.search(r"[^\w\s]", t) and len(t.strip()) > 1)


@lru_cache
def constants_of(template: str) -> frozenset[str]:
    """Returns all strings in a template's expressions, without outer whitespace."""
    consts = _parse(template).find_all(nodes.Const)
    return frozenset({c.value.strip() for c in consts if isinstance(c.value, str)} - {""})


@lru_cache
def tested_literals(template: str) -> re.Pattern[str]:
    """Returns a pattern for the strings that a template tests for."""
    longest_first = sorted(literals_of(template), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


@lru_cache
def quoted_strings(template: str) -> frozenset[str]:
    """Returns strings of which a text holds one if it holds one of `literals_of`."""
    statements = _statements(template)
    if statements is None:
        return frozenset({""})  # which every text holds
    found = sorted(_no_words({string for s in statements for string in s.strings}), key=len)
    shortest: list[str] = []  # a text that holds a longer one holds a shorter one inside it, too
    for string in found:
        if not any(inner in string for inner in shortest):
            shortest.append(string)
    return frozenset(shortest)


def _unescaped(string: str) -> str:
    """Returns the value of a string as Jinja reads it."""
    inner = string[1:-1]
    if "\\" not in inner:
        return inner
    return inner.encode("ascii", "backslashreplace").decode("unicode-escape")


@lru_cache(maxsize=16)  # each function here parses a new template once
def _parse(template: str) -> nodes.Template:
    extensions: list[str | type[jinja2.ext.Extension]] = ["jinja2.ext.loopcontrols", _GenerationTag]
    environment = jinja2.Environment(extensions=extensions)  # noqa: S701 - it renders nothing
    try:
        return environment.parse(template)
    except jinja2.TemplateSyntaxError as error:
        raise syntax_error(error) from error


def syntax_error(error: jinja2.TemplateSyntaxError) -> ConfigError:
    """Returns the error for a template that cannot be parsed."""
    return ConfigError(
        f"the chat template has a syntax error in line {error.lineno}: "
        f"{str(error.message).rstrip('.')}; correct the template"
    )


class _GenerationTag(jinja2.ext.Extension):
    """Parses {% generation %} blocks, of which only the body matters here."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        always = nodes.Const(True)  # noqa: FBT003 - jinja2 takes it only by position
        return nodes.If(always, body, [], [], lineno=lineno)
