"""How the NumPy backend shares work among threads, and when it lets BLAS do so."""

from __future__ import annotations

import itertools
import threading

import pytest

from octavo_cpu.row_products import ThreadChoice
from octavo_cpu.threads import Workers


def step(choice, seconds, rows=1):
    """One step of products that take so long in all; how many threads it ended with."""
    choice.start_step(rows)
    for _ in range(10):
        choice.note(seconds / 10)
    return choice.threads


def test_several_threads_are_tried_after_a_baseline_and_kept_while_they_are_quick():
    choice = ThreadChoice(2)
    assert [step(choice, 1.0) for _ in range(4)] == [1, 1, 1, 1]
    assert [step(choice, 0.7) for _ in range(50)] == [2] * 50


def test_a_stall_ends_at_once_and_the_pause_doubles():
    choice = ThreadChoice(2)
    tries = []
    for number in range(200):
        choice.start_step(1)
        stalls = choice.threads == 2
        spent = 0.0
        while spent < (20.0 if choice.threads == 2 else 1.0):
            choice.note(0.1)
            spent += 0.1
        if stalls:
            tries.append(number)
            assert spent < 2  # given up long before the 20 s that it would have taken
    gaps = [after - before for before, after in itertools.pairwise(tries)]
    assert gaps[:3] == sorted(gaps[:3])
    assert gaps[1] >= 2 * gaps[0] - 2
    assert len(tries) <= 5


def test_steps_of_many_rows_are_no_measure():
    choice = ThreadChoice(2)
    for _ in range(4):
        step(choice, 1.0)
    assert step(choice, 0.7) == 2
    assert step(choice, 500.0, rows=0) == 2
    assert step(choice, 0.7) == 2


def test_one_thread_is_never_more():
    choice = ThreadChoice(1)
    assert {step(choice, 1.0) for _ in range(20)} == {1}


def test_every_task_is_done_once_whatever_the_number_of_threads():
    for count in (1, 2, 3):
        workers = Workers(count)
        done = []
        workers.run(done.append, range(100))
        assert sorted(done) == list(range(100))
        workers.close()


def test_a_thread_that_is_late_is_not_waited_for():
    workers = Workers(2)
    blocked = threading.Event()
    workers._pool.submit(blocked.wait)  # the helper is busy with something else
    done = []
    workers.run(done.append, range(10))  # would wait for ever
    assert done == list(range(10))
    blocked.set()
    workers.close()


def test_an_error_in_a_task_reaches_the_caller_and_ends_the_rest():
    workers = Workers(2)

    def fail(task):
        raise ValueError(f"task {task}")

    with pytest.raises(ValueError, match="task"):
        workers.run(fail, range(10))
    done = []
    workers.run(done.append, range(3))
    assert sorted(done) == [0, 1, 2]
    workers.close()
