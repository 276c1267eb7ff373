"""Times one op as a step runs it, and what the device does at best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.testing.paged_step import DTYPES
from octavo.testing.placed_plans import placed_plans

if TYPE_CHECKING:
    from octavo.ops.protocol import Array, Cache, Ops, SamplingBatch
    from octavo.testing.paged_step import PagedStep
    from octavo.testing.subject import Subject

__all__ = ["Work", "measure"]

_BUDGET_S = 0.12  # of each case, once it has been run for the first time
_MOST_REPEATS = 50
_DEVICE_ARRAY_BYTES = 256 << 20
_HOST_ARRAY_BYTES = 64 << 20
_LIMITS = "_limits"

Call = Callable[["Ops", Any, "tuple[Cache, ...]", "tuple[Any, ...]", "SamplingBatch"], Any]


@dataclass(frozen=True)
class Work:
    """One op at one shape; ``call(ops, weights, caches, plans, sampling)``.

    It returns the caches and a result, of which the first array is waited for.
    """

    call: Call
    weights: Any  # arrays and prepared weights on the device
    step: PagedStep
    sampling: SamplingBatch  # on the device
    num_bytes: int  # read and written at least
    num_operations: int  # multiplications and additions
    needs_cache: bool = False
    is_sampling: bool = False


@dataclass(frozen=True)
class _Limits:
    """What the device was seen to do at best."""

    read_bytes_per_s: float
    operations_per_s: float


def measure(subject: Subject, work: Work) -> Mapping[str, float]:
    """Seconds of the fastest call, beside the device's limits.

    No seconds where the call took no longer than waiting for the device does.
    """
    limits = _limits_of(subject)
    seconds = _seconds(subject, work)
    return {
        **({"seconds": seconds} if seconds > 0 else {}),
        "bytes": float(work.num_bytes),
        "operations": float(work.num_operations),
        "read_bytes_per_s_limit": limits.read_bytes_per_s,
        "operations_per_s_limit": limits.operations_per_s,
    }


def _seconds(subject: Subject, work: Work) -> float:
    """Through ``compile``, as a step: a backend that compiles would else be timed op by op."""
    if work.is_sampling and subject.caps.separate_sampling:
        return _sampling_seconds(subject, work)
    backend, ops = subject.backend, subject.ops

    def step(
        weights: Any,
        caches: tuple[Cache, ...],
        batch: Any,
        plans: tuple[Any, ...],
        sampling: SamplingBatch,
        prompt_targets: Any = None,
    ) -> Any:
        del batch, prompt_targets
        return *work.call(ops, weights, caches, plans, sampling), None

    compiled = backend.compile(step)
    plans = placed_plans(backend, work.step.batch, work.step.case.block_size)
    batch = work.step.batch.map(backend.put)
    caches = [(work.step.cache(subject),) if work.needs_cache else ()]

    def run() -> Array:
        caches[0], result, _ = compiled(work.weights, caches[0], batch, plans, work.sampling, None)
        first: Array = _first_array(result)
        return first

    return _fastest(subject, run)


def _sampling_seconds(subject: Subject, work: Work) -> float:
    """As the part of a step that it is."""
    ops = subject.ops

    def sample(
        _weights: tuple[()], _caches: tuple[()], sampling: SamplingBatch, *arrays: Array
    ) -> Any:
        return work.call(ops, arrays, (), (), sampling)[1]

    compiled = subject.backend.compile(sample)
    return _fastest(subject, lambda: _first_array(compiled((), (), work.sampling, *work.weights)))


def _fastest(subject: Subject, run: Callable[[], Array]) -> float:
    """Seconds of the fastest of several runs, less what it takes to wait; 0 if there are none."""
    result = run()  # compiles, allocates, warms up
    _wait(subject, result)
    wait_s = min(_timed(lambda: _wait(subject, result)) for _ in range(5))
    best_s, spent_s = math.inf, 0.0
    for _ in range(_MOST_REPEATS):
        run_s = _timed(lambda: _wait(subject, run()))
        best_s, spent_s = min(best_s, run_s), spent_s + run_s
        if spent_s > _BUDGET_S:
            break
    return max(best_s - wait_s, 0.0)


def _timed(run: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    run()
    return time.perf_counter() - started_s


def _wait(subject: Subject, array: Array) -> None:
    """``get`` is where the host waits; one row is little to bring over."""
    subject.get(array[:1])


def _first_array(result: Any) -> Any:
    if isinstance(result, tuple):
        return result[0]
    return getattr(result, "token_ids", result)  # a SampleResult


def _limits_of(subject: Subject) -> _Limits:
    """Measured once for a subject, and kept with it."""
    kept = vars(subject)
    if _LIMITS not in kept:
        kept[_LIMITS] = _Limits(_read_bytes_per_s(subject), _operations_per_s(subject))
    limits: _Limits = kept[_LIMITS]
    return limits


def _read_bytes_per_s(subject: Subject) -> float:
    """Of arrays too large for a cache."""
    memory = subject.backend.memory()
    if memory.shared_with_host:
        return _host_read_bytes_per_s()
    dtype = DTYPES[subject.caps.dtypes[0]]
    num_rows = max(1, min(_DEVICE_ARRAY_BYTES, memory.free_bytes // 16) // (4096 * dtype.itemsize))
    x, y = (subject.put(np.full((num_rows, 4096), value, dtype)) for value in (1, 2))
    seconds = _fastest(subject, lambda: x + y)  # two are read, one is written
    return 3 * num_rows * 4096 * dtype.itemsize / seconds if seconds else math.inf


def _host_read_bytes_per_s() -> float:
    """Of a scalar product, which writes nothing: new pages for a result would cost more than it."""
    x, y = (np.ones(_HOST_ARRAY_BYTES // 4, np.float32) for _ in range(2))
    return 2 * _HOST_ARRAY_BYTES / min(_timed(lambda: np.dot(x, y)) for _ in range(7))


def _operations_per_s(subject: Subject) -> float:
    """Of ``linear`` over square matrices, larger and larger until one takes a while."""
    dtype = subject.caps.dtypes[0]
    best, size = 0.0, 512
    while True:
        square = np.full((size, size), 1 / size, DTYPES[dtype])
        weight, x = subject.backend.put_linear(square, None, dtype), subject.put(square)
        seconds = _fastest(subject, lambda: subject.ops.linear(x, weight))  # noqa: B023
        best = max(best, 2 * size**3 / seconds if seconds else 0.0)
        if seconds > _BUDGET_S / 8 or size == 8192:
            return best
        size *= 2
