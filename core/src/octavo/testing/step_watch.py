"""A backend that counts when its compiled step calls the Python step it was made from.

A tracing backend does so only while it compiles; an eager one in every step.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from octavo.backend import Capabilities

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
    """Watches every step that goes through ``wrap``'s backend."""

    num_calls: int = 0  # of the Python step
    num_steps: int = 0
    is_eager: bool = False
    recompilations: list[Recompilation] = field(default_factory=list)
    _seen: Counter[str] = field(default_factory=Counter)
    _plans: dict[str, str] = field(default_factory=dict)

    def wrap(self, backend: Any) -> Any:
        """The same backend, watched."""
        return _Watched(backend, self)

    def watch(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """The compiled step; the first is repeated, to find out whether Python runs each time."""

        def step(weights: Any, caches: Any, batch: Any, plans: Any, *rest: Any) -> Any:
            calls_before = self.num_calls
            results = compiled(weights, caches, batch, plans, *rest)
            self._note(shapes_of((batch, rest)), shapes_of(plans), self.num_calls - calls_before)
            if self.num_steps == 1:
                for _ in range(NUM_SETTLING_STEPS):
                    calls_before = self.num_calls
                    # Identical but for the caches, which hold this step's keys already.
                    results = compiled(weights, results[0], batch, plans, *rest)
                self.is_eager = self.num_calls > calls_before
            return results

        return step

    def _note(self, shapes: str, plans: str, num_calls: int) -> None:
        self.num_steps += 1
        num_earlier = self._seen[shapes]
        self._seen[shapes] += 1
        earlier_plans = self._plans.setdefault(shapes, plans)
        if num_calls and num_earlier >= NUM_SETTLING_STEPS and not self.is_eager:
            self.recompilations.append(Recompilation(shapes, num_earlier, plans, earlier_plans))


class _Watched:
    """Every member is the backend's own, save ``compile``."""

    def __init__(self, backend: Any, watch: StepWatch) -> None:
        self._backend = backend
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    @property
    def caps(self) -> Capabilities:
        """The backend's, but for the parts of a step: whole ones are watched."""
        caps: Capabilities = self._backend.caps
        return dataclasses.replace(caps, separate_sampling=False)

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The backend's compiled step, watched on both sides."""

        @functools.wraps(step)
        def counted(*arguments: Any) -> Any:
            self._watch.num_calls += 1
            return step(*arguments)

        return self._watch.watch(self._backend.compile(counted))


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
