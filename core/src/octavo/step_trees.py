"""The dataclasses that cross a compiled step, for backends whose compiler must know them.

``jax.jit`` takes arrays and containers of arrays that it has been told about. Each dataclass that
is an argument or a result of the step declares itself with ``@step_tree``; a backend asks for all
of them with ``each_step_tree``. No array library is imported here, so models may declare theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from threading import RLock
from typing import TypeVar, overload

from octavo.errors import PluginError
from octavo.suggest import choices

__all__ = ["Register", "each_step_tree", "step_tree"]

Tree = TypeVar("Tree", bound=type)
Register = Callable[[type, list[str], list[str]], object]
"""``register(dataclass, names of its array fields, names of its static fields)``."""

# Modules of core whose import declares what every step is made of. Weights are declared when a
# model is imported, which is later: each_step_tree hands them on as they come.
_MODULES = ("octavo.batch", "octavo.ops.protocol", "octavo.ops.storage")


@dataclass(frozen=True)
class _StepTree:
    """One declared dataclass."""

    dataclass: type
    array_fields: tuple[str, ...]
    static_fields: tuple[str, ...]

    def announce(self, register: Register) -> None:
        """Fresh lists, as ``jax.tree_util.register_dataclass`` takes them."""
        register(self.dataclass, list(self.array_fields), list(self.static_fields))


_trees: list[_StepTree] = []
_registers: list[Register] = []
_lock = RLock()


@overload
def step_tree(cls: Tree, /) -> Tree: ...
@overload
def step_tree(*, static: Iterable[str]) -> Callable[[Tree], Tree]: ...
def step_tree(
    cls: Tree | None = None, /, *, static: Iterable[str] = ()
) -> Tree | Callable[[Tree], Tree]:
    """Declare a dataclass that crosses the compiled step; stands above ``@dataclass``.

    Its fields are arrays, other step trees, tuples of either, or None. Those named in ``static``
    are plain values that the step branches on: another value makes another program.

    Raises PluginError for what is no dataclass, and for a static field that it does not have.
    """
    static_fields = tuple(static)

    def declare(cls: Tree) -> Tree:
        tree = _StepTree(cls, _array_fields(cls, static_fields), static_fields)
        with _lock:
            _trees.append(tree)
            for register in _registers:
                tree.announce(register)
        return cls

    return declare if cls is None else declare(cls)


def each_step_tree(register: Register) -> None:
    """Call ``register(cls, array_fields, static_fields)`` for every step tree there is or will be.

    A ``register`` that has been here before is not called again: several backends may share one
    library's registry, as in ``each_step_tree(jax.tree_util.register_dataclass)``.
    """
    for module in _MODULES:
        import_module(module)  # not under the lock: an import may be under way that declares a tree
    with _lock:
        if register in _registers:
            return
        _registers.append(register)
        for tree in _trees:
            tree.announce(register)


def _array_fields(cls: type, static_fields: tuple[str, ...]) -> tuple[str, ...]:
    if not dataclasses.is_dataclass(cls):
        raise PluginError(
            f"@step_tree stands on {cls.__qualname__}, which is no dataclass; put it above "
            "@dataclass(frozen=True)."
        )
    names = [field.name for field in dataclasses.fields(cls)]
    for static_field in static_fields:
        if static_field not in names:
            raise PluginError(
                f"@step_tree of {cls.__qualname__} calls {static_field!r} static; "
                f"its fields are {choices(names)}."
            )
    return tuple(name for name in names if name not in static_fields)
