"""Finds the names in a chat template whose values may differ from chat to chat."""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes

OF_CHATS = frozenset({"messages", "tools", "documents", "loop"})
_CHANGING = frozenset(
    {"append", "extend", "insert", "pop", "remove", "clear", "update", "setdefault", "popitem"}
)
"""The methods by which an expression may change a list or a dict."""
_Binding = tuple[str, frozenset[str]]
"""A name, and the names that its value, or whether it is bound at all, depends on."""


def varying_names(tree: nodes.Template) -> frozenset[str]:
    """Returns the names of a template that depend on its messages, directly or by others.

    A variable that the template does not bind is none of them, and neither is a name that is bound
    outside loops and macros, of variables alone.
    """
    bindings = list(_bindings(tree, frozenset()))
    varying = OF_CHATS
    while True:
        more = {name for name, sources in bindings if sources & varying}
        if more <= varying:
            return varying
        varying |= more


def _bindings(node: nodes.Node, controls: frozenset[str]) -> Iterator[_Binding]:
    """Yields the bindings in a node, which is reached if names of `controls` have some values."""
    sources = controls
    if isinstance(node, nodes.If):
        controls |= _names(node.test)
    elif isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock | nodes.With):
        controls = sources = controls | OF_CHATS  # what is bound there is bound again and again
    elif isinstance(node, nodes.Assign) and not isinstance(node.target, nodes.NSRef):
        sources |= _names(node.node)
    elif isinstance(node, nodes.Assign | nodes.AssignBlock):
        sources |= OF_CHATS
    yield from ((name, sources) for name in _bound_by(node))
    for child in node.iter_child_nodes():
        yield from _bindings(child, controls)


def _bound_by(node: nodes.Node) -> Iterator[str]:
    """Yields the names that a node itself binds, or whose values it changes."""
    if isinstance(node, nodes.Macro):
        yield node.name
    if isinstance(node, nodes.Macro | nodes.CallBlock):
        yield from (argument.name for argument in node.args)
    elif isinstance(node, nodes.For | nodes.Assign | nodes.AssignBlock):
        target = node.target
        yield from [target.name] if isinstance(target, nodes.NSRef) else _names(target)
    elif isinstance(node, nodes.With):
        yield from (name for target in node.targets for name in _names(target))
    elif isinstance(node, nodes.Call) and getattr(node.node, "attr", "") in _CHANGING:
        yield from _names(node)  # whatever of these is changed, and by what


def _names(node: nodes.Node) -> frozenset[str]:
    own = {node.name} if isinstance(node, nodes.Name) else set()
    return frozenset(own | {name.name for name in node.find_all(nodes.Name)})
