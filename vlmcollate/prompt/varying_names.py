"""Finds out from the source of a chat template whether its prompts may differ from chat to chat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import attrs
from jinja2 import nodes

_OF_CHATS = frozenset({"messages", "tools", "documents", "loop", "cycler", "joiner"})
_Binding = tuple[str, frozenset[str]]
"""A name, and the names that its value, or whether it is bound at all, depends on."""


def prompts_vary(tree: nodes.Template, asked: str) -> bool:
    """Returns whether what a template writes for generation alone may depend on the chat.

    Args:
        tree: The template.
        asked: The name of the variable that asks for a generation prompt.
    """
    varying = varying_names(tree)
    is_bound = any(name == asked for name, _ in _bindings(tree, frozenset()))
    reader = _PromptReader(asked, is_bound)
    found = chain(reader.read(tree, frozenset()), reader.read_behind_loops(tree, varying))
    return any(not names.isdisjoint(varying) for names in found)


def varying_names(tree: nodes.Template) -> frozenset[str]:
    """Returns the names of a template that depend on its messages, directly or by others.

    A variable that the template does not bind is none of them, and neither is a name that is bound
    outside loops and macros, of variables alone.
    """
    bindings = list(_bindings(tree, frozenset()))
    # a namespace may be changed under another name
    are_changed = next(tree.find_all(nodes.NSRef), None) is not None
    varying = _OF_CHATS | ({"namespace"} if are_changed else frozenset())
    while True:
        more = {name for name, sources in bindings if sources & varying}
        if more <= varying:
            return varying
        varying |= more


def defaults_of(tree: nodes.Template) -> dict[str, Any]:
    """Returns the values that a template gives to missing variables before it reads them."""
    defaults: dict[str, Any] = {}
    earlier: set[str] = set()
    for node in tree.body:
        names, value = _names(node), getattr(node, "node", None)
        if isinstance(node, nodes.Assign) and isinstance(value, nodes.Filter) and value.args:
            default, is_own = value.args[0], isinstance(node.target, nodes.Name)
            is_plain = value.name == "default" and isinstance(value.node, nodes.Name)
            if is_own and is_plain and len(names) == 1 and isinstance(default, nodes.Const):
                defaults |= dict.fromkeys(names - earlier, default.value)
        earlier |= names
    return defaults


@attrs.frozen
class _PromptReader:
    """Finds the names on which generation prompts depend.

    Args:
        asked: The name of the variable that asks for a prompt.
        is_bound: Whether the template itself gives it a value.
    """

    asked: str
    is_bound: bool

    def read(self, node: nodes.Node, controls: frozenset[str]) -> Iterator[frozenset[str]]:
        """Yields the names for each part of a node that tests whether a prompt is asked for.

        Args:
            node: The node.
            controls: The names on which it depends that the node is reached.
        """
        names = _names(node)
        if self.asked not in names:
            return
        if isinstance(node, nodes.If):
            yield from self._read_branches(node, controls)
        elif isinstance(node, nodes.Expr):
            yield controls | names
        elif isinstance(node, nodes.Assign | nodes.AssignBlock):
            values = node.body if isinstance(node, nodes.AssignBlock) else [node.node]
            if self.asked in _names_of(values):
                yield _OF_CHATS  # where its name is read is another question
        else:
            inner = _controls_in(node, controls)
            for child in node.iter_child_nodes():
                yield from self.read(child, inner)

    def read_behind_loops(
        self, tree: nodes.Template, varying: frozenset[str]
    ) -> Iterator[frozenset[str]]:
        """Yields the names of what a template writes behind all messages, asked or not."""
        loops = [
            place
            for place, node in enumerate(tree.body)
            if any(_names(loop.iter) & varying for loop in _with_inner(node, nodes.For))
        ]
        for node in tree.body[loops[-1] + 1 if loops else 0 :]:
            is_asked = isinstance(node, nodes.If) and self._if_asked(node.test) is not None
            if not (is_asked or isinstance(node, nodes.Macro)):
                yield _names(node)

    def _read_branches(self, node: nodes.If, controls: frozenset[str]) -> Iterator[frozenset[str]]:
        """Yields the names for a test and what it decides about.

        What is never written if a prompt is asked for is no part of one. A name that is bound here
        counts as one that depends on the chat, since any part of the template may read it.
        """
        others: list[nodes.Node] = node.else_
        if node.elif_:
            following, *more = node.elif_
            others = [nodes.If(following.test, following.body, more, node.else_)]
        is_reached = self._if_asked(node.test)
        if is_reached is None and self.asked not in _names(node.test):
            inner = controls | _names(node.test)
            for child in (*node.body, *others):
                yield from self.read(child, inner)
            return
        if any(name != self.asked for part in _with_inner(node) for name in _bound_by(part)):
            yield _OF_CHATS
        parts = [node] if is_reached is None else node.body if is_reached else others
        yield controls | {self.asked} | _names_of(parts)

    def _if_asked(self, test: nodes.Node) -> bool | None:
        """Returns what a test gives if a prompt is asked for, or `None` if that depends on more."""
        if isinstance(test, nodes.Not):
            inner = self._if_asked(test.node)
            return None if inner is None else not inner
        if isinstance(test, nodes.And | nodes.Or):
            sides = {self._if_asked(test.left), self._if_asked(test.right)}
            decisive = isinstance(test, nodes.Or)
            if decisive in sides:
                return decisive
            return None if None in sides else not decisive
        is_asked = isinstance(test, nodes.Name) and test.name == self.asked
        return True if is_asked and not self.is_bound else None


def _bindings(node: nodes.Node, controls: frozenset[str]) -> Iterator[_Binding]:
    """Yields the bindings in a node, which is reached if names of `controls` have some values."""
    inner = sources = _controls_in(node, controls)
    if isinstance(node, nodes.Assign):
        sources |= _names(node.node)
    elif isinstance(node, nodes.AssignBlock):
        sources |= _OF_CHATS
    yield from ((name, sources) for name in _bound_by(node))
    for child in node.iter_child_nodes():
        yield from _bindings(child, inner)


def _controls_in(node: nodes.Node, controls: frozenset[str]) -> frozenset[str]:
    """Returns the names on which it depends that what is inside a node is reached."""
    if isinstance(node, nodes.If):
        return controls | _names_of([node.test, *(other.test for other in node.elif_)])
    if isinstance(node, nodes.FilterBlock):
        return controls | _names(node.filter)
    if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock | nodes.With):
        return controls | _OF_CHATS  # it is reached again and again
    return controls


def _bound_by(node: nodes.Node) -> Iterator[str]:
    """Yields the names that a node itself binds."""
    if isinstance(node, nodes.Macro):
        yield node.name
    if isinstance(node, nodes.Macro | nodes.CallBlock):
        yield from (argument.name for argument in node.args)
    elif isinstance(node, nodes.For | nodes.Assign | nodes.AssignBlock):
        yield from _names(node.target)
        yield from (reference.name for reference in _with_inner(node.target, nodes.NSRef))
    elif isinstance(node, nodes.With):
        yield from _names_of(node.targets)


def _with_inner(node: nodes.Node, kind: Any = nodes.Node) -> Iterator[Any]:
    """Yields a node and all nodes in it, if they are of a kind."""
    if isinstance(node, kind):
        yield node
    yield from node.find_all(kind)


def _names_of(found: Iterable[nodes.Node]) -> frozenset[str]:
    return frozenset[str]().union(*map(_names, found))


def _names(node: nodes.Node) -> frozenset[str]:
    own = {node.name} if isinstance(node, nodes.Name) else set()
    return frozenset(own | {name.name for name in node.find_all(nodes.Name)})
