"""The engine over the NULL backend: answers must equal those computed without any paging."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np
import pytest
from null_engine import VOCAB_SIZE, answer, make_engine

from octavo.errors import CapacityError, QueueFullError, UsageError
from octavo.runner import Runner
from octavo.sampling_params import RequestOutputKind, SamplingParams
from octavo.scheduler import PreemptionCosts
from octavo.testing.null import NullBackend, NullModel


def greedy(max_tokens, **options):
    return SamplingParams(
        temperature=0,
        max_tokens=max_tokens,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **options,
    )


def run(engine):
    """All finished outputs by request id."""
    finished = {}
    while engine.has_unfinished_requests:
        for output in engine.step():
            engine.scheduler.check_integrity()
            if output.finished:
                finished[output.request_id] = output
    return finished


def requests(count, seed, max_prompt=60, max_output=40):
    draw = random.Random(seed)
    shared = [draw.randrange(VOCAB_SIZE) for _ in range(24)]
    for index in range(count):
        prompt = [draw.randrange(VOCAB_SIZE) for _ in range(draw.randint(1, max_prompt))]
        if index % 3 == 0:
            prompt = shared + prompt[: max_prompt - 24]
        yield prompt, draw.randint(1, max_output)


@pytest.mark.parametrize("windows", [(None,), (None, 10, 10), (6,)])
@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("num_cache_tokens", [4096, 160])
@pytest.mark.parametrize("preemption_mode", ["recompute", "swap"])
def test_answers_equal_those_without_paging(
    windows, prefix_caching, num_cache_tokens, preemption_mode
):
    engine = make_engine(
        windows,
        num_cache_tokens,
        enable_prefix_caching=prefix_caching,
        preemption_mode=preemption_mode,
        max_model_len=128,
        swap_space=0.001,
    )
    expected = {}
    for index, (prompt, num_tokens) in enumerate(requests(24, seed=num_cache_tokens)):
        engine.add_request(str(index), prompt, greedy(num_tokens))
        expected[str(index)] = answer(prompt, num_tokens, windows)
    outputs = run(engine)
    assert {key: output.outputs[0].token_ids for key, output in outputs.items()} == expected
    assert all(output.outputs[0].finish_reason == "length" for output in outputs.values())


def test_parallel_answers_share_the_prompt_and_go_their_own_ways():
    # The NULL backend ignores sampling, so all answers agree; what is tested is the paging.
    engine = make_engine((None, 10), num_cache_tokens=600, max_num_seqs=4)
    prompt = [5, 6, 7, 8, 9, 10]
    for index in range(3):
        params = SamplingParams(
            n=6,
            temperature=1.0,
            max_tokens=20,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        engine.add_request(str(index), [index, *prompt], params)
    outputs = run(engine)
    for index in range(3):
        answers = outputs[str(index)].outputs
        assert [a.index for a in answers] == list(range(6))
        assert {tuple(a.token_ids) for a in answers} == {
            tuple(answer([index, *prompt], 20, (None, 10)))
        }


@pytest.mark.parametrize("swap_is_cheap", [True, False])
def test_auto_preempts_by_what_costs_less(monkeypatch, swap_is_cheap):
    costs = PreemptionCosts(*((1.0, 1e-6) if swap_is_cheap else (1e-6, 1.0)))
    monkeypatch.setattr(Runner, "preemption_costs", costs)
    engine = make_engine(num_cache_tokens=160, max_model_len=128, swap_space=0.001)
    for index, (prompt, num_tokens) in enumerate(requests(12, seed=1)):
        engine.add_request(str(index), prompt, greedy(num_tokens))
    run(engine)
    stats = engine.scheduler.stats
    assert (stats.num_swap_preemptions > 0) == swap_is_cheap
    assert (stats.num_recompute_preemptions > 0) == (not swap_is_cheap)


def test_costs_are_measured(monkeypatch):
    engine = make_engine(swap_space=0.001)
    engine.add_request("a", [1] * 30, greedy(2))
    run(engine)
    costs = engine.runner.preemption_costs
    assert costs.seconds_per_recomputed_token > 0
    assert costs.seconds_per_swapped_block > 0


def test_a_backend_with_buckets_sees_no_other_shapes():
    shapes = set()

    class Bucketed(NullBackend):
        caps = dataclasses.replace(NullBackend.caps, token_buckets=(8, 16, 32), seq_buckets=(4, 8))

        def compile(self, step):
            inner = super().compile(step)

            def checked(weights, caches, batch, plans, sampling, prompt_targets):
                shapes.add((len(batch.token_ids), len(batch.seq_lens), len(batch.logits_rows)))
                assert len(sampling.temperature) == len(batch.logits_rows)
                assert (batch.groups[0].slots[batch.query_start[-1] :] == 0).all()
                return inner(weights, caches, batch, plans, sampling, prompt_targets)

            return checked

    engine = make_engine(
        (None, 10), backend=Bucketed(NullModel(VOCAB_SIZE, windows=(None, 10)), verify=True)
    )
    expected = {}
    for index, (prompt, num_tokens) in enumerate(requests(12, seed=3)):
        engine.add_request(str(index), prompt, greedy(num_tokens, logit_bias={5: 1.0}))
        expected[str(index)] = answer(prompt, num_tokens, (None, 10))
    outputs = run(engine)
    assert {key: output.outputs[0].token_ids for key, output in outputs.items()} == expected
    # There is always one row to spare, for the padding of adjustments.
    assert shapes <= {(tokens, seqs, seqs + 1) for tokens in (8, 16, 32) for seqs in (4, 8)}


@pytest.mark.parametrize("kind", list(RequestOutputKind))
def test_answers_that_end_at_different_steps_are_all_delivered(kind):
    class Random(NullBackend):
        def compile(self, step):
            inner = super().compile(step)

            def varied(weights, caches, batch, plans, sampling, targets):
                caches, result, prompt = inner(weights, caches, batch, plans, sampling, targets)
                ids = (sampling.uniform * VOCAB_SIZE).astype(np.int32)
                return caches, dataclasses.replace(result, token_ids=ids), prompt

            return varied

    engine = make_engine(backend=Random(NullModel(VOCAB_SIZE), verify=True))
    params = SamplingParams(
        n=5,
        temperature=1.0,
        max_tokens=60,
        detokenize=False,
        stop_token_ids=range(100),
        output_kind=kind,
    )
    engine.add_request("a", [1, 2, 3], params)
    delivered = []
    while engine.has_unfinished_requests:
        delivered += engine.step()
    last = delivered[-1]
    assert last.finished
    ends = [
        (answer.index, answer.finish_reason)
        for output in (delivered if kind is RequestOutputKind.DELTA else [last])
        for answer in output.outputs
        if answer.finished
    ]
    assert sorted(ends) == [(index, "stop") for index in range(5)]
    if kind is RequestOutputKind.FINAL_ONLY:
        assert len(delivered) == 1
    if kind is not RequestOutputKind.DELTA:
        lengths = {len(answer.token_ids) for answer in last.outputs}
        assert len(lengths) > 1  # or the test shows nothing
        assert all(answer.token_ids[-1] < 100 for answer in last.outputs)
        assert all(min(answer.token_ids[:-1], default=100) >= 100 for answer in last.outputs)


def test_deltas_add_up():
    engine = make_engine()
    params = SamplingParams(
        temperature=0, max_tokens=9, detokenize=False, output_kind=RequestOutputKind.DELTA
    )
    engine.add_request("a", [1, 2, 3], params)
    pieces = []
    while engine.has_unfinished_requests:
        pieces += [output.outputs[0].token_ids for output in engine.step()]
    assert all(len(piece) == 1 for piece in pieces)
    assert list(itertools.chain(*pieces)) == answer([1, 2, 3], 9, (None,))


def test_stop_token_ends_the_answer():
    expected = answer([1, 2, 3], 9, (None,))
    engine = make_engine()
    engine.add_request("a", [1, 2, 3], greedy(9, stop_token_ids=[expected[4]]))
    output = run(engine)["a"].outputs[0]
    assert output.token_ids == expected[: expected.index(expected[4]) + 1]
    assert (output.finish_reason, output.stop_reason) == ("stop", expected[4])


def test_abort_frees_everything():
    engine = make_engine()
    for index in range(12):
        engine.add_request(str(index), [index + 1] * 20, greedy(50))
    for _ in range(5):
        engine.step()
    aborted = engine.abort([str(index) for index in range(12)])
    assert {output.outputs[0].finish_reason for output in aborted} == {"abort"}
    assert not engine.has_unfinished_requests
    engine.scheduler.check_integrity()
    assert engine.scheduler.num_running == engine.scheduler.num_waiting == 0


def test_a_request_that_never_fits_is_refused_with_the_arithmetic():
    engine = make_engine(num_cache_tokens=64, max_model_len=None)
    with pytest.raises(CapacityError, match=r"70 tokens.*context holds 60"):
        engine.add_request("a", [1] * 70, greedy(8))
    assert not engine.has_unfinished_requests


def test_a_full_queue_refuses():
    engine = make_engine(max_num_waiting=2)
    engine.add_request("a", [1], greedy(1))
    engine.add_request("b", [1], greedy(1))
    with pytest.raises(QueueFullError):
        engine.add_request("c", [1], greedy(1))
    assert set(run(engine)) == {"a", "b"}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "empty"),
        ([VOCAB_SIZE], "outside this model's vocabulary"),
        ([-1], "outside this model's vocabulary"),
        ([1.5], "not a token id"),
        ("text", "no tokenizer"),
        ({"prmpt": "x"}, "prompt_token_ids"),
        (7, "cannot be used"),
    ],
)
def test_bad_prompts_are_refused(prompt, message):
    engine = make_engine()
    with pytest.raises(UsageError, match=message):
        engine.add_request("a", prompt, greedy(1))
    assert not engine.has_unfinished_requests


def test_an_id_in_use_is_refused():
    engine = make_engine()
    engine.add_request("a", [1], greedy(5))
    with pytest.raises(UsageError, match="already in use"):
        engine.add_request("a", [2], greedy(5))
    assert run(engine)["a"].outputs[0].token_ids == answer([1], 5, (None,))


def test_a_failing_step_ends_those_that_run_and_no_others():
    model = NullModel(VOCAB_SIZE)

    class Failing(NullBackend):
        fail = False

        def plan(self, batch, block_size):
            if self.fail:
                raise MemoryError("device is full")
            return super().plan(batch, block_size)

    backend = Failing(model, verify=True)
    engine = make_engine(backend=backend, max_num_seqs=2)
    for index in range(4):
        engine.add_request(str(index), [index + 1] * 5, greedy(10))
    engine.step()
    backend.fail = True
    failed = [*engine.step(), *engine.step(), *engine.step()]  # together, then one by one
    assert [output.request_id for output in failed] == ["0", "1"]
    assert all("device is full" in output.error for output in failed)
    assert all(output.outputs[0].finish_reason == "error" for output in failed)
    backend.fail = False
    outputs = run(engine)
    assert {key: output.outputs[0].token_ids for key, output in outputs.items()} == {
        key: answer([int(key) + 1] * 5, 10, (None,)) for key in ("2", "3")
    }


def test_ctrl_c_within_a_step_leaves_nothing_half_done():
    model = NullModel(VOCAB_SIZE)

    class Interrupted(NullBackend):
        interrupt = False

        def plan(self, batch, block_size):
            if self.interrupt:
                raise KeyboardInterrupt
            return super().plan(batch, block_size)

    backend = Interrupted(model, verify=True)
    engine = make_engine(backend=backend, max_num_seqs=1)
    engine.add_request("running", [1, 2, 3], greedy(10))
    engine.add_request("waiting", [4, 5, 6], greedy(10))
    engine.step()
    backend.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    backend.interrupt = False
    outputs = run(engine)
    assert outputs["running"].outputs[0].finish_reason == "error"
    assert outputs["waiting"].outputs[0].token_ids == answer([4, 5, 6], 10, (None,))


def test_the_moment_a_request_leaves_the_queue_is_noted_once():
    """The second waits until the first is done; the first is preempted in no way."""
    engine = make_engine(max_num_seqs=1)
    engine.add_request("first", [1, 2, 3], greedy(20))
    engine.add_request("second", [4, 5, 6], greedy(3))
    finished = run(engine)
    first, second = finished["first"].metrics, finished["second"].metrics
    assert first.arrival_time_s <= first.first_scheduled_time_s < first.first_token_time_s
    assert second.arrival_time_s < first.first_token_time_s
    assert first.first_token_time_s < second.first_scheduled_time_s < second.first_token_time_s
