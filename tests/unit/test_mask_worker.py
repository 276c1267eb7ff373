"""Masks computed during the forward pass: the same tokens, and nothing left behind by a fault."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading

import numpy as np
import pytest

from octavo import SamplingParams
from octavo.mask_worker import MaskWorker
from octavo.token_mask import TokenMask
from structured_models import ask, byte_level_folder, open_llm

SEEDS = range(8)
PARAMS = SamplingParams(
    max_tokens=12, logprobs=2, prompt_logprobs=1, structured_outputs={"regex": "[a-f]{3,9}"}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return byte_level_folder(tmp_path_factory.mktemp("masks"))


def whole_steps(monkeypatch):
    """NumPy, as a backend that takes whole steps only."""
    from octavo_cpu.backend import NumpyBackend

    caps = dataclasses.replace(NumpyBackend.caps, separate_sampling=False)
    monkeypatch.setattr(NumpyBackend, "caps", caps)


def answers(folder):
    llm = open_llm(folder)
    try:
        found = ask(llm, PARAMS, SEEDS)
        several = ask(llm, dataclasses.replace(PARAMS, n=3), [1])
        return llm, found, several
    finally:
        llm.close()


def test_a_step_in_parts_draws_what_a_whole_one_does(folder, monkeypatch):
    llm, parts, parts_of_three = answers(folder)
    assert llm.loaded.engine.runner._step.has_parts
    with monkeypatch.context() as patch:
        whole_steps(patch)
        llm, whole, whole_of_three = answers(folder)
    assert not llm.loaded.engine.runner._step.has_parts
    assert parts == whole
    assert parts_of_three == whole_of_three


class Slow(TokenMask):
    """Says when it is asked, and answers when it may."""

    def __init__(self, error=None):
        self.asked, self.may_answer = threading.Event(), threading.Event()
        self.error = error

    def allowed(self):
        self.asked.set()
        assert self.may_answer.wait(60)
        if self.error is not None:
            raise self.error
        return np.array([True, False])

    def accept(self, token_id):
        pass

    def fork(self):
        return self


def test_masks_are_computed_elsewhere_and_waited_for():
    worker, mask = MaskWorker(2), Slow()
    assert worker.begin([None, None]) is None
    pending = worker.begin([None, mask])
    assert mask.asked.wait(60)  # while this thread goes on
    mask.may_answer.set()
    assert pending.result().tolist() == [[True, True], [True, False]]
    worker.close()
    again = Slow()
    again.may_answer.set()
    assert worker.begin([again]).result().tolist() == [[True, False]]
    worker.close()


def test_what_a_mask_raises_is_raised_where_its_rows_are_sampled():
    worker, mask = MaskWorker(2), Slow(ValueError("no"))
    mask.may_answer.set()
    pending = worker.begin([mask])
    pending.wait()
    with pytest.raises(ValueError, match="no"):
        pending.result()
    worker.close()


def test_a_forward_pass_that_fails_waits_for_the_masks(folder, monkeypatch):
    """They are asked again in the step that follows, and must not be asked by two threads."""
    llm = open_llm(folder)
    step, failures = llm.loaded.engine.runner._step, []
    forward = step.forward
    waited = []

    def fails_once(*inputs):
        if not failures:
            failures.append(True)
            raise RuntimeError("a kernel failed")
        waited.append(True)
        return forward(*inputs)

    monkeypatch.setattr(step, "forward", fails_once)
    [answer] = ask(llm, PARAMS, [3])
    assert failures
    assert waited
    [again] = ask(llm, PARAMS, [3])
    assert answer == again
    llm.close()


def test_a_mask_that_hangs_does_not_keep_a_process_alive():
    program = """
import time
from octavo.mask_worker import MaskWorker
from octavo.token_mask import TokenMask

class Hanging(TokenMask):
    def allowed(self):
        time.sleep(600)
    def accept(self, token_id): ...
    def fork(self): ...

worker = MaskWorker(2)
worker.begin([Hanging()])
worker.close()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
