"""Compiled steps on a GPU: decodes alone are captured as graphs and replayed, all else is eager.

Launching the two or three hundred kernels of a decode step takes the host longer than a small batch
takes the GPU. A graph launches them all at once, always with the same shapes and addresses: so
there is one for each padded number of sequences (``caps.decode_buckets``), which reads its inputs
where they were when it was captured.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from octavo_torch.plan import TorchPlan
from octavo_torch.trees import map_tensors, shape_of, tensors_of

__all__ = ["CaptureApi", "Graph", "GraphedFunction", "TorchCapture"]

_LEAST_TABLE_BLOCKS = 64


class Graph(Protocol):
    """Work that was captured."""

    def replay(self) -> None:
        """Queue it once more: it reads and writes what it read and wrote."""
        ...


class CaptureApi(Protocol):
    """What captures: ``torch.cuda``, for NVIDIA and AMD alike, or a stand-in for tests."""

    def capture(self, function: Callable[[], Any]) -> tuple[Graph, Any]:
        """The function's work, not done yet, and its results, in memory that each replay fills."""
        ...


class TorchCapture:
    """Graphs of one device, which share their memory: no two run at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, function: Callable[[], Any]) -> tuple[Graph, Any]:
        """With ``torch.cuda.graph``; what other threads do meanwhile does not matter."""
        graph: Any = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            results = function()
        return graph, results


@dataclass(frozen=True)
class _Captured:
    """A graph, and the tensors that it reads and writes."""

    graph: Graph
    inputs: tuple[Any, ...]
    results: Any
    caches: tuple[Any, ...]
    weights: Any


class GraphedFunction:
    """A step, or a part of one; called as ``function(weights, caches, batch, plans, ...)``.

    The first call of a shape runs as it is, which also compiles kernels; the second captures, and
    from then on the graph is replayed. What a replay returns is good until the next one: whoever
    wants it later begins to fetch it before.
    """

    def __init__(
        self, function: Callable[..., Any], api: CaptureApi, sizes: tuple[int, ...], max_graphs: int
    ) -> None:
        self._function = function
        self._api = api
        self._sizes = frozenset(sizes)
        self._max_graphs = max_graphs
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, _Captured] = {}
        self._width = _LEAST_TABLE_BLOCKS

    @property
    def num_graphs(self) -> int:
        """Captured and kept."""
        return len(self._graphs)

    def __call__(self, weights: Any, caches: tuple[Any, ...], *rest: Any) -> Any:
        """Run, capture or replay."""
        if not self._can_capture(rest):
            return self._function(weights, caches, *rest)
        # A graph of a wide table serves every shorter one: what a sequence has is in its length.
        width = self._width = max(self._width, _table_blocks(rest))
        bounded = _bounded(rest, width)
        key = (width, shape_of(bounded))
        captured = self._graphs.get(key)
        if captured is not None and not _is_current(captured, weights, caches):
            self._graphs.clear()  # the caches or weights they knew are gone
            captured = None
        if captured is None:
            if key not in self._seen:
                self._seen.add(key)
                return self._function(weights, caches, *rest)
            captured = self._capture(key, weights, caches, bounded)
        _copy_inputs(captured.inputs, rest)
        captured.graph.replay()
        return captured.results

    def _can_capture(self, rest: tuple[Any, ...]) -> bool:
        """A decode for each sequence, padded to a size that is wanted, with nothing beside."""
        if len(rest) < 2 or not hasattr(rest[0], "token_ids"):
            return False
        batch, plans = rest[0], rest[1]
        num_tokens = batch.token_ids.shape[0]
        return (
            num_tokens in self._sizes
            and num_tokens == batch.seq_lens.shape[0]
            and all(isinstance(plan, TorchPlan) and plan.max_query_len <= 1 for plan in plans)
            and (len(rest) < 4 or rest[3] is None)
        )

    def _capture(
        self, key: Hashable, weights: Any, caches: tuple[Any, ...], bounded: tuple[Any, ...]
    ) -> _Captured:
        if len(self._graphs) >= self._max_graphs:
            self._graphs.pop(next(iter(self._graphs)))  # the oldest
        memo: dict[int, torch.Tensor] = {}

        def own(tensor: torch.Tensor) -> torch.Tensor:
            """A tensor of the graph's; one that is in several places stays one."""
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.clone()
            return memo[id(tensor)]

        inputs = map_tensors(bounded, own)
        run = functools.partial(self._function, weights, caches, *inputs)
        # At these bounds other kernels may be chosen than for the step itself, and what has never
        # run cannot be captured: it is compiled and loaded when it runs. Writes are the same twice.
        run()
        graph, results = self._api.capture(run)
        captured = _Captured(graph, inputs, results, caches, weights)
        self._graphs[key] = captured
        return captured


def _is_current(captured: _Captured, weights: Any, caches: tuple[Any, ...]) -> bool:
    """Whether a graph reads and writes what is there now."""
    if captured.weights is not weights:
        return False
    if captured.caches is caches:
        return True
    known, given = tensors_of(captured.caches), tensors_of(caches)
    return [each.data_ptr() for each in known] == [each.data_ptr() for each in given]


def _table_blocks(rest: tuple[Any, ...]) -> int:
    """Columns of the graph's block tables: the next power of two."""
    widths = [group.block_table.shape[1] for group in rest[0].groups]
    return 1 << max(max(widths, default=1) - 1, 0).bit_length()


def _bounded(rest: tuple[Any, ...], width: int) -> tuple[Any, ...]:
    """The arguments with tables of ``width`` columns and the host's numbers at their bounds."""
    batch, plans, *others = rest
    memo: dict[int, torch.Tensor] = {}

    def widened(table: torch.Tensor) -> torch.Tensor:
        if id(table) not in memo:
            memo[id(table)] = torch.nn.functional.pad(table, (0, width - table.shape[1]))
        return memo[id(table)]

    groups = tuple(
        dataclasses.replace(group, block_table=widened(group.block_table)) for group in batch.groups
    )
    bounded_plans = tuple(
        dataclasses.replace(
            plan,
            block_table=widened(plan.block_table),
            max_query_len=1,
            max_seq_len=width * plan.block_size,
            host_query_start=(),
            host_seq_lens=(),
        )
        for plan in plans
    )
    return (dataclasses.replace(batch, groups=groups), bounded_plans, *others)


def _copy_inputs(inputs: tuple[Any, ...], rest: tuple[Any, ...]) -> None:
    """Put a step's arguments where the graph reads them, tables in the columns they have."""
    targets, sources, done = [], [], set()
    for target, source in zip(tensors_of(inputs), tensors_of(rest), strict=True):
        if target.data_ptr() in done or not target.numel():
            continue
        done.add(target.data_ptr())
        if target.shape == source.shape:
            targets.append(target)
            sources.append(source)
        else:
            target[:, : source.shape[1]].copy_(source)
    torch._foreach_copy_(targets, sources)
