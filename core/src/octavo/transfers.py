"""A step's inputs to the device and its results back: at once, where the backend can."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.backend import Backend
    from octavo.ops.protocol import Array

__all__ = ["Transfers"]


class Transfers:
    """``Backend.put_all`` and ``Backend.fetch``, or ``put`` and ``get`` where it has none."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._put_all: Callable[..., Sequence[Array]] | None = getattr(backend, "put_all", None)
        self._fetch: Callable[..., Any] | None = getattr(backend, "fetch", None)

    @property
    def takes_plans(self) -> bool:
        """What ``Backend.plan`` returns may hold host arrays, to be put with a step's others."""
        return self._put_all is not None

    def put(self, *trees: Any) -> tuple[Any, ...]:
        """The dataclasses and tuples with every NumPy array on the device, each array once."""
        hosts: dict[int, NDArray[Any]] = {}
        for tree in trees:
            _map_arrays(tree, lambda array: hosts.setdefault(id(array), array))
        if self._put_all is None:
            placed: Sequence[Array] = [self._backend.put(array) for array in hosts.values()]
        else:
            placed = self._put_all(list(hosts.values()))
        devices = dict(zip(hosts, placed, strict=True))
        return tuple(_map_arrays(tree, lambda array: devices[id(array)]) for tree in trees)

    def fetch(self, arrays: Sequence[Array]) -> Callable[[], Sequence[NDArray[Any]]]:
        """Begin to bring results to the host; what comes back waits for them, and has them."""
        if self._fetch is not None:
            pending: Callable[[], Sequence[NDArray[Any]]] = self._fetch(arrays)
            return pending
        return lambda: [self._backend.get(array) for array in arrays]


def _map_arrays(tree: Any, apply: Callable[[NDArray[Any]], Any]) -> Any:
    if isinstance(tree, np.ndarray):
        return apply(tree)
    if isinstance(tree, tuple):
        return tuple(_map_arrays(branch, apply) for branch in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        changes = {
            name: _map_arrays(value, apply)
            for name, value in vars(tree).items()
            if isinstance(value, np.ndarray | tuple) or dataclasses.is_dataclass(value)
        }
        return dataclasses.replace(tree, **changes)
    return tree
