"""What the engine checks stand on: the comparison, the oracle of options, the watch over steps."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from mutants_engine import Compiled
from plain_backend import DEVICE, SPEC, backend_with, with_caps

from octavo.testing.answers import Answer, greedy
from octavo.testing.checks.engine import CHECKS
from octavo.testing.checks.engine_families import FAMILIES
from octavo.testing.checks.engine_long_run import LONG_RUN
from octavo.testing.conform import Planned, plan_cases, run_case
from octavo.testing.family_answers import Expected, Precision, first_difference
from octavo.testing.family_vectors import NextToken
from octavo.testing.option_oracle import first_disallowed
from octavo.testing.step_watch import StepWatch, shapes_of
from octavo.testing.subject import Subject

EXPECTED = Expected((7, 8, 9), (NextToken(3, -1.0, 0.5), NextToken(4, -2.0, 0.01)), (-3.0, -4.0))
RIGHT = Answer((3, 4), (-1.0, -2.0), prompt_logprobs=(-3.0, -4.0))


def subject_with(load):
    return Subject.of(replace(SPEC, load=load), DEVICE, distribution="octavo-plain")


@pytest.mark.parametrize("tolerance", [1e-4, 0.1])
def test_a_right_answer_has_no_difference(tolerance):
    assert first_difference(RIGHT, EXPECTED, tolerance) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"error": "it broke"}, "the engine ended the request: it broke"),
        (
            {"prompt_logprobs": (-3.0,)},
            "1 log-probabilities of prompt tokens came back, expected 2",
        ),
        (
            {"prompt_logprobs": (-3.0, -4.1)},
            "at position 2 of a prompt of 3 tokens .* is -4.1, expected -4 within 0.01",
        ),
        ({"prompt_logprobs": (-3.0, float("nan"))}, "position 2 of a prompt of 3 tokens .* is nan"),
        (
            {"token_ids": (5, 4)},
            "token 0 of the answer .* is 5 .* expected 3 with -1, ahead by 0.5",
        ),
        (
            {"logprobs": (-1.0, -2.1)},
            "token 1 of the answer .* has log-probability -2.1, expected -2",
        ),
        ({"token_ids": (3,), "logprobs": (-1.0,)}, "token 1 .* is missing: .* ends after 1 tokens"),
    ],
)
def test_the_first_difference_is_told(changes, says):

    found = first_difference(replace(RIGHT, **changes), EXPECTED, 0.01)
    assert found is not None
    assert re.search(says, found), found


def test_nothing_is_compared_after_a_tie():
    beyond = replace(RIGHT, token_ids=(3, 200), logprobs=(-1.0, -77.0))
    assert first_difference(beyond, EXPECTED, 0.006) is None
    assert first_difference(beyond, EXPECTED, 0.004) is not None


ROW = np.log(np.array([0.4, 0.3, 0.2, 0.1]))


def answer_of(*token_ids, rows=None):
    rows = [ROW] * len(token_ids) if rows is None else rows
    return Answer(token_ids, likeliest=tuple(dict(enumerate(row.tolist())) for row in rows))


@pytest.mark.parametrize(
    ("options", "token_ids"),
    [
        ({}, (0, 0)),
        ({"logit_bias": {3: 5.0}}, (3, 3)),
        ({"allowed_token_ids": [1, 3]}, (1, 1)),
        ({"presence_penalty": 0.5}, (0, 1, 0)),
        ({"frequency_penalty": 0.2}, (0, 0, 1)),
        ({"temperature": 1.0, "seed": 1}, (3, 0, 2)),
        ({"temperature": 1.0, "top_k": 2}, (1, 0)),
        ({"temperature": 1.0, "top_p": 0.5}, (1, 0)),
        ({"temperature": 1.0, "min_p": 0.5}, (2, 0)),
        ({"temperature": 2.0, "min_p": 0.5}, (3, 0)),
    ],
)
def test_what_options_allow(options, token_ids):
    assert first_disallowed(answer_of(*token_ids), greedy(8, **options), 4) is None


@pytest.mark.parametrize(
    ("options", "token_ids", "says"),
    [
        ({}, (0, 1), "token 1 is 1, which scores -1.20397 .* greedy takes 0"),
        ({"logit_bias": {3: 5.0}}, (0,), "greedy takes 3, which scores 2.69"),
        ({"allowed_token_ids": [1, 3]}, (0,), "allowed_token_ids does not allow"),
        ({"presence_penalty": 0.5}, (0, 0), "greedy takes 1"),
        ({"frequency_penalty": 0.2}, (0, 0, 0), "token 2 is 0"),
        ({"temperature": 1.0, "top_k": 2}, (2,), "top_k=2 leaves out: 2 tokens are ahead"),
        ({"temperature": 1.0, "top_p": 0.5}, (2,), "tokens ahead of it have 0.7 together"),
        ({"temperature": 1.0, "min_p": 0.5}, (3,), "0.25 times as likely"),
    ],
)
def test_what_options_do_not_allow(options, token_ids, says):

    found = first_disallowed(answer_of(*token_ids), greedy(8, **options), 4)
    assert found is not None
    assert re.search(says, found), found


def test_rows_that_are_no_distribution():
    too_few = first_disallowed(answer_of(0, rows=[ROW[:3]]), greedy(), 4)
    assert too_few == "token 0 came with 3 log-probabilities, expected 4"
    too_much = first_disallowed(answer_of(0, rows=[ROW + 1]), greedy(), 4)
    assert too_much == "the probabilities at token 0 add up to 2.71828, expected 1"


def test_a_right_backend_that_compiles_passes_every_engine_check():
    subject = subject_with(Compiled)
    results = [run_case(subject, planned) for planned in plan_cases(subject, CHECKS, quick=True)]
    assert [result for result in results if result.status != "passed"] == []


def test_what_is_not_claimed_is_listed_and_not_run():
    load = backend_with(caps=with_caps(dtypes=("float32",), kv_dtypes=("float32",), soft_cap=False))
    cases = {
        planned.case.label: planned.case.unclaimed
        for planned in plan_cases(subject_with(load), [FAMILIES])
        if isinstance(planned, Planned)
    }
    assert cases["gemma2"] == "caps.soft_cap is False"
    assert cases["gemma3"] is None
    assert cases["llama bfloat16"] == "caps.dtypes has no bfloat16"
    assert cases["llama kv=int8"] == "caps.kv_dtypes has no int8"


def test_a_backend_without_float32_runs_everything_in_what_it_prefers():
    caps = with_caps(dtypes=("bfloat16", "float16"), kv_dtypes=("float16",))
    assert Precision.best(caps) == Precision("bfloat16", "float16")
    assert Precision.best(caps, "float16") == Precision("float16", "float16")
    subject = subject_with(backend_with(caps=caps))
    results = [run_case(subject, planned) for planned in plan_cases(subject, [FAMILIES])]
    assert {result.status for result in results} == {"passed", "unclaimed"}
    assert [result.id for result in results if result.message.startswith("gemma")] == []


def test_the_long_run_does_preempt(monkeypatch):
    from octavo.scheduler import Scheduler

    num_preemptions = []
    check = Scheduler.check_integrity

    def noting(scheduler):
        num_preemptions.append(scheduler.stats.num_recompute_preemptions)
        check(scheduler)

    monkeypatch.setattr(Scheduler, "check_integrity", noting)
    LONG_RUN.run(Subject.of(SPEC, DEVICE), None)
    assert num_preemptions
    assert num_preemptions[0] > 0


@dataclass(frozen=True)
class Tree:
    values: np.ndarray
    name: str
    rest: tuple


def test_shapes_tell_all_that_a_program_may_depend_on():
    tree = Tree(np.zeros((2, 3), np.int32), "x", (None, 1, np.zeros(4, np.float32)))
    assert shapes_of(tree) == "values=int32[2, 3], name=x, rest=(None; 1; float32[4])"
    assert shapes_of(object()) == "object"


def test_an_eager_backend_is_recognised():
    class Eager:
        def compile(self, step):
            return step

    watch = StepWatch()
    step = watch.wrap(Eager()).compile(lambda *arguments: (arguments[1], None, None))
    for _ in range(6):
        step(None, (), np.zeros(3), ())
    assert watch.is_eager
    assert watch.recompilations == []
