"""The options of a GPU's backend, as ``[options.cuda]`` or a caller may set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from octavo.api import UsageError

__all__ = ["GpuOptions"]

_SIZES = (1, 2, 4, 8, *range(16, 257, 16), 320, 384, 448, 512)


@dataclass(frozen=True)
class GpuOptions:
    """Graphs for decodes of up to 512 requests."""

    graphs: bool = True
    """Capture steps of decodes alone; False runs everything as it comes, for a debugger."""
    graph_batch_sizes: tuple[int, ...] = _SIZES
    """Sequence counts that there may be a graph for; steps are padded to the next."""
    graphs_at_start: bool = True
    """Capture before the first request, for as many requests as may run at once; False: when a size
    comes for the second time."""
    max_graphs: int = 128
    """The oldest goes when there are more."""

    @classmethod
    def parse(cls, options: Mapping[str, Any], backend: str) -> GpuOptions:
        """Raise UsageError for an unknown option or a value that cannot be used."""
        known = [field.name for field in fields(cls)]
        for name, value in options.items():
            if name not in known:
                raise UsageError(
                    f"Backend {backend!r} has no option {name!r}; it has {', '.join(known)}."
                )
            if not _EXPECTED[name][0](value):
                raise UsageError(
                    f"Option {name} of backend {backend!r} is {value!r}; "
                    f"expected {_EXPECTED[name][1]}."
                )
        values = dict(options)
        if "graph_batch_sizes" in values:
            values["graph_batch_sizes"] = tuple(sorted(set(values["graph_batch_sizes"])))
        return cls(**values)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_count, value))


_EXPECTED: Mapping[str, tuple[Any, str]] = {
    "graphs": (lambda value: isinstance(value, bool), "true or false"),
    "graphs_at_start": (lambda value: isinstance(value, bool), "true or false"),
    "graph_batch_sizes": (_are_counts, "a list of whole numbers, at least 1 each"),
    "max_graphs": (_is_count, "a whole number, at least 1"),
}
