"""What a kernel throws on any thread reaches the caller as an error, and the threads carry on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tests.native.special_library import build_library, contexts_use

from octavo.api import BackendError
from octavo_cpu.native.instruction import INSTRUCTION
from octavo_cpu.native.library import Context

CALLER, WORKER, EVERY = 0, 1, 2
FAULTS = {
    1: "out of memory",
    2: "the kernel is broken",
    3: "something was thrown that is no std::exception",
}


@pytest.fixture(scope="module", autouse=True)
def _faulty_library(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    kernels = repo_root / "backends/cpu/kernels"
    with contexts_use(build_library(kernels, "faulty", tmp_path_factory.mktemp("faulty"))):
        yield


class Program:
    """An instruction for each (fault, thread) in ``steps``; ``done`` says which chunks were."""

    def __init__(self, num_chunks: int, *steps: tuple[int, int]) -> None:
        self.done = np.zeros((len(steps), num_chunks), np.uint8)
        self.pointers = np.array([row.ctypes.data for row in self.done], np.uint64)
        self.code = np.zeros(len(steps), INSTRUCTION)
        self.code["operands"][:, 0] = np.arange(len(steps))
        self.code["sizes"][:, 0] = num_chunks
        self.code["sizes"][:, 1:3] = steps


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("num_threads", "thread", "num_done"),
    [(1, CALLER, 0), (2, CALLER, 1), (2, WORKER, 1), (2, EVERY, 0)],
)
def test_a_fault_ends_the_step_and_not_the_process(
    fault: int, num_threads: int, thread: int, num_done: int
) -> None:
    with closing(Context(num_threads)) as context:
        for _ in range(3):
            failing = Program(num_threads, (0, 0), (fault, thread), (0, 0))
            with pytest.raises(BackendError, match=f"^Instruction 1 of .*: {FAULTS[fault]}\\.$"):
                context.run(failing.code, failing.pointers)
            assert failing.done[0].all()
            assert failing.done[1].sum() == num_done  # the other threads' chunks
            assert not failing.done[2].any()
            sound = Program(num_threads, (0, 0), (0, 0))
            context.run(sound.code, sound.pointers)
            assert sound.done.all()
