"""A backend with faults: a proxy over any other that fails where it is told to.

Faults strike at the border between Octavo and the backend, so that they need nothing of its inside
and work with compiled steps as well:

* ``step`` is the compiled step, which has run when its fault strikes: what it was given is used up;
* ``model`` is the function handed to ``compile``, or each of the two parts of a step: its faults
  strike inside of the backend's own code, in each step or only while the step is traced, as the
  backend has it;
* ``nan`` as a fault of ``put``: one token's row of the embedding table turns NaN on its way to the
  device, so that whoever has this token in its prompt computes NaN, and stores it as K and V;
* ``nan`` as a fault of ``step``: the step says of each row it sampled that its logits held NaN.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from octavo.backend import Backend, Capabilities, MemoryInfo
    from octavo.batch import StepBatch
    from octavo.kv import KVSpec
    from octavo.ops.protocol import Array, Cache, LinearWeight, Ops, SampleResult

__all__ = ["FaultKind", "FaultyBackend", "InjectedError", "InjectedFault"]

FaultKind = Literal["raise", "out_of_memory", "hang", "nan"]
_LONGEST_HANG_S = 60.0  # for the threads of checks that broke off


class InjectedError(RuntimeError):
    """What a fault of the kind ``raise`` raises."""


@dataclass(frozen=True)
class InjectedFault:
    """Where a backend fails, how, and how often."""

    member: str
    """put, get, put_linear, make_kv, copy_blocks, plan, compile, memory, close, step or model."""
    kind: FaultKind = "raise"
    call: int = 0
    """At this call, counted from 0 since the fault was armed."""
    times: int | None = 1
    """At so many calls in a row; None: at all that follow."""
    token_id: int | None = None
    """Only in steps whose batch holds this token; with ``nan`` in ``put``, the token."""
    seconds: float | None = None
    """How long a hang lasts; the call goes on then. None: until ``release``."""

    @property
    def message(self) -> str:
        """What its error says."""
        where = "" if self.token_id is None else f", with token {self.token_id} in the batch"
        return f"fault injected into {self.member}{where}"


class FaultyBackend:
    """``backend``, with faults. The ones it is made with are armed at once.

    A hang ends when ``release`` is called; it raises then, so that nothing goes on in secret.
    """

    def __init__(self, backend: Backend, *faults: InjectedFault) -> None:
        self._backend = backend
        self._released = threading.Event()
        self._batch_token_ids: NDArray[np.int32] = np.zeros(0, np.int32)
        self.arm(*faults)

    def arm(self, *faults: InjectedFault) -> None:
        """Only these faults are to strike from now on; calls are counted anew."""
        self._faults = faults
        self._calls: Counter[InjectedFault] = Counter()
        self.num_struck = 0

    def release(self) -> None:
        """Let every hang end."""
        self._released.set()

    @property
    def caps(self) -> Capabilities:
        """The backend's."""
        return self._backend.caps

    @property
    def ops(self) -> Ops:
        """The backend's."""
        return self._backend.ops

    def memory(self) -> MemoryInfo:
        """The backend's, or a fault."""
        self._meet("memory")
        return self._backend.memory()

    def put(self, array: NDArray[Any], dtype: str | None = None) -> Array:
        """The backend's, a fault, or the array with a row of NaN."""
        self._meet("put")
        return self._backend.put(self._with_nan(array), dtype)

    def get(self, array: Array) -> NDArray[Any]:
        """The backend's, or a fault."""
        self._meet("get")
        return self._backend.get(array)

    def put_linear(self, weight: Any, bias: NDArray[Any] | None, dtype: str) -> LinearWeight:
        """The backend's, or a fault."""
        self._meet("put_linear")
        return self._backend.put_linear(weight, bias, dtype)

    def make_kv(
        self, spec: KVSpec, num_blocks: int, block_size: int, *, on_host: bool = False
    ) -> Cache:
        """The backend's, or a fault."""
        self._meet("make_kv")
        return self._backend.make_kv(spec, num_blocks, block_size, on_host=on_host)

    def copy_blocks(self, src: Cache, dst: Cache, pairs: NDArray[np.int32]) -> Cache:
        """The backend's, or a fault once it has copied."""
        copied = self._backend.copy_blocks(src, dst, pairs)
        self._meet("copy_blocks")
        return copied

    def plan(self, batch: StepBatch, block_size: int) -> Sequence[Any]:
        """The backend's, or a fault. The first call of a step that knows its tokens."""
        self._batch_token_ids = np.asarray(batch.token_ids)
        self._meet("plan")
        return self._backend.plan(batch, block_size)

    def compile(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The backend's over a function with faults, with faults around it."""
        self._meet("compile")

        @functools.wraps(step)  # for who asks after its parameters
        def model(*arguments: Any) -> Any:
            self._meet("model")
            return step(*arguments)

        compiled = self._backend.compile(model)

        def run(*arguments: Any) -> Any:
            results = compiled(*arguments)
            if not isinstance(results, tuple) or _is_forward(results):
                return results
            *caches, sampled, prompt = results
            self._meet("step")
            return *caches, self._with_nan_logits(sampled), prompt

        return run

    def __getattr__(self, name: str) -> Any:
        """``put_all`` and ``fetch`` where there are any; faults of put meet each array."""
        if name not in {"put_all", "fetch"}:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        member = getattr(self._backend, name)

        def put_all(arrays: Sequence[NDArray[Any]]) -> Any:
            for _ in arrays:
                self._meet("put")
            return member(arrays)

        def fetch(arrays: Sequence[Array]) -> Callable[[], Any]:
            pending = member(arrays)
            token_ids = self._batch_token_ids

            def result() -> Any:
                # Another step may have been launched behind the one that is read.
                launched, self._batch_token_ids = self._batch_token_ids, token_ids
                try:
                    self._meet("get")
                finally:
                    self._batch_token_ids = launched
                return pending()

            return result

        return put_all if name == "put_all" else fetch

    def close(self) -> None:
        """The backend's, or a fault."""
        self._meet("close")
        self._backend.close()

    def _meet(self, member: str) -> None:
        """Raise or hang if a fault is due."""
        for fault in self._faults:
            if fault.member == member and fault.kind != "nan" and self._is_due(fault):
                self.num_struck += 1
                self._strike(fault)

    def _is_due(self, fault: InjectedFault) -> bool:
        if fault.token_id is not None and not (self._batch_token_ids == fault.token_id).any():
            return False
        call = self._calls[fault]
        self._calls[fault] += 1
        return call >= fault.call and (fault.times is None or call < fault.call + fault.times)

    def _strike(self, fault: InjectedFault) -> None:
        if fault.kind == "out_of_memory":
            raise MemoryError(f"{fault.message}: out of memory")
        if fault.kind == "hang":
            limit_s = _LONGEST_HANG_S if fault.seconds is None else fault.seconds
            is_released = self._released.wait(limit_s)
            if fault.seconds is not None and not is_released:
                return
        raise InjectedError(fault.message)

    def _with_nan(self, array: NDArray[Any]) -> NDArray[Any]:
        """The first matrix that is put is the embedding table; one that is tied is no good here."""
        for fault in self._faults:
            is_of_put = fault.kind == "nan" and fault.member == "put"
            if is_of_put and array.ndim == 2 and not self._calls[fault]:
                self._calls[fault] += 1
                self.num_struck += 1
                array = array.copy()
                array[fault.token_id] = np.nan
        return array

    def _with_nan_logits(self, sampled: SampleResult) -> SampleResult:
        for fault in self._faults:
            if fault.kind == "nan" and fault.member == "step" and self._is_due(fault):
                self.num_struck += 1
                none_valid = np.zeros(sampled.token_ids.shape[0], np.bool_)
                sampled = dataclasses.replace(sampled, valid=self._backend.put(none_valid))
        return sampled


def _is_forward(results: tuple[Any, ...]) -> bool:
    """Caches and logits: the first part of a step, whose other part samples them."""
    return len(results) == 2 and isinstance(results[0], tuple)
