"""An engine asleep: what it gives back, what it refuses, and that it answers as before."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import weakref

import numpy as np
import pytest
from null_engine import answer, make_engine

from octavo.errors import BackendError, UsageError
from octavo.sampling_params import SamplingParams
from structured_models import byte_level_folder, open_llm

GREEDY = SamplingParams(temperature=0, max_tokens=6, detokenize=False, ignore_eos=True)
MIB = 1 << 20


@pytest.fixture
def llm(tmp_path):
    llm = open_llm(byte_level_folder(tmp_path))
    yield llm
    llm.close()


def arrays_of(value):
    """Every array in a tree of dataclasses, tuples and lists."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from arrays_of(part)
    else:
        names = [*getattr(value, "__dict__", ()), *getattr(value, "__slots__", ())]
        for name in names:
            yield from arrays_of(getattr(value, name))


def watch(value):
    arrays = list(arrays_of(value))
    assert arrays
    return [weakref.ref(array) for array in arrays]


def num_alive(references):
    return sum(reference() is not None for reference in references)


def test_level_1_lets_go_of_the_caches_and_keeps_the_weights(llm):
    engine = llm.loaded.engine
    caches, weights = watch(engine.runner.store.caches), watch(engine.runner._device_step.weights)
    engine.sleep(1)
    assert num_alive(caches) == 0
    assert num_alive(weights) == len(weights)


def test_level_2_lets_go_of_both(llm):
    engine = llm.loaded.engine
    held = watch(engine.runner.store.caches) + watch(engine.runner._device_step.weights)
    llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)
    engine.sleep(2)
    assert num_alive(held) == 0


@pytest.mark.parametrize("levels", [[1], [2], [1, 2], [2, 1], [2, 2]])
def test_awake_again_the_answers_are_the_same(llm, levels):
    before = llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)[0].outputs[0].token_ids
    engine = llm.loaded.engine
    for level in levels:
        assert engine.sleep(level) == []
    with pytest.raises(BackendError, match=f"sleeps \\(level {max(levels)}\\)"):
        llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)
    engine.wake_up()
    engine.wake_up()
    assert not engine.is_sleeping
    assert llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)[0].outputs[0].token_ids == before


def test_falling_asleep_ends_all_requests_and_forgets_prefixes():
    engine = make_engine(max_num_seqs=1)
    engine.add_request("runs", [1, 2, 3, 4, 5], GREEDY)
    engine.add_request("waits", [2, 3], GREEDY)
    engine.step()
    ended = {output.request_id: output for output in engine.sleep(1)}
    assert sorted(ended) == ["runs", "waits"]
    assert all("put to sleep" in output.error for output in ended.values())
    assert ended["runs"].outputs[0].token_ids == answer([1, 2, 3, 4, 5], 1, (None,))
    assert not engine.has_unfinished_requests
    engine.scheduler.check_integrity()
    [group] = engine.snapshot().stats.scheduler.groups
    assert (group.num_used, group.num_cached) == (0, 0)
    engine.wake_up()
    engine.add_request("again", [1, 2, 3, 4, 5], GREEDY)
    while engine.has_unfinished_requests:
        outputs = engine.step()
    assert outputs[0].outputs[0].token_ids == answer([1, 2, 3, 4, 5], 6, (None,))


def test_levels_that_cannot_be():
    engine = make_engine()
    for level in (0, 3, True, "1"):
        with pytest.raises(UsageError, match="not a level of sleep"):
            engine.sleep(level)
    with pytest.raises(UsageError, match="without a checkpoint"):
        engine.sleep(2)
    assert not engine.is_sleeping


def test_an_engine_that_cannot_wake_sleeps_on(llm, monkeypatch):
    engine = llm.loaded.engine
    engine.sleep(2)
    with monkeypatch.context() as patch:
        patch.setattr(type(llm.loaded.backend), "make_kv", _no_memory)
        with pytest.raises(UsageError, match="make_kv"):
            engine.wake_up()
    assert engine.is_sleeping
    engine.wake_up()
    assert len(llm.generate([[1, 2, 3]], GREEDY, use_tqdm=False)[0].outputs[0].token_ids) == 6


def _no_memory(*_args, **_options):
    raise MemoryError


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="other allocators than glibc's give memory back by themselves",
)
def test_freed_memory_goes_back_to_the_system():
    """In a process of its own: here, earlier tests have left memory that would be used again."""
    ran = subprocess.run(
        [sys.executable, "-c", _FREES_MEMORY], capture_output=True, text=True, check=True
    )
    taken, kept = (int(figure) for figure in ran.stdout.split())
    assert taken > 150 * MIB
    assert kept < 50 * MIB


_FREES_MEMORY = """
from pathlib import Path
import numpy as np
from octavo.freed_memory import return_freed_memory

MIB = 1 << 20

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

big = np.ones(40 * MIB, np.uint8)  # once freed, glibc keeps all that is smaller
del big
before_bytes = anonymous_bytes()
pieces = [np.ones(MIB, np.uint8) for _ in range(200)]
last = np.ones(MIB, np.uint8)  # or what lies before the end of the heap is given back anyway
taken = anonymous_bytes() - before_bytes
del pieces
return_freed_memory()
print(taken, anonymous_bytes() - before_bytes)
"""
