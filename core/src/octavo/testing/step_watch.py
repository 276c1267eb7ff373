"""A backend that counts when its compiled step calls the Python step it was made from.

A tracing backend does so only while it compiles; an eager one in every step.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Recompilation", "StepWatch", "shapes_of"]

NUM_SETTLING_STEPS = 3
"""Steps of one shape that may compile: a backend may run once to warm up and then capture."""


@dataclass(frozen=True)
class Recompilation:
    """A step of well-known shapes that was compiled once more."""

    shapes: str
    num_earlier_steps: int
    plans: str
    earlier_plans: str

    @property
    def is_due_to_plan(self) -> bool:
        """Whether what ``plan`` returned has other shapes than before."""
        return self.plans != self.earlier_plans


@dataclass
class StepWatch:
    """Watches every step that goes through ``wrap``'s backend, whole or in its two parts."""

    num_steps: int = 0
    recompilations: list[Recompilation] = field(default_factory=list)
    functions: list[_Function] = field(default_factory=list)

    @property
    def is_eager(self) -> bool:
        """Whether each function runs in Python every time."""
        return bool(self.functions) and all(function.is_eager for function in self.functions)

    def wrap(self, backend: Any) -> Any:
        """The same backend, watched."""
        return _Watched(backend, self)


@dataclass
class _Function:
    """One function that was compiled: a step, or a part of one."""

    watch: StepWatch
    num_calls: int = 0  # of the Python function
    is_eager: bool = False
    _num_runs: int = 0
    _seen: Counter[str] = field(default_factory=Counter)
    _plans: dict[str, str] = field(default_factory=dict)

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The Python function, counted."""

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            self.num_calls += 1
            return function(*arguments)

        return call

    def watched(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """The compiled one; its first run is repeated, to find out if Python runs each time."""

        def run(weights: Any, caches: Any, batch: Any, plans: Any, *rest: Any) -> Any:
            calls_before = self.num_calls
            results = compiled(weights, caches, batch, plans, *rest)
            num_calls = self.num_calls - calls_before
            if caches:
                self._note(shapes_of((batch, rest)), shapes_of(plans), num_calls)
            else:  # sampling, of logits as a batch says that stands where plans do
                self._note(shapes_of((batch, plans, rest)), "", num_calls)
            if self._num_runs == 1:
                for _ in range(NUM_SETTLING_STEPS):
                    calls_before = self.num_calls
                    # Identical but for the caches, which hold this step's keys already.
                    results = compiled(weights, caches and results[0], batch, plans, *rest)
                self.is_eager = self.num_calls > calls_before
            return results

        return run

    def _note(self, shapes: str, plans: str, num_calls: int) -> None:
        self._num_runs += 1
        self.watch.num_steps += 1
        num_earlier = self._seen[shapes]
        self._seen[shapes] += 1
        earlier_plans = self._plans.setdefault(shapes, plans)
        if num_calls and num_earlier >= NUM_SETTLING_STEPS and not self.is_eager:
            again = Recompilation(shapes, num_earlier, plans, earlier_plans)
            self.watch.recompilations.append(again)


class _Watched:
    """Every member is the backend's own, save ``compile``."""

    def __init__(self, backend: Any, watch: StepWatch) -> None:
        self._backend = backend
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The backend's compiled step, watched on both sides."""
        function = _Function(self._watch)
        self._watch.functions.append(function)
        return function.watched(self._backend.compile(function.counted(step)))


def shapes_of(tree: Any) -> str:
    """Everything of a step's arguments that a compiled step may depend on, in words.

    Arrays by dtype and shape, plain values as they are, containers item by item.
    """
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return f"{tree.dtype}{list(tree.shape)}"
    if dataclasses.is_dataclass(tree):
        items = ((each.name, getattr(tree, each.name)) for each in dataclasses.fields(tree))
        return ", ".join(f"{name}={shapes_of(value)}" for name, value in items)
    if isinstance(tree, tuple | list):
        return f"({'; '.join(map(shapes_of, tree))})"
    if tree is None or isinstance(tree, bool | int | float | str):
        return str(tree)
    return type(tree).__name__
