"""The Jinja environment that chat templates run in: untrusted programs from the internet.

What is bounded: no attribute or method leads out of the values given (Jinja's immutable sandbox),
a `range` has at most 100,000 members, and operators, methods, filters, blocks, loops and the output
keep to the sizes and the number of steps of `template_limits`. What is not bounded exactly: time
and memory. A step may walk a value of the largest size, and several such values may live at once,
so a hostile template can still take minutes and some hundred megabytes; whoever renders templates
of strangers for strangers needs a process with limits.
"""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from octavo.tokenizer.template_limits import (
    Budget,
    check_arguments,
    check_operator,
    join,
    measure,
)

__all__ = ["TEMPLATE_NAME", "compile_template"]

TEMPLATE_NAME = "<chat template>"
"""Stands for the file in tracebacks."""

_BUDGET = " budget"  # in the context, under a name that no template can write
_MAX_COMPILED = 64

# Filters that look at members without writing them out.
_SELECTING_FILTERS = frozenset(
    ["length", "count", "first", "last", "list", "items", "map", "default", "d"]
) | frozenset(["select", "reject", "selectattr", "rejectattr"])

# Tests that go through all members of both sides.
_COMPARING_TESTS = frozenset(["eq", "==", "equalto", "ne", "!=", "in"]) | frozenset(
    ["lt", "<", "lessthan", "le", "<=", "gt", ">", "greaterthan", "ge", ">="]
)


@functools.lru_cache(maxsize=_MAX_COMPILED)
def compile_template(source: str) -> Callable[..., str]:
    """The render function of a template; raises Jinja's TemplateSyntaxError."""
    environment = _Environment()
    tree = _CountedSteps(environment).visit(environment.parse(source))
    code = environment.compile(tree, filename=TEMPLATE_NAME)
    template = jinja2.Template.from_code(environment, code, environment.globals)

    def render(**variables: Any) -> str:
        return template.render({**variables, _BUDGET: Budget()})

    return render


class _Environment(ImmutableSandboxedEnvironment):
    """What transformers gives to templates, within limits."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    concat = staticmethod(join)  # of the output, blocks and macros

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _ChatExtension],
            finalize=_checked_output,
        )
        self.filters["tojson"] = _to_json
        self.filters = {
            name: function if name in _SELECTING_FILTERS else _limited(name, function)
            for name, function in self.filters.items()
        }
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {
            name: _limited(name, test) if name in _COMPARING_TESTS else test
            for name, test in tests.items()
        }
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["dict"] = _PlainDict()
        self.globals["namespace"] = _PlainNamespace

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator that can make much of little."""
        check_operator(operator, left, right)
        return _budget(context).charge(super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call is a step; the text that a method belongs to is its first argument."""
        budget = _budget(context)
        budget.spend()
        method = getattr(function, "__wrapped__", function)  # str.format is wrapped by the sandbox
        text = getattr(method, "__self__", None)
        if isinstance(method, types.BuiltinMethodType) and isinstance(text, str):
            args = _measurable(method.__name__, args)
            check_arguments(method.__name__, [text, *args, *kwargs.values()])
        return budget.charge(super().call(context, function, *args, **kwargs))


class _ChatExtension(Extension):
    """The functions that `_CountedSteps` puts into templates, and the `generation` tag.

    The tag marks the text that a model is trained on; here it changes nothing.
    """

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)

    @staticmethod
    @jinja2.pass_context
    def iterate(context: Context, iterable: Iterable[Any]) -> Iterable[Any]:
        return _budget(context).iterate(iterable)

    @staticmethod
    @jinja2.pass_context
    def concatenate(context: Context, *values: Any) -> str:
        measure(*values)
        text: str = _budget(context).charge(join(map(str, values)))
        return text

    @staticmethod
    @jinja2.pass_context
    def compared(context: Context, value: Any) -> Any:
        # A small list may hold itself many times: comparing two such would never end.
        if isinstance(value, list | tuple | dict):
            measure(value)
        _budget(context).check_time()
        return value


class _CountedSteps(NodeTransformer):
    """Loops count their iterations, and ``~`` counts what it joins: neither can be intercepted."""

    def __init__(self, environment: _Environment) -> None:
        (self._extension,) = (
            extension
            for extension in environment.extensions.values()
            if isinstance(extension, _ChatExtension)
        )

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - named by the node class
        self.generic_visit(node)
        node.iter = self._call("iterate", [node.iter], node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._call("concatenate", node.nodes, node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = self._call("compared", [node.expr], node.lineno)
        for operand in node.ops:
            operand.expr = self._call("compared", [operand.expr], node.lineno)
        return node

    def _call(self, name: str, arguments: list[Any], line: int) -> nodes.Call:
        return self._extension.call_method(name, arguments, lineno=line)


class _PlainDict:
    """``dict(…)`` without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _PlainNamespace(Namespace):
    """``namespace(…)`` that holds no underscored names, so none of Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *values = args
        attributes = dict(*values, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"it stores the underscored name {name!r} in a namespace")


def _budget(context: Context) -> Budget:
    budget: Budget = context.parent[_BUDGET]
    return budget


@jinja2.pass_context
def _checked_output(context: Context, value: Any) -> Any:
    """What is written out, if its text is not endless: a small list may hold itself many times."""
    if isinstance(value, list | tuple | dict):
        measure(value)
    return _budget(context).charge(value)


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that refuses arguments of which it would build too much."""
    wanted = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    @functools.wraps(function)
    def limited(context: Context, *args: Any, **kwargs: Any) -> Any:
        args = _measurable(name, args)
        check_arguments(name, [*args, *kwargs.values()])
        first = {
            "context": context,
            "eval_context": context.eval_ctx,
            "environment": context.environment,
        }
        passed = (first[wanted],) if wanted else ()
        return _budget(context).charge(function(*passed, *args, **kwargs))

    return jinja2.pass_context(limited)


def _measurable(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments; what `join` can walk only once as a list, so that it can be measured."""
    if name != "join":
        return arguments
    return tuple(list(value) if isinstance(value, Iterator) else value for value in arguments)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: Jinja's own filter escapes HTML."""
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return encoder.encode(value) if indent is None else join(encoder.iterencode(value))


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:  # noqa: A002 - templates may name it
    return datetime.now().strftime(format)  # noqa: DTZ005 - the user's own date is meant
