"""A thread that is waited for and has no core gets that of who waits, and its freedom back."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.native.special_library import build_library, contexts_use

from octavo_cpu.native.instruction import INSTRUCTION
from octavo_cpu.native.library import Context

if sys.platform != "linux":
    pytest.skip("only Linux lets threads be moved", allow_module_level=True)
NUM_CORES = len(os.sched_getaffinity(0))
if NUM_CORES < 2:
    pytest.skip("needs two cores", allow_module_level=True)

CALLER, WORKER, NOBODY = 0, 1, 2
STALL_MS = 30


@pytest.fixture(scope="module", autouse=True)
def _stalled_library(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    kernels = repo_root / "backends/cpu/kernels"
    with contexts_use(build_library(kernels, "stalled", tmp_path_factory.mktemp("stalled"))):
        yield


def run(context: Context, *stalled: int) -> NDArray[np.int32]:
    """Who computed a chunk, and on how many cores it could run: i32[instructions, chunks, 2]."""
    out = np.full((len(stalled), 2, 2), -1, np.int32)
    code = np.zeros(len(stalled), INSTRUCTION)
    code["operands"][:, 0] = np.arange(len(stalled))
    code["sizes"][:, 0] = 2
    code["sizes"][:, 1] = stalled
    code["sizes"][:, 2] = STALL_MS
    context.run(code, np.array([chunks.ctypes.data for chunks in out], np.uint64))
    return out


def num_cores_of(who: int, chunks: NDArray[np.int32]) -> NDArray[np.int32]:
    """On how many cores it could run in each instruction, of which it has computed a chunk."""
    assert (np.sort(chunks[:, :, 0]) == [CALLER, WORKER]).all()
    return chunks[chunks[:, :, 0] == who][:, 1]


def all_threads_are_free() -> bool:
    threads = (int(folder.name) for folder in Path("/proc/self/task").iterdir())
    return {len(os.sched_getaffinity(thread)) for thread in threads} == {NUM_CORES}


@pytest.mark.parametrize("stalled", [CALLER, WORKER])
def test_who_waits_gives_its_core_up_until_the_chunk_is_done(stalled: int) -> None:
    with closing(Context(2)) as context:
        runs = [run(context, NOBODY, stalled, stalled, NOBODY) for _ in range(5)]
        num_cores = [num_cores_of(stalled, chunks)[1:3] for chunks in runs]
        assert 1 in np.stack(num_cores)  # not in all: who waits may have no core to give either
        assert len(os.sched_getaffinity(0)) == NUM_CORES
        deadline_s = time.monotonic() + 10
        while not all_threads_are_free():  # the worker is not waited for
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def test_with_more_threads_than_cores_nobody_is_moved() -> None:
    with closing(Context(NUM_CORES + 1)) as context:
        chunks = run(context, CALLER, WORKER, NOBODY)
    assert (chunks[:, :, 0] >= 0).all()
    assert (chunks[:, :, 1] == NUM_CORES).all()  # both may be of workers
