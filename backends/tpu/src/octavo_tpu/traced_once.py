"""Ops that are traced once for each kind of operands: layers are alike, and tracing is slow."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax

from octavo.api import AttentionParams

__all__ = ["traced_once"]

_STATIC = (bool, int, float, str, type(None), AttentionParams)


def traced_once(method: Callable[..., Any]) -> Callable[..., Any]:
    """An op whose trace is kept in ``self.traces``, for each class that ``self`` may be of.

    The program gets a function for it, which XLA inlines again: what is saved is Python's time.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs).arguments
        del bound["self"]
        static = {name: value for name, value in bound.items() if isinstance(value, _STATIC)}
        arrays = {name: value for name, value in bound.items() if name not in static}
        key = (type(self), method, tuple(static.items()))
        traced = self.traces.get(key)
        if traced is None:

            @functools.wraps(method)
            def run(arrays: dict[str, Any]) -> Any:
                return method(self, **arrays, **static)

            # Of two threads the first decides: a program with both would be another one, which
            # the compilation cache does not have.
            traced = self.traces.setdefault(key, jax.jit(run))
        return traced(arrays)

    return call
