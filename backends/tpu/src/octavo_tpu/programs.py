"""Compiled functions, and who is told when one is compiled that should have been long ago."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax

from octavo.api import BackendError, StepBatch

__all__ = ["Program", "compilation_is_an_error"]

_LOG = logging.getLogger(__name__)
_SHOWN_SHAPES = 8
_refusing: list[None] = []  # who is within compilation_is_an_error, of all threads


@contextlib.contextmanager
def compilation_is_an_error() -> Iterator[None]:
    """Within, a Program that serves raises BackendError in place of compiling."""
    _refusing.append(None)
    try:
        yield
    finally:
        _refusing.pop()


class Program:
    """``jax.jit`` of a step or a part of one; its second argument, the caches, is given away.

    While ``is_serving()``, a shape that has to be compiled is told with a warning: requests wait
    for it. Weights and caches do not change their shapes; what else is given decides.
    """

    def __init__(self, function: Callable[..., Any], is_serving: Callable[[], bool]) -> None:
        self._name = getattr(function, "__name__", "a step")
        self._jitted: Any = jax.jit(function, donate_argnums=1)
        self._is_serving = is_serving
        self._known: set[Hashable] = set()

    @property
    def num_compiled(self) -> int:
        """Shapes that there is a program for."""
        return len(self._known)

    def __call__(self, *arguments: Any) -> Any:
        """Run; compile first where the shapes are new."""
        arguments = tuple(map(_without_tables, arguments))
        leaves, structure = jax.tree.flatten(arguments[2:])
        key = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in self._known:
            if self._is_serving():
                self._tell(leaves)
            self._known.add(key)
        return self._jitted(*arguments)

    def _tell(self, leaves: list[Any]) -> None:
        shapes = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves[:_SHOWN_SHAPES])
        more = ", …" if len(leaves) > _SHOWN_SHAPES else ""
        said = f"{self._name} is compiled while requests wait, for {shapes}{more}."
        if _refusing:
            raise BackendError(said)
        _LOG.warning("%s See token_buckets, seq_buckets and compile_at_start.", said)


def _without_tables(argument: Any) -> Any:
    """A StepBatch without its block tables: plans have them, in a width that does not change."""
    return dataclasses.replace(argument, groups=()) if isinstance(argument, StepBatch) else argument
