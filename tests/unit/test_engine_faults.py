"""Faults in a step: the request that fails alone ends with an error, and nobody else notices."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from drawing_backend import POISON, DrawingBackend, EveryOther
from hypothesis import given, settings
from hypothesis import strategies as st
from null_engine import VOCAB_SIZE, make_engine

from octavo.errors import BackendError
from octavo.sampling_params import RequestOutputKind, SamplingParams

IN_A_STEP = ("put", "get", "plan", "step", "after_step")


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request as a test makes it."""

    prompt: list[int]
    max_tokens: int = 8
    n: int = 1
    temperature: float = 1.0
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    masked: bool = False
    kind: RequestOutputKind = RequestOutputKind.FINAL_ONLY

    def add_to(self, engine, request_id):
        params = SamplingParams(
            n=self.n,
            temperature=self.temperature if self.n == 1 else 1.0,
            seed=self.seed,
            max_tokens=self.max_tokens,
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            detokenize=False,
            output_kind=self.kind,
        )
        mask = EveryOther() if self.masked else None
        engine.add_request(request_id, self.prompt, params, token_mask=mask)


@dataclasses.dataclass
class Got:
    """All that was delivered for a request, pieces put together."""

    token_ids: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    logprobs: dict[int, list] = dataclasses.field(default_factory=dict)
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)
    prompt_logprobs: list | None = None
    error: str | None = None

    def take(self, output, *, is_delta):
        for answer in output.outputs:
            kept = (self.token_ids, self.logprobs)
            for store, values in zip(kept, (answer.token_ids, answer.logprobs or []), strict=True):
                before = store.get(answer.index, []) if is_delta else []
                store[answer.index] = before + list(values)
            if answer.finish_reason is not None:
                self.reasons[answer.index] = answer.finish_reason
        self.prompt_logprobs = output.prompt_logprobs
        self.error = output.error


def collect(engine, asked, max_steps=5000):
    """Step to the end, with every invariant checked after each step."""
    got = {name: Got() for name in asked}
    for _ in range(max_steps):
        if not engine.has_unfinished_requests:
            break
        for output in engine.step():
            kind = asked[output.request_id].kind
            got[output.request_id].take(output, is_delta=kind is RequestOutputKind.DELTA)
        engine.scheduler.check_integrity()
    assert not engine.has_unfinished_requests, "it does not end"
    for group in engine.scheduler.stats.groups:
        assert (group.num_used, group.num_host_used) == (0, 0)
    return got


def answers(asked, fault=None, windows=(None,), **options):
    """What a new engine answers, with ``fault(engine)`` giving what its backend calls."""
    backend = DrawingBackend(windows)
    engine = make_engine(windows, backend=backend, **options)
    if fault is not None:
        backend.fault = fault(engine)
    for name, request in asked.items():
        request.add_to(engine, name)
    return collect(engine, asked)


def failing_at(calls, member, error=RuntimeError):
    """Fails in these calls of a member (counted from 0), as long as the batch runs together."""

    def fault(engine):
        count = iter(range(1 << 30))

        def meet(called):
            if called == member and engine._recovery.suspect is None and next(count) in calls:
                raise error("injected")

        return meet

    return fault


MIXED = {
    "greedy": Asked([1, 2, 3], temperature=0),
    "seeded": Asked(list(range(40)), seed=7, logprobs=1),
    "forks": Asked([5, 6, 7, 8, 9], n=3, logprobs=1),
    "prompt": Asked(list(range(60, 97)), prompt_logprobs=1),
    "masked": Asked([11] * 9, masked=True),
    "masked forks": Asked([12] * 9, masked=True, n=2),
    "stream": Asked([13] * 20, kind=RequestOutputKind.DELTA, logprobs=0, max_tokens=12),
    "whole": Asked([1, 2, 3, 4], kind=RequestOutputKind.CUMULATIVE, n=2),
}


@pytest.mark.parametrize("member", IN_A_STEP)
@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_a_passing_fault_costs_nobody_a_token(member, error):
    undisturbed = answers(MIXED)
    for first in range(0, 9, 2):
        assert answers(MIXED, failing_at({first, first + 5}, member, error)) == undisturbed


def test_the_request_whose_steps_fail_ends_and_no_other():
    asked = dict(MIXED, bad=Asked([3, POISON, 4]), late=Asked([POISON] * 50))
    got = answers(asked)
    undisturbed = answers(MIXED)
    for name in ("bad", "late"):
        assert got[name].reasons == {0: "error"}
        assert "ValueError: a poisoned token" in got[name].error
        assert "Other requests are not affected" in got[name].error
    # Request keys count requests, so the same ones are drawn for.
    assert {name: got[name] for name in MIXED} == undisturbed


@pytest.mark.parametrize(("preemption_mode", "num_answers"), [("swap", 1), ("recompute", 2)])
def test_a_failed_copy_costs_nobody_a_token(preemption_mode, num_answers, caplog):
    options = {
        "num_cache_tokens": 200,
        "preemption_mode": preemption_mode,
        "swap_space": 0.001,
        "max_model_len": 128,
    }
    asked = {str(i): Asked([i] * 30, max_tokens=40, n=num_answers) for i in range(8)}
    undisturbed = answers(asked, **options)
    copied = answers(asked, failing_at({0}, "copy_blocks"), **options)
    assert copied == undisturbed
    assert ("recomputed from now on" in caplog.text) == (preemption_mode == "swap")


def always(member, error=RuntimeError):
    def fault(_engine):
        def meet(called):
            if called == member:
                raise error("gone")

        return meet

    return fault


def test_a_dead_device_ends_everybody_soon():
    backend = DrawingBackend()
    engine = make_engine(backend=backend, max_num_seqs=4)
    asked = {str(i): Asked([i] * 5) for i in range(12)}
    for name, request in asked.items():
        request.add_to(engine, name)
    engine.step()
    backend.fault = always("plan")(engine)
    got = collect(engine, asked, max_steps=20)
    assert all(one.reasons == {0: "error"} for one in got.values())
    assert all("RuntimeError: gone" in one.error for one in got.values())
    assert "device itself" in got["3"].error
    assert engine.failure is None  # it may come back
    backend.fault = None
    again = {"again": Asked([1, 2], temperature=0)}
    again["again"].add_to(engine, "again")
    assert collect(engine, again) == answers(again)


def test_a_backend_that_cannot_make_caches_again_stops_the_engine():
    backend = DrawingBackend()
    engine = make_engine(backend=backend)
    asked = {str(i): Asked([i] * 5) for i in range(12)}
    for name, request in asked.items():
        request.add_to(engine, name)
    engine.step()
    plan, make = always("plan")(engine), always("make_kv", MemoryError)(engine)
    backend.fault = lambda member: (plan(member), make(member))
    got = collect(engine, asked, max_steps=1)
    assert all(one.reasons == {0: "error"} for one in got.values())
    assert all("could not make new caches" in one.error for one in got.values())
    with pytest.raises(BackendError, match=r"'late' was refused.*make_kv.*MemoryError"):
        Asked([1]).add_to(engine, "late")
    assert engine.step() == []


def test_a_batch_that_is_too_large_is_made_smaller(caplog):
    class Small(DrawingBackend):
        largest = 0

        def plan(self, batch, block_size):
            if len(batch.seq_lens) > 3:
                raise MemoryError("too many")
            self.largest = max(self.largest, len(batch.seq_lens))
            return super().plan(batch, block_size)

    asked = {str(i): Asked([i] * 5, max_tokens=30) for i in range(16)}
    backend = Small()
    engine = make_engine(backend=backend)
    for name, request in asked.items():
        request.add_to(engine, name)
    assert collect(engine, asked) == answers(asked)
    assert backend.largest in (2, 3)
    assert caplog.text.count("keep failing") <= 3


def test_aborting_while_suspects_are_tried():
    backend = DrawingBackend()
    engine = make_engine(backend=backend)
    asked = {str(i): Asked([i] * 40, max_tokens=30) for i in range(6)}
    for name, request in asked.items():
        request.add_to(engine, name)
    backend.fault = failing_at({3}, "step")(engine)
    while engine._recovery.suspect is None:
        engine.step()
    engine.step()
    suspect = engine._recovery.suspect.request_id
    [gone] = engine.abort([suspect])
    assert gone.outputs[0].finish_reason == "abort"
    engine.scheduler.check_integrity()
    got = collect(engine, asked)
    undisturbed = answers(asked)
    assert all(got[name] == undisturbed[name] for name in asked if name != suspect)


def test_new_requests_wait_while_suspects_are_tried():
    backend = DrawingBackend()
    engine = make_engine(backend=backend)
    asked = {str(i): Asked([i] * 40) for i in range(5)}
    for name in "0123":
        asked[name].add_to(engine, name)
    backend.fault = failing_at({0}, "step")(engine)
    engine.step()
    asked["4"].add_to(engine, "4")
    assert collect(engine, asked) == answers(asked)


class Once:
    """Spoils one token of a step, once; ``when`` looks at the tokens of the step."""

    def __init__(self, token_id, when=lambda token_ids: True):
        self.token_id, self.when = token_id, when

    def __call__(self, token_ids):
        spoilt = (token_ids == self.token_id) & self.when(token_ids)
        if spoilt.any():
            self.token_id = -1
        return spoilt


PREFIX = list(range(100, 120))


def test_what_a_request_with_nan_has_computed_is_no_prefix_for_others():
    backend = DrawingBackend()
    backend.spoils = Once(103)
    engine = make_engine(backend=backend)
    asked = {"bad": Asked(PREFIX), "good": Asked([*PREFIX, 1])}
    got = {}
    for name, request in asked.items():  # one after the other has ended
        request.add_to(engine, name)
        got.update(collect(engine, {name: request}))
    assert got["bad"].reasons == {0: "error"}
    assert "hold NaN" in got["bad"].error
    assert got["good"] == answers(asked)["good"]
    assert engine.scheduler.stats.num_recompute_preemptions == 0  # it found nothing to begin with


@pytest.mark.parametrize("num_answers", [1, 3])
def test_a_request_that_finds_nan_in_a_cached_prefix_computes_it_itself(num_answers):
    backend = DrawingBackend()
    backend.spoils = Once(103)
    engine = make_engine(backend=backend, max_num_batched_tokens=8)  # the first takes three steps
    asked = {
        "bad": Asked([*PREFIX, 7, 8]),
        "good": Asked([*PREFIX[:12], 9, 9], n=num_answers, masked=True),
    }
    asked["bad"].add_to(engine, "bad")
    engine.step()
    engine.step()
    asked["good"].add_to(engine, "good")
    got = collect(engine, asked)
    assert "hold NaN" in got["bad"].error
    assert got["good"] == answers(asked)["good"]


def test_nan_that_comes_back_ends_a_request_though_it_had_found_a_prefix():
    backend = DrawingBackend()
    backend.spoils = lambda token_ids: token_ids == 5
    engine = make_engine(backend=backend)
    asked = {"good": Asked(PREFIX, max_tokens=20), "bad": Asked([*PREFIX, 5])}
    asked["good"].add_to(engine, "good")
    engine.step()
    asked["bad"].add_to(engine, "bad")
    got = collect(engine, asked)
    assert "hold NaN" in got["bad"].error
    assert got["good"].reasons == {0: "length"}


class Stuck:
    """A step that hangs until it is let go."""

    def __init__(self):
        self.released = threading.Event()

    def __call__(self, member):
        if member == "step":
            self.released.wait(60)


@pytest.fixture
def stuck():
    stuck = Stuck()
    yield stuck
    stuck.released.set()


def test_a_hanging_step_ends_everybody_with_the_reason(stuck):
    backend = DrawingBackend()
    engine = make_engine(backend=backend, step_timeout_s=0.2, max_num_seqs=2)
    asked = {str(i): Asked([i] * 5) for i in range(4)}
    for name, request in asked.items():
        request.add_to(engine, name)
    engine.step()
    backend.fault = stuck
    got = collect(engine, asked, max_steps=2)
    assert all("step_timeout_s" in one.error for one in got.values())
    assert all(len(got[name].token_ids[0]) == 1 for name in "01")  # what they had
    assert engine.is_hung
    with pytest.raises(BackendError, match="step hangs"):
        Asked([1]).add_to(engine, "late")
    with pytest.raises(BackendError, match="step_timeout_s=None comes too late"):
        engine.step_timeout_s = None
    assert engine.is_hung
    engine.close()


def test_a_time_limit_changes_nothing_else():
    undisturbed = answers(MIXED)
    assert answers(MIXED, step_timeout_s=60) == undisturbed
    assert answers(MIXED, failing_at({3}, "step"), step_timeout_s=60) == undisturbed
    with pytest.raises(ValueError, match="step_timeout_s=0"):
        make_engine(step_timeout_s=0)


def test_tokens_outside_the_vocabulary_are_a_fault_of_the_step():
    class Outside(DrawingBackend):
        def get(self, array):
            values = super().get(array)
            if values.dtype == np.int32 and values.ndim == 1 and 77 in self.seen:
                return values + VOCAB_SIZE
            return values

        def plan(self, batch, block_size):
            self.seen = batch.token_ids
            return super().plan(batch, block_size)

    backend = Outside()
    engine = make_engine(backend=backend)
    asked = {"good": Asked([1, 2]), "bad": Asked([77])}
    for name, request in asked.items():
        request.add_to(engine, name)
    got = collect(engine, asked)
    assert got["good"].reasons == {0: "length"}
    assert f"the model knows 0 to {VOCAB_SIZE - 1}" in got["bad"].error


def test_a_token_mask_that_raises_ends_its_request_only():
    class Broken(EveryOther):
        def accept(self, token_id):
            if self.num_accepted == 2:
                raise KeyError("state")
            super().accept(token_id)

        def fork(self):
            return Broken(self.num_accepted)

    engine = make_engine(backend=DrawingBackend())
    asked = {"good": Asked([1, 2]), "bad": Asked([3], n=3)}
    asked["good"].add_to(engine, "good")
    params = SamplingParams(n=3, temperature=1, max_tokens=9, detokenize=False)
    engine.add_request("bad", [3], params, token_mask=Broken())
    got = collect(engine, asked)
    assert got["good"] == answers({"good": asked["good"]})["good"]
    assert "KeyError" in got["bad"].error


requests = st.builds(
    Asked,
    prompt=st.builds(
        lambda head, tail: head + tail,
        st.sampled_from([list(range(20)), [1, 2, 3, 4, 5], [9]]),
        st.lists(st.integers(0, POISON - 1), max_size=12),
    ),
    max_tokens=st.integers(1, 14),
    n=st.sampled_from([1, 1, 1, 2, 3]),
    temperature=st.sampled_from([0, 1]),
    seed=st.sampled_from([None, 3]),
    logprobs=st.sampled_from([None, 1]),
    prompt_logprobs=st.sampled_from([None, None, 1]),
    masked=st.booleans(),
    kind=st.sampled_from(list(RequestOutputKind)),
)
engines = st.fixed_dictionaries(
    {
        "windows": st.sampled_from([(None,), (None, 6)]),
        "num_cache_tokens": st.sampled_from([128, 4096]),
        "preemption_mode": st.sampled_from(["swap", "recompute"]),
        "enable_prefix_caching": st.booleans(),
        "max_num_seqs": st.sampled_from([2, 8]),
        "max_num_batched_tokens": st.sampled_from([8, 32]),
        "max_model_len": st.just(64),
        "swap_space": st.just(0.001),
    }
)
members = st.sampled_from([*IN_A_STEP, "copy_blocks"])


@settings(deadline=None, max_examples=60)
@given(st.lists(requests, min_size=1, max_size=7), engines, members, st.sets(st.integers(0, 25)))
def test_random_passing_faults_cost_nobody_a_token(asked, options, member, calls):
    asked = {str(i): request for i, request in enumerate(asked)}
    assert answers(asked, failing_at(calls, member), **options) == answers(asked, **options)


@settings(deadline=None, max_examples=60)
@given(st.lists(requests, min_size=1, max_size=7), engines, members, st.sets(st.integers(0, 60)))
def test_whatever_fails_it_ends_and_leaks_nothing(asked, options, member, calls):
    asked = {str(i): request for i, request in enumerate(asked)}
    undisturbed = answers(asked, **options)

    def fault(_engine):
        count = iter(range(1 << 30))

        def meet(called):
            if called == member and next(count) in calls:
                raise RuntimeError("injected")

        return meet

    for name, one in answers(asked, fault, **options).items():
        if one.error is None:
            assert one == undisturbed[name]
        else:
            assert "injected" in one.error
            for index, token_ids in one.token_ids.items():
                whole = undisturbed[name].token_ids[index]
                assert token_ids == whole[: len(token_ids)]
