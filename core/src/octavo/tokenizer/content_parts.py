"""Whether a chat template reads content in parts, or knows only text."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError

from octavo.tokenizer.template_sandbox import parse_template

__all__ = ["reads_content_parts"]

_SHAPE_TESTS = frozenset(["string", "iterable", "sequence", "mapping"])


@functools.lru_cache(maxsize=64)
def reads_content_parts(source: str) -> bool:
    """Whether the template looks at some message's content as a list.

    It does if it loops over ``….content``, takes a member of it by number, or asks whether it is
    text or a list. A template that does none of this would write the list out as Python prints it.
    """
    try:
        tree = parse_template(source)
    except TemplateSyntaxError:
        return False  # rendering reports it
    names = frozenset(_assigned_names(tree)) | frozenset(_parameter_names(tree))
    return any(_is_content(node, names) for node in _nodes_read_as_lists(tree))


def _nodes_read_as_lists(tree: nodes.Template) -> Iterator[nodes.Node]:
    yield from (loop.iter for loop in tree.find_all(nodes.For))
    yield from (test.node for test in tree.find_all(nodes.Test) if test.name in _SHAPE_TESTS)
    for item in tree.find_all(nodes.Getitem):
        if isinstance(item.arg, nodes.Const) and isinstance(item.arg.value, int):
            yield item.node


def _assigned_names(tree: nodes.Template) -> Iterator[str]:
    """Variables set to a message's content."""
    for assignment in tree.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and _is_content(assignment.node):
            yield assignment.target.name


def _parameter_names(tree: nodes.Template) -> Iterator[str]:
    """Parameters of macros that are given a message's content."""
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    for call in tree.find_all(nodes.Call):
        macro = macros.get(call.node.name) if isinstance(call.node, nodes.Name) else None
        if macro is not None:
            for parameter, argument in zip(macro.args, call.args, strict=False):
                if _is_content(argument):
                    yield parameter.name


def _is_content(node: nodes.Node, names: frozenset[str] = frozenset()) -> bool:
    """``message.content``, ``message["content"]``, or a variable that holds it."""
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return False
