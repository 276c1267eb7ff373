"""The threads: every chunk runs once, whoever takes it, and whatever goes on beside."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.native.kernel_case import runnable_variants

from octavo.api import BackendError, DeviceError
from octavo_cpu.native.instruction import INSTRUCTION, Element, Opcode
from octavo_cpu.native.library import Context

pytestmark = pytest.mark.parametrize("variant", runnable_variants()[:1])

ROW, CHUNKS = 32768, 13  # one row of this length is a chunk of `copy`


class Step:
    """A program that adds ``x + x`` in many chunks, then takes a row of it, over and over."""

    def __init__(self, num_chunks: int = CHUNKS, repeats: int = 20, seed: int = 0) -> None:
        self.x = np.random.default_rng(seed).standard_normal((num_chunks, ROW), np.float32)
        self.out = np.empty_like(self.x)
        self.row = np.empty((1, ROW), np.float32)
        last = np.full(1, num_chunks - 1, np.int32)
        arrays = [self.x, self.out, last, self.row]
        self._alive = arrays
        self.pointers = np.array([array.ctypes.data for array in arrays], np.uint64)
        program = np.zeros(2 * repeats, INSTRUCTION)
        program["element"], program["operands"] = Element.F32, -1
        adds, takes = program[::2], program[1::2]
        adds["opcode"], takes["opcode"] = Opcode.ADD, Opcode.TAKE_ROWS
        adds["operands"][:, :3] = 0, 0, 1
        adds["sizes"][:, :4] = num_chunks, ROW, ROW, ROW
        takes["operands"][:, :3] = 1, 2, 3
        takes["sizes"][:, :4] = 1, ROW, ROW, num_chunks
        self.program = program

    def run(self, context: Context) -> None:
        self.out.fill(np.nan)
        self.row.fill(np.nan)
        context.run(self.program, self.pointers)
        expected: NDArray[np.float32] = self.x + self.x
        np.testing.assert_array_equal(self.out, expected)
        np.testing.assert_array_equal(self.row, expected[-1:])


@pytest.mark.parametrize("num_threads", [1, 2, 3, 64])
def test_all_chunks_run(variant: str, num_threads: int) -> None:
    with closing(Context(num_threads, variant)) as context:
        for num_chunks in (1, 2, CHUNKS):
            step = Step(num_chunks)
            for _ in range(20):
                step.run(context)


def test_many_contexts_compute_side_by_side(variant: str) -> None:
    def compute(seed: int) -> None:
        with closing(Context(2, variant)) as context:
            step = Step(3, seed=seed)
            for _ in range(10):
                step.run(context)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(compute, range(24)))


def test_one_context_serves_several_threads_in_turn(variant: str) -> None:
    with closing(Context(2, variant)) as context, ThreadPoolExecutor(4) as pool:
        steps = [Step(4, seed=seed) for seed in range(4)]
        for _ in range(10):
            list(pool.map(lambda step: step.run(context), steps))


def test_close_waits_for_who_computes_and_refuses_who_comes_later(variant: str) -> None:
    context = Context(2, variant)
    has_begun = threading.Event()

    def compute() -> None:
        step = Step()
        while True:
            step.run(context)
            has_begun.set()

    with ThreadPoolExecutor(1) as pool:
        computing = pool.submit(compute)
        assert has_begun.wait(30)
        context.close()
        context.close()
        with pytest.raises(BackendError, match=r"ended by close\(\)"):
            computing.result(30)


def test_a_late_worker_is_not_waited_for(variant: str) -> None:
    """A chunk more than there are threads, twice in a row: who comes late finds a new job."""
    with closing(Context(3, variant)) as context:
        step = Step(2, repeats=500)
        for _ in range(5):
            step.run(context)


def test_a_profile_counts_from_its_start_to_its_stop(variant: str) -> None:
    with closing(Context(2, variant)) as context:
        step = Step(repeats=10)
        step.run(context)
        context.start_profile()
        step.run(context)
        step.run(context)
        totals = context.stop_profile()
        step.run(context)
        assert {opcode: total.calls for opcode, total in totals.items()} == {
            Opcode.ADD: 20,
            Opcode.TAKE_ROWS: 20,
        }
        assert list(totals) == [Opcode.ADD, Opcode.TAKE_ROWS]
        assert all(total.nanoseconds > 0 for total in totals.values())
        assert context.stop_profile() == totals
        context.start_profile()
        assert context.stop_profile() == {}


def test_an_instruction_set_that_is_not_there_is_refused(variant: str) -> None:
    del variant
    with pytest.raises(DeviceError, match=r"'sse'; it can run .*portable"):
        Context(1, "sse")
