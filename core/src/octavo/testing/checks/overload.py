"""More requests than fit, and requests that are aborted: the others get what they would alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from octavo.errors import QueueFullError
from octavo.kv import KVSpec
from octavo.testing.check import Case, Check, CheckFailure
from octavo.testing.family_answers import Precision
from octavo.testing.faulty_engine import (
    LATER,
    MARKED_TOKEN,
    REQUESTS,
    FaultyEngine,
    Finished,
    Requests,
    expect_undisturbed,
)

if TYPE_CHECKING:
    from octavo.testing.subject import Subject

__all__ = ["CHECKS"]

_NUM_AT_ONCE = 36  # rows in a step
_NUM_ACCEPTED = 38
_NUM_CROWD_TOKENS = 5
_NUM_STEPS_TO_DECODE = 5
_NUM_STEPS_TO_SWAP = 200
_BLOCK_SIZES = range(8, 65)
_NUM_TIGHT_BLOCKS = 4  # for three requests that come to need two each
_NUM_WAVE_TOKENS = 6


def _check_overload(subject: Subject, _value: None) -> None:
    """Many copies of two requests in one engine; a bounded queue refuses the rest."""
    params = replace(LATER["later"][1], max_tokens=_NUM_CROWD_TOKENS)
    kinds: Requests = {"even": ([9, 8, 7], params), "odd": ([201, 3, 5], params)}
    with FaultyEngine.open(
        subject, max_num_seqs=_NUM_AT_ONCE, max_num_batched_tokens=64, max_num_waiting=_NUM_ACCEPTED
    ) as faulty:
        calm = faulty.serve(kinds)
        kind_of = {f"{i}": "odd" if i % 2 else "even" for i in range(_NUM_ACCEPTED)}
        faulty.add({request_id: kinds[kind] for request_id, kind in kind_of.items()})
        try:
            faulty.add({"one too many": kinds["even"]})
        except QueueFullError:
            pass
        else:
            raise CheckFailure(f"A queue of {_NUM_ACCEPTED} took one more request.")
        outputs = faulty.finish().outputs
    after = f"With {_NUM_AT_ONCE} requests in a step, of which this is one"
    look = "backend.plan, ops.paged_attention"
    for request_id, output in outputs.items():
        calm.outputs[request_id] = calm.outputs[kind_of[request_id]]
        expect_undisturbed(subject, {request_id: output}, after, look, calm)


def _abort_cases(subject: Subject) -> Iterable[Case]:
    yield Case("in prefill", _abort_in_prefill, quick=False)
    yield Case("in decode", _abort_in_decode, quick=False)
    unclaimed = None if subject.caps.host_swap else "caps.host_swap is False"
    if unclaimed is None and _swap_block_size(subject) is None:
        unclaimed = f"caps.block_sizes has none of {min(_BLOCK_SIZES)} to {max(_BLOCK_SIZES)}"
    yield Case("while swapped out", _abort_while_swapped, unclaimed)


def _abort(subject: Subject, case: Callable[[Subject], None]) -> None:
    case(subject)


def _abort_in_prefill(subject: Subject) -> None:
    long = (range(100, 114), LATER["later"][1])  # several chunks
    with FaultyEngine.open(subject) as faulty:
        faulty.add({"aborted": long, **REQUESTS})
        faulty.engine.step()
        faulty.engine.abort(["aborted"])
        _expect_others(subject, faulty, "After a request was aborted in the midst of its prompt")


def _abort_in_decode(subject: Subject) -> None:
    with FaultyEngine.open(subject) as faulty:
        faulty.add(REQUESTS)
        for _ in range(_NUM_STEPS_TO_DECODE):
            faulty.engine.step()
        faulty.engine.abort(["short"])
        _expect_others(subject, faulty, "After a request was aborted in the midst of its answer")


def _expect_others(subject: Subject, faulty: FaultyEngine, after: str) -> None:
    outputs = {**faulty.finish().outputs, **faulty.serve(LATER).outputs}
    outputs.pop("aborted", None)
    expect_undisturbed(subject, outputs, after, "backend.plan, backend.compile")


def _abort_while_swapped(subject: Subject) -> None:
    """Its blocks on the host are never read back, and are used again by the next request."""
    block_size = _swap_block_size(subject) or 0
    first, second = _wave(block_size, first_token=1), _wave(block_size, first_token=101)
    bytes_per_token = KVSpec("full", 2, 16, Precision.best(subject.caps).kv_dtype).bytes_per_token
    with FaultyEngine.open(
        subject,
        block_size=block_size,
        max_model_len=2 * block_size,
        kv_cache_memory_bytes=(_NUM_TIGHT_BLOCKS + 1) * block_size * 2 * bytes_per_token,
        preemption_mode="swap",
        swap_space=_NUM_TIGHT_BLOCKS * block_size * 2 * bytes_per_token / (1 << 30),
        enable_prefix_caching=False,
    ) as faulty:
        calm = Finished()
        for name, request in second.items():  # one at a time there are blocks for all
            calm.outputs.update(faulty.serve({name: request}).outputs)
        faulty.add(first)
        _step_until_swapped(faulty)
        faulty.engine.abort(list(first))
        faulty.engine.scheduler.check_integrity()
        faulty.add(second)
        _step_until_swapped(faulty)
        after = "After a request was aborted while its blocks were on the host, and others came"
        found = faulty.finish().outputs
    expect_undisturbed(subject, found, after, "backend.copy_blocks", calm)


def _swap_block_size(subject: Subject) -> int | None:
    return next((size for size in sorted(subject.caps.block_sizes) if size in _BLOCK_SIZES), None)


def _wave(block_size: int, first_token: int) -> Requests:
    """Three requests that start with a block each, and soon need a second one."""
    length = block_size - 2
    return {
        f"{first_token} {number}": (
            [(first_token + 7 * number + 3 * place) % MARKED_TOKEN for place in range(length)],
            replace(LATER["later"][1], max_tokens=_NUM_WAVE_TOKENS),
        )
        for number in range(_NUM_TIGHT_BLOCKS - 1)
    }


def _step_until_swapped(faulty: FaultyEngine) -> None:
    for _ in range(_NUM_STEPS_TO_SWAP):
        if faulty.engine.scheduler.num_swapped:
            return
        faulty.engine.step()
    raise RuntimeError("No request was ever swapped out: a fault of the suite's.")


CHECKS: tuple[Check, ...] = (
    Check(
        "faults",
        "overload",
        "a full engine computes what a quiet one does, and refuses what it cannot take",
        "backend.plan, ops.paged_attention",
        _check_overload,
    ),
    Check(
        "faults",
        "abort",
        "a request that is aborted takes nothing with it",
        "backend.copy_blocks",
        _abort,
        _abort_cases,
    ),
)
