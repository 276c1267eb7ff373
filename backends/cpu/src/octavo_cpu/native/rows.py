"""A number of rows that a recording leaves open: of tokens, of logits, of what a step brings."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

__all__ = ["NothingToRecord", "Rows", "Size", "Untraceable", "number_of"]


class Untraceable(Exception):  # noqa: N818
    """Something that instructions cannot say; the function is then run as it is."""


class NothingToRecord(Untraceable):
    """No op was given what changes from step to step, so nobody waits for instructions."""


class Rows:
    """Stands in ``shape[0]`` of a traced array, and may be handed on to ``reshape``.

    Whatever else is done with it needs the number. It is then given away, and the recording serves
    that number only: ``on_use`` is called with the name.
    """

    __slots__ = ("_on_use", "name", "number")

    def __init__(self, name: str, number: int, on_use: Callable[[str], None]) -> None:
        self.name = name
        self.number = number
        """What it is in the step that is being recorded; reading it here binds nothing."""
        self._on_use = on_use

    def __index__(self) -> int:
        self._on_use(self.name)
        return self.number

    def __repr__(self) -> str:
        return f"{self.name}={self.number}"

    def __getattr__(self, name: str) -> NoReturn:
        raise Untraceable(f"{name!r} of a number of rows was asked for")


def _through(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(*values: Any) -> Any:
        return function(
            *(value.__index__() if isinstance(value, Rows) else value for value in values)
        )

    return apply


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    through = _through(function)
    return lambda own, other: through(other, own)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Rows, f"__{_name}__", _through(getattr(operator, _name)))
    setattr(Rows, f"__r{_name}__", _reflected(getattr(operator, _name)))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg"):
    setattr(Rows, f"__{_name}__", _through(getattr(operator, _name)))
setattr(Rows, "__bool__", _through(bool))  # noqa: B010
setattr(Rows, "__hash__", _through(hash))  # noqa: B010
setattr(Rows, "__int__", Rows.__index__)  # noqa: B010
setattr(Rows, "__float__", _through(float))  # noqa: B010

Size: TypeAlias = int | Rows


def number_of(size: Size) -> int:
    """The number, without binding a recording to it."""
    return size.number if isinstance(size, Rows) else size
