"""A backend as its ``load`` returns it, before Octavo has looked at it, for the contract's checks.

Octavo refuses a backend with any fault. The checks of the contract have to get past the first one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from octavo.batch import GroupBatch, StepBatch
from octavo.contract import contract_faults
from octavo.isolation import describe
from octavo.padding import Buckets
from octavo.testing.check import Blocked
from octavo.testing.placed_plans import placed_plans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from octavo.kv import KVSpec
    from octavo.ops.protocol import AttentionParams
    from octavo.testing.subject import Subject

__all__ = ["ONE_TOKEN", "attend_one_token", "close_quietly", "load_raw", "opened", "opened_sound"]

ONE_TOKEN = 0.75
"""The values of the token of ``attend_one_token``: no integer, so that a cache of integers without
scales loses them, and exact in every float."""

_REPORTED_BY = {"member": "members", "signature": "signatures", "capability": "capabilities"}


def load_raw(
    subject: Subject, *, index: int | None = None, options: Mapping[str, Any] | None = None
) -> Any:
    """What the plugin's ``load`` returns, for the suite's device and the policy's options."""
    spec = subject.spec
    own_options = subject.policy.options.get(spec.name, {})
    own_index = subject.resolution.device.index
    return spec.load(own_index if index is None else index, {**own_options, **(options or {})})


@contextlib.contextmanager
def opened(subject: Subject) -> Iterator[Any]:
    """A backend of one's own, closed afterwards. Raises Blocked if it cannot be loaded."""
    try:
        backend = load_raw(subject)
    except Exception as error:
        raise Blocked(f"contract.loads: load raises {describe(error)}.") from error
    try:
        yield backend
    finally:
        close_quietly(backend)


@contextlib.contextmanager
def opened_sound(subject: Subject) -> Iterator[Any]:
    """The same, for checks that call members. Raises Blocked if any has a fault."""
    with opened(subject) as backend:
        for fault in contract_faults(backend, subject.name):
            raise Blocked(f"contract.{_REPORTED_BY[fault.kind]}: {fault.message}")
        yield backend


def close_quietly(backend: Any) -> None:
    """Close; whether that works is what ``contract.close`` is for."""
    with contextlib.suppress(Exception):
        backend.close()


def attend_one_token(
    backend: Any,
    spec: KVSpec,
    block_size: int,
    params: AttentionParams,
    *,
    sinks: bool = False,
) -> NDArray[Any]:
    """The smallest step there is: one token written to a new cache and attending to itself.

    Returns [1, 1, head_dim] as float32, all ONE_TOKEN if it is right and there is no sink, or
    raises what the backend raises.
    """
    batch = StepBatch(
        token_ids=np.zeros(1, np.int32),
        positions=np.zeros(1, np.int32),
        token_seqs=np.zeros(1, np.int32),
        query_start=np.array([0, 1], np.int32),
        seq_lens=np.ones(1, np.int32),
        context_lens=np.ones(1, np.int32),
        logits_rows=np.zeros(1, np.int32),
        groups=(GroupBatch(np.ones((1, 1), np.int32), np.full(1, block_size, np.int32)),),
    )
    batch = Buckets.of(backend.caps).pad_batch(batch)
    (plan,) = placed_plans(backend, batch, block_size)
    rows = np.full((len(batch.token_ids), 1, spec.head_dim), ONE_TOKEN, np.float32)
    dtype = backend.caps.dtypes[0]
    q, k, v = (backend.put(rows, dtype) for _ in "qkv")
    sink = backend.put(np.zeros(1, np.float32), dtype) if sinks else None
    cache = backend.make_kv(spec, 2, block_size)
    out, _ = backend.ops.attend(q, k, v, cache, plan, params, sink)
    first: NDArray[Any] = backend.get(out)[:1].astype(np.float32)
    return first
