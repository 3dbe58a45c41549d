"""Finds out from the source of a chat template whether its prompts may differ from chat to chat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

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
    found = _read_by_prompts(tree, asked, frozenset())
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
        target = getattr(node, "target", None)
        name = target.name if isinstance(target, nodes.Name) else ""
        names, value = _names(node), getattr(node, "node", None)
        if names == {name} and name not in earlier and isinstance(value, nodes.Filter):
            default = value.args[0] if value.args else None
            is_own = value.name == "default" and isinstance(value.node, nodes.Name)
            if is_own and isinstance(default, nodes.Const):
                defaults[name] = default.value
        earlier |= names
    return defaults


def _read_by_prompts(
    node: nodes.Node, asked: str, controls: frozenset[str]
) -> Iterator[frozenset[str]]:
    """Yields the names on which each part of a node depends that tests for a generation prompt.

    Args:
        node: The node.
        asked: The name of the variable that asks for one.
        controls: The names on which it depends that the node is reached.
    """
    names = _names(node)
    if asked not in names:
        return
    if isinstance(node, nodes.If):
        yield from _read_by_branches(node, asked, controls)
    elif isinstance(node, nodes.Expr):
        yield controls | names
    elif isinstance(node, nodes.Assign | nodes.AssignBlock):
        values = node.body if isinstance(node, nodes.AssignBlock) else [node.node]
        if asked in _names_of(values):
            yield _OF_CHATS  # where its name is read is another question
    else:
        inner = _controls_in(node, controls)
        for child in node.iter_child_nodes():
            yield from _read_by_prompts(child, asked, inner)


def _read_by_branches(
    node: nodes.If, asked: str, controls: frozenset[str]
) -> Iterator[frozenset[str]]:
    """Yields the same for a test and what it decides about.

    What is never written if a prompt is asked for is no part of one.
    """
    others: list[nodes.Node] = node.else_
    if node.elif_:
        following, *more = node.elif_
        others = [nodes.If(following.test, following.body, more, node.else_)]
    is_reached = _truth(node.test, asked)
    if is_reached is None and asked not in _names(node.test):
        inner = controls | _names(node.test)
        for child in (*node.body, *others):
            yield from _read_by_prompts(child, asked, inner)
        return
    bound: Iterator[Any] = node.find_all((nodes.Name, nodes.NSRef))
    if any(n.name != asked and getattr(n, "ctx", "store") == "store" for n in bound):
        yield _OF_CHATS  # where these are read is another question
    parts = [node] if is_reached is None else node.body if is_reached else others
    yield controls | {asked} | _names_of(parts)


def _truth(test: nodes.Node, asked: str) -> bool | None:
    """Returns what a test gives if a prompt is asked for, or `None` if that depends on more."""
    if isinstance(test, nodes.Not):
        inner = _truth(test.node, asked)
        return None if inner is None else not inner
    if isinstance(test, nodes.And | nodes.Or):
        sides = {_truth(test.left, asked), _truth(test.right, asked)}
        decisive = isinstance(test, nodes.Or)
        if decisive in sides:
            return decisive
        return None if None in sides else not decisive
    return True if isinstance(test, nodes.Name) and test.name == asked else None


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
    elif isinstance(node, nodes.With):
        yield from _names_of(node.targets)


def _names_of(found: Iterable[nodes.Node]) -> frozenset[str]:
    return frozenset[str]().union(*map(_names, found))


def _names(node: nodes.Node) -> frozenset[str]:
    own = {node.name} if isinstance(node, nodes.Name) else set()
    return frozenset(own | {name.name for name in node.find_all(nodes.Name)})
